"""What happens beside the steps of a training run: a live line, `log.jsonl`, means, when to save and to stop.

Callbacks with `kept` and `restore` go on after an interruption where they were (`checkpoints.Remembers`).
"""

import json
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.progress import Progress, TaskID
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from catalign.files import whole_file
from catalign.objectives import AdaptiveTemperature
from catalign.processes import count, is_main

LOG_FILE = "log.jsonl"


class LogFile(TrainerCallback):
    """Appends every log of the Trainer to `log.jsonl`, one JSON object a line, with the seconds of training so far.

    What an interrupted run had written after its checkpoint goes, for it happens again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the training has run, without the time between an interruption and its end."""
        return time.monotonic() - self.started

    def kept(self) -> dict[str, Any]:
        """The clock, and how much had been written."""
        return {"seconds": self.seconds, "lines": len(self._lines())}

    def restore(self, kept: dict[str, Any]) -> None:
        """Set the clock and cut the file back."""
        self.started = time.monotonic() - kept["seconds"]
        if not is_main():
            return
        lines = self._lines()[: kept["lines"]]
        with whole_file(self.path) as partial:
            partial.write_text("".join(lines), encoding="utf-8")

    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if state.is_world_process_zero and "train_runtime" not in logs:  # the Trainer's sums are of this process only
            seconds = round(self.seconds, 3)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, "seconds": seconds, **logs}) + "\n")


class LiveLine(TrainerCallback):
    """A progress bar with the running loss, windows a second, most memory so far, and the last validation."""

    def __init__(self, progress: Progress, description: str) -> None:
        self.progress = progress
        self.description = description
        self.task: TaskID | None = None
        self.loss = self.validation = ""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self.task = self.progress.add_task(
                self.description, total=state.max_steps, completed=state.global_step, note=""
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.task is not None:
            self.progress.update(self.task, completed=state.global_step, note=f"{self.loss}{self.validation}")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "loss" in logs:
            memory = logs.get("memory/device_gb", logs["memory/resident_gb"])
            self.loss = f"loss {logs['loss']:.3f}, {logs['speed/windows_per_second']:,.0f} windows/s, {memory:.1f} GB"
        if "eval_ndcg@10" in logs:
            self.validation = f", valid NDCG@10 {logs['eval_ndcg@10']:.4f}"

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.task is not None:
            self.progress.update(self.task, total=state.global_step, note=f"{self.loss}{self.validation}")


class TemperatureStep(TrainerCallback):
    """Moves the adaptive temperature once per optimiser step and logs it."""

    def __init__(self, adaptive: AdaptiveTemperature) -> None:
        self.adaptive = adaptive

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.adaptive.step()

    def forget_step(self) -> None:
        """Drop what was observed in a step that is computed anew."""
        self.adaptive.forget()

    def kept(self) -> dict[str, Any]:
        """The temperature."""
        return {"temperature": float(self.adaptive.temperature)}

    def restore(self, kept: dict[str, Any]) -> None:
        """Set the temperature."""
        self.adaptive.temperature.fill_(kept["temperature"])

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "loss" in logs:
            logs["temperature"] = float(self.adaptive.temperature)


class StepMeans(TrainerCallback):
    """Logs means since the last log line, over all micro-batches in all processes.

    Args:
        names: of the quantities.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self._sums: torch.Tensor | None = None
        self._before: torch.Tensor | None = None  # this step

    def add(self, sum_Q: torch.Tensor, count_Q: torch.Tensor) -> None:
        """Take in one micro-batch: the sums of the Q quantities, without gradient, and over how much each is."""
        sums = torch.stack([sum_Q, count_Q.to(sum_Q)])
        self._sums = sums if self._sums is None else self._sums.to(sums) + sums

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._before = self._sums

    def forget_step(self) -> None:
        """Drop what was added in a step that is computed anew."""
        self._sums = self._before

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if "loss" not in kwargs["logs"] or self._sums is None:
            return
        total_Q, count_Q = self._pooled()
        self._sums = None
        mean_Q = total_Q / count_Q.clamp(min=1e-6)
        kwargs["logs"].update(dict(zip(self.names, mean_Q.tolist(), strict=True)))

    def _pooled(self) -> torch.Tensor:
        """The sums of all processes."""
        if self._sums is None:
            raise ValueError("nothing was added")
        pooled = self._sums.clone()
        if count() > 1:
            torch.distributed.all_reduce(pooled)
        return pooled

    def kept(self) -> dict[str, Any]:
        """The sums since the last line of the log."""
        return {"sums": None if self._sums is None else self._pooled().tolist()}

    def restore(self, kept: dict[str, Any]) -> None:
        """Take the sums back; of several processes the first takes them all."""
        if kept["sums"] is not None:
            pooled = torch.tensor(kept["sums"])
            self._sums = pooled if is_main() else torch.zeros_like(pooled)


class KeptTokens(StepMeans):
    """Logs `in-beam`: of the gold tokens among at least as many valid ones as BEAR has beams, the share among the best.

    A class of its own, since a checkpoint keeps the state of a callback by its class.
    """

    def __init__(self) -> None:
        super().__init__("in-beam")

    def observe(self, margin_P: torch.Tensor) -> None:
        """Take in the margins of one micro-batch (`beam_margins`)."""
        prunable_P = margin_P.isfinite()
        self.add((prunable_P & (margin_P >= 0)).sum().float()[None], prunable_P.sum()[None])


class Patience(EarlyStoppingCallback):
    """Stops after some validations without a gain."""

    @property
    def exhausted(self) -> bool:
        """Whether the training is over."""
        return self.early_stopping_patience_counter >= self.early_stopping_patience

    def kept(self) -> dict[str, Any]:
        """How many validations brought nothing."""
        return {"without_gain": self.early_stopping_patience_counter}

    def restore(self, kept: dict[str, Any]) -> None:
        """Count on."""
        self.early_stopping_patience_counter = kept["without_gain"]


class SaveOften(TrainerCallback):
    """Saves every so many steps within an epoch, whose end is saved anyway."""

    def __init__(self, every: int, steps_of_epoch: int) -> None:
        self.every, self.steps_of_epoch = every, steps_of_epoch

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        within = state.global_step % self.steps_of_epoch
        if within and within % self.every == 0:
            control.should_save = True


class Interrupted(Exception):
    """A training was asked to end before it was done, and can go on."""


class StopOnSignal(TrainerCallback):
    """After SIGTERM: has a checkpoint made at the end of the step, and ends the training with `Interrupted`."""

    def __init__(self, steps_of_epoch: int) -> None:
        self.steps_of_epoch, self._asked = steps_of_epoch, False

    def __enter__(self) -> "StopOnSignal":
        self._listens = threading.current_thread() is threading.main_thread()  # no other thread may
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._listens:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # The end of an epoch is validated first, then saved.
        if self._everywhere(args.device) and state.global_step % self.steps_of_epoch:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._everywhere(args.device) and state.global_step < state.max_steps:
            raise Interrupted(f"stopped after step {state.global_step:,} of {state.max_steps:,}")

    def _everywhere(self, device: torch.device) -> bool:
        """Whether any process was asked, so that all stop at the same step."""
        if count() > 1:
            asked = torch.tensor(float(self._asked), device=device)
            torch.distributed.all_reduce(asked)
            return bool(asked > 0)
        return self._asked

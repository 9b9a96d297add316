"""What a person and a program see of a training run: a live line, `log.jsonl`, TensorBoard."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress, TaskID
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from catalign.objectives import AdaptiveTemperature

LOG_FILE = "log.jsonl"


class LogFile(TrainerCallback):
    """Appends every log of the Trainer to `log.jsonl`, one JSON object a line, with the seconds since the start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started = time.monotonic()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if state.is_world_process_zero:
            seconds = round(time.monotonic() - self.started, 3)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, "seconds": seconds, **logs}) + "\n")


class LiveLine(TrainerCallback):
    """A progress bar with the running loss and the last validation."""

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
            self.loss = f"loss {logs['loss']:.3f}"
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

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "loss" in logs:
            logs["temperature"] = float(self.adaptive.temperature)


class StepMeans(TrainerCallback):
    """Logs means over the examples since the last log line, of all micro-batches in all processes.

    Args:
        names: of the quantities.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self._sums: torch.Tensor | None = None

    def add(self, values: torch.Tensor) -> None:
        """Take in one micro-batch: [quantities, examples], without gradient."""
        sums = torch.cat([values.sum(1), values.new_tensor([values.shape[1]])])
        self._sums = sums if self._sums is None else self._sums + sums

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if "loss" not in kwargs["logs"] or self._sums is None:
            return
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self._sums)
        *sums, count = self._sums.tolist()
        self._sums = None
        kwargs["logs"].update({name: total / count for name, total in zip(self.names, sums, strict=True)})

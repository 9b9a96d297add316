"""What a run tells of itself: rates, the share that merging saved, utilisation, memory, and where the time goes."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from catalign.processes import count, is_main
from catalign.training.flops import Peak, StepCost
from catalign.training.memory import Pass

PHASES = ("packing", "forward", "backward", "optimiser", "validation", "checkpoint", "other")
COUNTS = ("windows", "tokens_before", "tokens", "flops")
Sums = dict[str, float]
BESIDE = ("validation", "checkpoint")  # not part of the rates of training


class Clock:
    """Splits time into phases: every moment belongs to one, the innermost that was entered.

    On an accelerator the end of a phase waits for what was started in it; otherwise its time would count elsewhere.
    """

    def __init__(self) -> None:
        self.seconds: Sums = {}
        self._inside = ["other"]
        self._since = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The time inside the block belongs to this phase, but for phases within."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def enter(self, name: str) -> None:
        """Begin a phase, where a block cannot be drawn around it."""
        self._settle()
        self._inside.append(name)

    def leave(self) -> None:
        """End the innermost phase."""
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        self._settle()
        self._inside.pop()

    def start(self) -> None:
        """Begin to count now."""
        self._since = time.perf_counter()

    def taken(self) -> Sums:
        """The seconds of each phase since the last call."""
        self._settle()
        seconds, self.seconds = self.seconds, {}
        return seconds

    def _settle(self) -> None:
        now = time.perf_counter()
        self.seconds = added(self.seconds, {self._inside[-1]: now - self._since})
        self._since = now


class Meter(TrainerCallback):
    """Counts what the steps compute and times their phases; adds rates to every line of the log that has a loss.

    Rates are those of all processes together, over the time since the line before without validation and checkpoints.

    Attributes:
        clock: the phases of this process.
        peak: what utilisation is a share of, for each process.
    """

    def __init__(self, cost: StepCost, peak: Peak) -> None:
        self.clock, self.peak, self._cost = Clock(), peak, cost
        self._line: Sums = {}  # counts and seconds since the last line of the log
        self._total: Sums = {}  # before that

    def add(self, passes: list[Pass]) -> None:
        """Count the passes of a step that is done."""
        for each in passes:
            before, after = each.batch["token_counts"].tolist()
            counts = (len(each.numbers), before, after, self._cost.of_batch(each.batch) if len(each.numbers) else 0.0)
            self._line = added(self._line, dict(zip(COUNTS, counts, strict=True)))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The clock runs from here."""
        self.clock.start()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add what was counted since the line before."""
        if "loss" not in kwargs["logs"]:
            return
        line = pooled(self._timed())
        self._line, self._total = {}, added(self._total, line)
        kwargs["logs"].update(self._told(line))

    def summary(self) -> dict[str, Any]:
        """What the provenance keeps: the rates of the whole training, and how the peak is known."""
        told = self._told(added(self._total, pooled(self._timed())))
        return {**told, "peak_flops": self.peak.flops, "peak_flops_from": self.peak.source}

    def kept(self) -> dict[str, Any]:
        """Counts and seconds so far."""
        return {"line": pooled(self._timed()), "total": self._total}

    def restore(self, kept: dict[str, Any]) -> None:
        """Count on; of several processes the first takes the counts of all."""
        line = kept["line"]
        self._line = line if is_main() else {name: value for name, value in line.items() if name not in COUNTS}
        self._total = kept["total"]

    def _timed(self) -> Sums:
        """The line, with the seconds up to now."""
        self._line = added(self._line, {f"seconds/{name}": value for name, value in self.clock.taken().items()})
        return self._line

    def _told(self, line: Sums) -> dict[str, float]:
        """Counts and seconds as they are logged."""
        phases = {f"seconds/{name}": line.get(f"seconds/{name}", 0.0) for name in PHASES}
        beside = sum(phases[f"seconds/{name}"] for name in BESIDE)
        seconds = max(sum(phases.values()) - beside, 1e-9)
        windows, before, tokens, flops = (line.get(name, 0.0) for name in COUNTS)
        device = {"memory/device_gb": device_memory_gb()} if torch.cuda.is_available() else {}
        return {
            "speed/windows_per_second": windows / seconds,
            "speed/tokens_per_second": tokens / seconds,
            "speed/utilisation": flops / seconds / (self.peak.flops * count()),
            "tokens_saved": 1 - tokens / max(before, 1),
            **device,
            "memory/resident_gb": resident_memory_gb(),
            **phases,
        }


def added(sums: Sums, more: Sums) -> Sums:
    """The sum of two, name by name."""
    return {name: sums.get(name, 0) + more.get(name, 0) for name in sums | more}


def pooled(line: Sums) -> Sums:
    """A line with the counts of all processes; its seconds stay those of this one."""
    if count() == 1:
        return line
    parts: list[Any] = [None] * count()
    torch.distributed.all_gather_object(parts, [line.get(name, 0) for name in COUNTS])
    return line | {name: sum(column) for name, column in zip(COUNTS, zip(*parts, strict=True), strict=True)}


def device_memory_gb() -> float:
    """Most memory of the accelerator that this process had so far (10^9 bytes)."""
    return round(torch.cuda.max_memory_allocated() / 1e9, 3)


def resident_memory_gb() -> float:
    """Most memory of the machine that this process had so far (10^9 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 3)


def peak_memory_gb() -> float:
    """Most memory of this process so far: of the accelerator if there is one, else resident (10^9 bytes)."""
    return device_memory_gb() if torch.cuda.is_available() else resident_memory_gb()

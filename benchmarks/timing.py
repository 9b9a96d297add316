"""Ways of doing one job, measured side by side: time in alternating pairs, memory in a fresh process each."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Pairs:
    """Seconds of alternating runs; entry n of the lists was measured right after each other.

    Attributes:
        published, ours: by the clock.
        published_cpu, our_cpu: this process's time on the processor, which others on the machine do not lengthen; of
            all threads, and without what an accelerator does.
    """

    published: list[float]
    ours: list[float]
    published_cpu: list[float]
    our_cpu: list[float]

    def summary(self) -> dict[str, Any]:
        """Return the median ratios (published over ours), extremes, the median seconds and every run."""
        ratios = [published / ours for published, ours in zip(self.published, self.ours, strict=True)]
        cpu_ratios = [published / ours for published, ours in zip(self.published_cpu, self.our_cpu, strict=True)]
        return {
            "ratio": round(statistics.median(ratios), 2),
            "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
            "cpu_ratio": round(statistics.median(cpu_ratios), 2),
            "cpu_ratio_range": [round(min(cpu_ratios), 2), round(max(cpu_ratios), 2)],
            "published_seconds": round(statistics.median(self.published), 5),
            "our_seconds": round(statistics.median(self.ours), 5),
            "published_cpu_seconds": round(statistics.median(self.published_cpu), 5),
            "our_cpu_seconds": round(statistics.median(self.our_cpu), 5),
            "runs": {
                "published": [round(seconds, 5) for seconds in self.published],
                "ours": [round(seconds, 5) for seconds in self.ours],
            },
        }


def alternating_pairs(published: Callable[[], object], ours: Callable[[], object], pairs: int) -> Pairs:
    """Time both in turn, so that whatever else the machine does falls on both; a first run of each is not counted."""
    (seconds, cpu), (our_seconds, our_cpu) = alternating_runs([published, ours], pairs)
    return Pairs(seconds, our_seconds, cpu, our_cpu)


def alternating_runs(works: Sequence[Callable[[], object]], runs: int) -> list[tuple[list[float], list[float]]]:
    """Seconds by the clock and on the processor of several ways of doing one job, taken in turn as in `Pairs`."""
    measured: list[tuple[list[float], list[float]]] = [([], []) for _ in works]
    for run in range(runs + 1):
        for (seconds, cpu), work in zip(measured, works, strict=True):
            started, cpu_started = time.perf_counter(), time.process_time()
            work()
            if run > 0:
                seconds.append(time.perf_counter() - started)
                cpu.append(time.process_time() - cpu_started)
    return measured


def peak_growth(prepare: Callable[..., Callable[[], object]], *arguments: Any) -> int:
    """Return by how many bytes the resident memory grows at most while `prepare(*arguments)()` runs (Linux).

    A fresh process per measurement: memory that another run left in the allocator would hide growth. What `prepare`
    itself leaves behind (the inputs) is not counted. The peak is the kernel's own high-water mark: no spike is missed.

    Args:
        prepare: a function of a module, given by name to the new process; returns the work to measure.
        arguments: its arguments.

    Raises:
        RuntimeError: the process died, for want of memory as a rule.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_growth, args=(sender, prepare, arguments))
    process.start()
    sender.close()
    try:
        grown: int = receiver.recv()
    except EOFError as error:
        process.join()
        raise RuntimeError(f"the measured process ended with code {process.exitcode}") from error
    process.join()
    return grown


def _measure_growth(sender: Any, prepare: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> None:
    """Run in the new process."""
    work = prepare(*arguments)
    before = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    work()
    sender.send(_status_bytes("VmHWM") - before)


def _status_bytes(name: str) -> int:
    """Read one size of this process from the kernel."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))

"""What it costs to recommend to everybody, in one process and by Ray: processor seconds to start, and per person.

Test windows of a dataset stand for people. Each engine answers a part of them and all of them, each time as a command
of its own; the difference is what people cost, the rest is the start. Counted are the processor seconds of the command
and of all processes below it, which others on the machine lengthen little; the clock's are told beside them.

    python -m benchmarks.batch --run RUN --dataset DATASET --engines local ray --json
"""

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import psutil  # type: ignore[import-untyped]

from benchmarks.setting import print_result
from catalign.batch.folder import BatchFolder
from catalign.batch.run import prepare
from catalign.batch.settings import BatchSettings
from catalign.data.writing import ParquetSlices

SAMPLED = 0.5  # seconds between two looks at the processes


@dataclass(frozen=True)
class Cost:
    """One command: people, processor seconds and those of the clock, all processes together."""

    people: int
    processor: float
    clock: float


def write_people(dataset: Path, people: int, path: Path) -> int:
    """The first test windows as people with histories of item ids; returns how many there are."""
    ids = pl.read_parquet(dataset / "items.parquet")["item_id"]
    windows = pl.read_parquet(dataset / "windows" / "test.parquet").head(people)
    names = pl.element().replace_strict(pl.int_range(len(ids), eager=True), ids)
    table = windows.select(user_id=pl.int_range(pl.len()).cast(pl.String), history=pl.col("history").list.eval(names))
    table.write_parquet(path)
    return len(table)


def cost_of(options: argparse.Namespace, engine: str, people: int, output: Path) -> Cost:
    """Run the command, and count what it and its children take."""
    source = output.with_suffix(".parquet")
    people = write_people(options.dataset, people, source)
    workers = ["--workers", str(options.workers)] if engine == "ray" else []
    command = [sys.executable, "-m", "catalign", "recommend", str(options.run), "--input", str(source), "--output",
               str(output), "--part-rows", str(options.part_rows), "--engine", engine, *workers]  # fmt: skip
    spent: dict[tuple[int, float], float] = {}
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while True:
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(process.pid)
            for one in (top, *top.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = one.cpu_times()
                    spent[one.pid, one.create_time()] = times.user + times.system
        with contextlib.suppress(subprocess.TimeoutExpired):
            _, err = process.communicate(timeout=SAMPLED)
            break
    if process.returncode:
        raise RuntimeError(err)
    return Cost(people, round(sum(spent.values()), 1), round(time.monotonic() - started, 1))


def check_cost(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What the check of so many people takes in this process, the same histories again and again."""
    few = write_people(options.dataset, 10_000, folder / "few.parquet")
    histories = pl.read_parquet(folder / "few.parquet")["history"]
    with ParquetSlices(folder / "in.parquet") as file:
        for start in range(0, options.check, few):
            rows = min(few, options.check - start)
            names = pl.int_range(start, start + rows, eager=True).cast(pl.String)
            file.write(pl.DataFrame({"user_id": names, "history": histories.head(rows)}))
    started = time.process_time()
    plan = prepare(options.run, folder / "in.parquet", BatchFolder(folder / "out"), BatchSettings(), False)
    assert plan is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"people": sum(plan.rows_of_parts), "processor_seconds": round(time.process_time() - started, 1),
            "peak_megabytes": round(peak / 1024)}  # fmt: skip


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All engines, with a part of the people and with all."""
    result: dict[str, Any] = {"engines": {}}
    sizes = (options.people // 4, options.people)
    for engine in options.engines:
        few, many = (cost_of(options, engine, people, folder / f"{engine}-{people}") for people in sizes)
        each = (many.processor - few.processor) / (many.people - few.people)
        result["engines"][engine] = {
            "people_per_processor_second": round(1 / each, 1),
            "start_processor_seconds": round(few.processor - few.people * each, 1),
            "runs": [asdict(few), asdict(many)],
        }
    told = [pl.read_parquet(folder / f"{engine}-{sizes[1]}/part-*.parquet") for engine in options.engines]
    result["same"] = all(one.drop("probabilities").equals(told[0].drop("probabilities")) for one in told)
    return {**result, "part_rows": options.part_rows, "load": [round(value, 1) for value in os.getloadavg()]}


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run folder")
    parser.add_argument("--dataset", type=Path, required=True, help="a dataset of the same items")
    parser.add_argument("--engines", nargs="+", default=["local"], choices=["local", "ray"])
    parser.add_argument("--people", type=int, default=8192)
    parser.add_argument("--part-rows", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2, help="of Ray")
    parser.add_argument("--check", type=int, help="only check the rows of so many people, which needs no model")
    parser.add_argument("--quick", action="store_true", help="a quarter of the people")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    options.people //= 4 if options.quick else 1
    with tempfile.TemporaryDirectory() as folder:
        cost = measure if options.check is None else check_cost
        print_result(cost(options, Path(folder)), options.json)


if __name__ == "__main__":
    main()

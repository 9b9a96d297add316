"""Preparing a generated log of many interactions: `python -m benchmarks.prepare --work /tmp/prepare --quick`.

For every size one process generates the tables, another prepares them (5-core, chronological split, windows, Parquet)
and a third counts what `data inspect` prints: seconds by the clock and on the processor, the largest resident memory of
each process, and how they grow with the rows. There are rows / 10 users and rows / 50 items; popularity and activity
are skewed, the rows in no order of time.
"""

import argparse
import itertools
import json
import resource
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from catalign.data.dataset import load_dataset
from catalign.data.inspect import describe
from catalign.data.options import Table, TableOptions, TableSource
from catalign.data.prepare import prepare_tables
from catalign.data.writing import ParquetSlices

SEED = 0
CHUNK = 1_000_000
USER_ROWS, ITEM_ROWS = 10, 50  # interactions of the mean user and item
WORDS = ("night", "garden", "river", "secret", "house", "winter", "green", "last", "king", "letters", "sea", "stone")
T = TypeVar("T")


def interactions_of(first: int, rows: int, size: int) -> pl.DataFrame:
    """Rows of the log; the same whatever the chunks before."""
    random = np.random.default_rng([SEED, first])
    users, items = size // USER_ROWS, size // ITEM_ROWS
    user = (users * random.random(rows) ** 1.5).astype(np.int64)
    item = (items * random.random(rows) ** 2.5).astype(np.int64)
    return pl.DataFrame(
        {
            "user": user,
            "item": item,
            "time": random.integers(1_500_000_000, 1_700_000_000, rows),
            "stars": random.integers(1, 6, rows),
        }
    ).select(
        user=pl.format("AE{}", (pl.col("user") * 2_654_435_761 % 2**32).cast(pl.String).str.zfill(12)),
        item=pl.format("B{}", pl.col("item").cast(pl.String).str.zfill(9)),
        time="time",
        stars="stars",
    )


def items_of(size: int) -> pl.DataFrame:
    """The items, with titles of four words and a number."""
    random = np.random.default_rng(SEED)
    items = size // ITEM_ROWS
    words = pl.Series(WORDS)
    parts = [words.gather(random.integers(0, len(WORDS), items)).alias(str(part)) for part in range(4)]
    frame = pl.DataFrame(parts).with_row_index("number")
    title = pl.concat_str(pl.format("The {} {} of the {} {}, no. {}", "0", "1", "2", "3", "number"))
    return frame.select(item=pl.format("B{}", pl.col("number").cast(pl.String).str.zfill(9)), title=title)


def generate(folder: Path, size: int, kind: str) -> None:
    """Write `log` and `items` of one kind, chunk by chunk."""
    folder.mkdir(parents=True)
    log, items = folder / f"log.{kind}", items_of(size)
    chunks = ((first, min(CHUNK, size - first)) for first in range(0, size, CHUNK))
    if kind == "parquet":
        items.write_parquet(folder / "items.parquet")
        with ParquetSlices(log) as slices:
            for first, rows in chunks:
                slices.write(interactions_of(first, rows, size))
        return
    items.write_csv(folder / "items.csv")
    with log.open("wb") as file:
        for first, rows in chunks:
            interactions_of(first, rows, size).write_csv(file, include_header=first == 0)


def prepare(folder: Path, kind: str) -> dict[str, Any]:
    """Prepare what `generate` wrote; seconds of each phase and in all, peak memory, what came out."""
    source = TableSource(
        interactions=Table.of(folder / f"log.{kind}"), user="user", item="item", time="time", rating="stars",
        items=Table.of(folder / f"items.{kind}"), item_id="item", title="title",
    )  # fmt: skip
    began: dict[str, float] = {}

    def step(text: str) -> None:
        began.setdefault(text.split(":")[0], time.perf_counter())

    start = time.perf_counter()
    dataset = prepare_tables(source, TableOptions(k_core=5), folder / "dataset", step=step)
    ends = [*list(began.values())[1:], time.perf_counter()]
    card = dataset.card
    return {
        "seconds": round(ends[-1] - start, 1),
        "processor_seconds": round(time.process_time(), 1),
        "peak_gigabytes": peak(),
        "phases": {phase: round(end - first, 1) for (phase, first), end in zip(began.items(), ends, strict=True)},
        "kept": {"interactions": card.interactions, "users": card.users, "items": card.items},
        "windows": {split: counts.windows for split, counts in card.splits.items()},
        "dataset_gigabytes": round(sum(path.stat().st_size for path in dataset.folder.rglob("*.parquet")) / 1e9, 3),
    }


def inspect(folder: Path) -> dict[str, Any]:
    """Count what `data inspect` prints."""
    start = time.perf_counter()
    describe(load_dataset(folder / "dataset"))
    seconds = round(time.perf_counter() - start, 1)
    return {"seconds": seconds, "processor_seconds": round(time.process_time(), 1), "peak_gigabytes": peak()}


def peak() -> float:
    """The largest resident memory that this process has had."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def in_process(work: Callable[..., T], *arguments: Any) -> T:
    """Do the work in a fresh process, so that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measure(work: Path, size: int, kind: str) -> dict[str, Any]:
    """Generate, prepare, inspect, clean up."""
    folder = work / f"{kind}-{size}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        in_process(generate, folder, size, kind)
        source = round(sum(path.stat().st_size for path in folder.iterdir()) / 1e9, 3)
        prepared = in_process(prepare, folder, kind)
        return {
            "rows": size,
            "kind": kind,
            "source_gigabytes": source,
            **prepared,
            "inspect": in_process(inspect, folder),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def growth(small: dict[str, Any], large: dict[str, Any]) -> dict[str, Any]:
    """How many times the rows, the seconds and the memory are those of the smaller size; null where that had none."""
    keys = ("rows", "seconds", "processor_seconds", "peak_gigabytes")
    return {key: round(large[key] / small[key], 2) if small[key] else None for key in keys} | {
        "from": small["rows"],
        "to": large["rows"],
        "kind": large["kind"],
    }


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for tables and datasets; they are removed")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--kind", choices=["parquet", "csv"], nargs="+", default=["parquet"])
    parser.add_argument("--quick", action="store_true", help="20,000 and 100,000 rows of both kinds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    kinds = ["parquet", "csv"] if options.quick else options.kind
    sizes = [20_000, 100_000] if options.quick else sorted(options.rows)
    runs = []
    for kind in kinds:
        for size in sizes:
            runs.append(measure(options.work, size, kind))
            if not options.json:
                print(json.dumps(runs[-1]), flush=True)
    grown = [growth(*pair) for pair in itertools.pairwise(runs) if pair[0]["kind"] == pair[1]["kind"]]
    if options.json:
        print(json.dumps({"runs": runs, "growth": grown}, indent=2))
    else:
        print("\n".join(json.dumps(line) for line in grown))


if __name__ == "__main__":
    main()

"""What it costs to watch and to save: a training with and without validation, a trace, more checkpoints and so on.

Every way is trained in turn, round after round, on a made-up world with an embedded model. Compared is the processor
time of the training alone (without loading), which others on the machine do not lengthen; the share is that of the
plain way in the same round; shown are the medians over the rounds and their range. What the end of an epoch costs,
where every way makes a checkpoint, is taken from the phases of the plain way, by the clock.

    python -m benchmarks.overheads --quick --json
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.setting import print_result
from catalign.cli.main import main as catalign
from catalign.training import observe
from catalign.training.trainer import CatalogueTrainer

BATCH = 32
WAYS: dict[str, list[str]] = {
    "plain": [],
    "a checkpoint every 5 steps": ["--checkpoint-steps", "5"],
    "validation each epoch, 64 windows": ["--validation", "--valid-windows", "64"],
    "a line of the log each step": ["--logging-steps", "1"],
    "gradient checkpointing": ["--gradient-checkpointing"],
    "passes of at most 256 tokens": ["--max-tokens", "256"],
    "a trace of three steps": ["--profile"],
}


@dataclass(frozen=True)
class Cost:
    """Processor seconds of a training, and the share of its time that checkpoints took."""

    seconds: float
    checkpoint: float


def cost_of(options: list[str], places: list[str], output: Path) -> Cost:
    """Train in one way."""
    train, spent = CatalogueTrainer.train, []

    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.process_time()
        ended = train(*arguments, **named)
        spent.append(time.process_time() - started)
        return ended

    without = [] if "--validation" in options else ["--no-validation"]
    with mock.patch.object(CatalogueTrainer, "train", timed):
        run(["train", *places, *without, *options, "--output", str(output)])
    told = json.loads((output / "provenance.json").read_text())["training"]["observed"]
    return Cost(spent[0], told["seconds/checkpoint"] / sum(told[f"seconds/{name}"] for name in observe.PHASES))


def run(arguments: list[str]) -> None:
    """A command in this process, without what it prints."""
    before, sys.argv = sys.argv, ["catalign", *arguments]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            catalign()
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(" ".join(arguments)) from ended
    finally:
        sys.argv = before


def clock_cost(repeats: int = 2000) -> float:
    """Seconds that a phase of the clock takes by itself."""
    clock = observe.Clock()
    started = time.perf_counter()
    for _ in range(repeats):
        with clock.phase("forward"):
            pass
    return (time.perf_counter() - started) / repeats


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All ways, round after round."""
    places = make_world(options, folder)
    rounds: list[dict[str, Cost]] = []
    for number in range(options.rounds):
        folders = [folder / f"{number}-{place}" for place in range(len(WAYS))]
        ways = zip(WAYS.items(), folders, strict=True)
        rounds.append({way: cost_of(given, places, output) for (way, given), output in ways})
    steps = -(-options.examples // BATCH)
    shares = {way: [each[way].seconds / each["plain"].seconds - 1 for each in rounds] for way in WAYS if way != "plain"}
    shares["a checkpoint each epoch, by the clock"] = [each["plain"].checkpoint for each in rounds]
    plain = [each["plain"].seconds for each in rounds]
    phase = clock_cost()
    return {
        "processor_seconds_plain": round(statistics.median(plain), 3),
        "steps": steps,
        "added_percent": {
            way: {
                "median": round(100 * statistics.median(share), 1),
                "range": [round(100 * min(share), 1), round(100 * max(share), 1)],
            }
            for way, share in shares.items()
        },
        "clock": {"microseconds_a_phase": round(phase * 1e6, 2),
                  "percent_of_a_step": round(100 * 4 * phase * steps / statistics.median(plain), 4)},
        "rounds": options.rounds, "threads": torch.get_num_threads(),
        "load": [round(value, 1) for value in os.getloadavg()],
    }  # fmt: skip


def make_world(options: argparse.Namespace, folder: Path) -> list[str]:
    """A dataset of users who walk through a catalogue, and an embedded model; the options that name them."""
    lines, names = ["user,item,time"], ["item,title"]
    for user in range(options.users):
        lines += [
            f"u{user},i{(7 * user + 3 * visit) % 500},{1_600_000_000 + 1000 * user + visit}" for visit in range(20)
        ]
    colours, things = ("red", "green", "blue", "gold", "black"), ("lamp", "kettle", "scarf", "chair", "bowl")
    names += [f'i{item},"{colours[item % 5]} {things[item // 5 % 5]} number {item}"' for item in range(500)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    (folder / "items.csv").write_text("\n".join(names) + "\n")
    tables = ["--interactions", str(folder / "log.csv"), "--items", str(folder / "items.csv"), "--user", "user",
              "--item", "item", "--time", "time", "--title", "title"]  # fmt: skip
    run(["data", "prepare", *tables, "--output", str(folder / "ds")])
    start = ["model", "init", "--dataset", str(folder / "ds"), "--preset", options.preset, "--epochs", "1"]
    run([*start, "--output", str(folder / "lm")])
    return ["--dataset", str(folder / "ds"), "--model", str(folder / "lm"), "--train-examples", str(options.examples),
            "--epochs", "1", "--batch-size", str(BATCH), "--precision", "float32"]  # fmt: skip


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, help="how often all ways are trained (5; 3 with --quick)")
    parser.add_argument("--preset", default="tiny", help="of the embedded model")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.examples, options.users = (256, 100) if options.quick else (2048, 400)
    with tempfile.TemporaryDirectory() as folder:
        print_result(measure(options, Path(folder)), options.json)


if __name__ == "__main__":
    main()

"""Training by one process on one core and by two on two: `python -m benchmarks.processes --quick --json`.

Both train the same recipe on the sample store, from the same random weights, in the same global batches; each process
computes with one thread on a core of its own (Linux). Rounds alternate, so that whatever else the machine does falls on
both. What is counted are the windows of all optimiser steps but the first, by the times in the run's log: the start of
processes, validation and the end are left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BATCH = 64


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", help="size of the random model (small; tiny with --quick)")
    parser.add_argument("--rounds", type=int, help="of both (5; 1 with --quick)")
    parser.add_argument("--steps", type=int, help="optimiser steps of a run (40; 6 with --quick)")
    parser.add_argument("--sharded", action="store_true", help="two processes with FSDP2 instead of copies")
    parser.add_argument("--quick", action="store_true", help="small, and only to see that it runs")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    options.preset = options.preset or ("tiny" if options.quick else "small")
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.steps = options.steps or (6 if options.quick else 40)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options)
    print(json.dumps(result) if options.json else "\n".join(f"{name:>20} {value}" for name, value in result.items()))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Windows per second of one and of two processes, and their ratio: medians over rounds."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("this machine lends one core only; two are needed")
    catalign = [sys.executable, "-m", "catalign"]
    subprocess.run([*catalign, "data", "sample", "--prepare", "--output", str(folder / "store")], check=True, stdout=2)
    dataset = folder / "store/dataset"
    init = ["model", "init", "--dataset", str(dataset), "--preset", options.preset, "--epochs", "0"]
    subprocess.run([*catalign, *init, "--output", str(folder / "lm")], check=True, stdout=2)
    train = [
        "train", "--dataset", str(dataset), "--model", str(folder / "lm"), "--objective", "msl", "--epochs", "1",
        "--train-examples", str(BATCH * options.steps), "--batch-size", str(BATCH), "--no-validation",
        "--logging-steps", "1", "--precision", "float32", "--overwrite", "--output", str(folder / "run"),
    ]  # fmt: skip
    speed: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for processes, speeds in speed.items():
            run(train, cores[:processes], sharded=options.sharded and processes > 1)
            speeds.append(windows_per_second(folder / "run/log.jsonl"))
    medians = {processes: statistics.median(speeds) for processes, speeds in speed.items()}
    ratios = [two / one for one, two in zip(speed[1], speed[2], strict=True)]
    return {
        "one process": round(medians[1], 2),
        "two processes": round(medians[2], 2),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "preset": options.preset,
        "steps": options.steps,
        "batch": BATCH,
        "sharded": options.sharded,
    }


def run(arguments: list[str], cores: list[int], *, sharded: bool) -> None:
    """Run a command in as many processes as cores are given, each on its own with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if sharded:
        environment |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    start = [sys.executable, __file__, "--on-cores", ",".join(map(str, cores)), *arguments]
    if len(cores) > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(len(cores))]
        start = [sys.executable, *launcher, *start[1:]]
    subprocess.run(start, check=True, stdout=2, env=environment)


def on_core(cores: str, arguments: list[str]) -> None:
    """Be `catalign ARGUMENTS`, bound to the core that is this process's."""
    os.sched_setaffinity(0, {int(cores.split(",")[int(os.environ.get("LOCAL_RANK", "0"))])})
    from catalign.cli.main import main as catalign

    sys.argv = ["catalign", *arguments]
    catalign()


def windows_per_second(log: Path) -> float:
    """Over all steps but the first, from the times in a run's log."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    times = [(line["step"], line["seconds"]) for line in lines if "loss" in line]
    (first, began), (last, ended) = times[0], times[-1]
    return float(BATCH * (last - first) / (ended - began))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--on-cores"]:
        on_core(sys.argv[2], sys.argv[3:])
    else:
        main()

"""Two processes train as one does: the same losses, the same metrics, one run folder."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import psutil  # type: ignore[import-untyped]
import pytest

from catalign.files import read_json
from catalign.training.checkpoints import checkpoints, newest_whole, step_of
from catalign.training.distillation import read_answers
from toy import mistake, repeatable, works

pytestmark = pytest.mark.slow

COMMANDS = """
import json, sys
from catalign.cli.main import main
from catalign.training import distillation

distillation.CHUNK = 8
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["catalign", *arguments]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""
USUAL = {
    "batch-size": 8, "epochs": 2, "train-examples": 41, "learning-rate": 3e-3, "valid-windows": 13, "logging-steps": 1,
    "precision": "float32",
}  # fmt: skip
OPTIONS = [text for name, value in USUAL.items() for text in (f"--{name}", str(value))]


SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}  # as accelerate launch says it


def started(*program: object, processes: int = 2, sharded: bool = False) -> "subprocess.Popen[str]":
    """Start a program in several processes, as a user does."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [*torchrun, *map(str, program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **(SHARDED if sharded else {})},
    )  # fmt: skip


def in_processes(folder: Path, *commands: list[object], sharded: bool = False) -> str:
    """Run commands one after the other in two processes, which takes one start; what they printed."""
    (folder / "commands.py").write_text(COMMANDS)
    asked = json.dumps([list(map(str, command)) for command in commands])
    process = started(folder / "commands.py", asked, sharded=sharded)
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    return out


def numbers(run: Path) -> list[dict[str, Any]]:
    """The log of a run, without what depends on the clock and on which windows meet in a process."""
    return [{name: line[name] for name in line if name != "tokens_saved"} for line in repeatable(run)]


def assert_same(run: Path, other: Path, *, tolerance: float = 1e-5) -> None:
    lines, others = numbers(run), numbers(other)
    assert len(lines) == len(others) > 10
    for line, expected in zip(lines, others, strict=True):
        assert line == pytest.approx(expected, rel=tolerance, abs=1e-6)


def test_every_stage(toy_dataset: Path, toy_model: Path, toy_run: Path, tmp_path: Path) -> None:
    """41 windows in batches of 8: the last batch of an epoch has one window, so one process has none."""
    places: list[object] = ["--dataset", toy_dataset, "--model", toy_model]
    stages: dict[str, list[object]] = {
        "lml": [*places, "--objective", "lml", "--micro-batch-size", 4, "--batching", "shuffled"],
        "ats": [*places, "--objective", "msl+ats"],
        "soft": ["--stage", "soft", "--from", toy_run, "--curriculum-steps", 4, "--answers-kept", 2],
        "dmpo": ["--stage", "preference", "--from", toy_run, "--negatives", 2, "--negatives-from", "hard",
                 "--refresh-steps", 4, "--lora", "--lora-dropout", 0],
    }  # fmt: skip
    for name, options in stages.items():
        works("train", *options, *OPTIONS, "--output", tmp_path / f"{name}-1")
    protocols: dict[str, list[object]] = {"full": [], "candidates": ["--candidates", 5], "pairs": []}
    evaluations: list[list[object]] = [
        ["evaluate", toy_run, "--protocol", protocol, *options] for protocol, options in protocols.items()
    ]
    for evaluation, protocol in zip(evaluations, protocols, strict=True):
        works(*evaluation, "--output", tmp_path / f"{protocol}-1")

    commands = [["train", *options, *OPTIONS, "--output", tmp_path / f"{name}-2"] for name, options in stages.items()]
    asked = [[*one, "--output", tmp_path / f"{name}-2"] for one, name in zip(evaluations, protocols, strict=True)]
    out = in_processes(tmp_path, *commands, *asked)
    assert out.count("best epoch") == len(stages)
    for name in stages:
        assert_same(tmp_path / f"{name}-2", tmp_path / f"{name}-1")
    answers = [read_answers(tmp_path / f"soft-{count}/distilled").drop("scores") for count in (1, 2)]
    assert answers[0].equals(answers[1]) and len(list(tmp_path.glob("soft-2/distilled/part-*.parquet"))) == 6
    for name in protocols:
        assert read_json(tmp_path / f"{name}-2/metrics.json") == read_json(tmp_path / f"{name}-1/metrics.json")
        users = [set(pl.read_parquet(part)["user_id"]) for part in (tmp_path / f"{name}-2").glob("part-*.parquet")]
        assert len(users) == 2 and users[0].isdisjoint(users[1])


def wait_for_checkpoint(run: Path, process: "subprocess.Popen[str]", after: int = 0) -> None:
    deadline = time.monotonic() + 240
    while not any(step_of(checkpoint) > after for checkpoint in checkpoints(run / "checkpoints")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_and_resumed(toy_dataset: Path, toy_model: Path, tmp_path: Path) -> None:
    """One process dies: all end. SIGTERM to the launcher: all stop at a checkpoint. A single process finishes."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    options = [*OPTIONS, "--learning-rate", 1e-3, "--epochs", 8, "--checkpoint-steps", 2]
    train = ["train", "--dataset", toy_dataset, "--model", toy_model, *options]
    process = started("-m", "catalign", *train, "--output", run)
    wait_for_checkpoint(run, process)
    (second,) = (child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == "1")
    second.kill()
    process.communicate(timeout=240)
    assert process.returncode != 0
    step = step_of(newest_whole(run / "checkpoints") or Path("checkpoint-0"))
    assert step > 0

    process = started("-m", "catalign", "train", "--resume", "--output", run)
    wait_for_checkpoint(run, process, after=step)
    process.terminate()
    _, told = process.communicate(timeout=240)
    assert process.returncode != 0 and told.count("catalign train --resume --output") == 1
    works("train", "--resume", "--output", run)
    works(*train, "--output", whole)
    assert_same(run, whole)
    assert len(read_json(run / "provenance.json")["resumed"]) == 2


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    options = ["--dataset", tmp_path, "--model", tmp_path, "--output", tmp_path / "run"]
    assert "FSDP is not supported" in mistake("train", *options)
    assert "in one process" in mistake("model", "init", "--dataset", tmp_path, "--output", tmp_path / "lm")
    assert not (tmp_path / "run").exists()

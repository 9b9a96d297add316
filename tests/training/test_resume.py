"""A run that was killed and goes on ends as one that was not: same losses, same weights, nothing twice in its log."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from catalign.training.callbacks import LogFile
from catalign.training.checkpoints import SEAL, checkpoints, is_whole, newest_whole, publish
from toy import catalign, log_lines, mistake, repeatable, works

STEPS = 6  # of an epoch: 48 windows in batches of 8


class Killed(BaseException):
    """What no code expects, as if the process had been killed."""


class Runs:
    """Trains the same recipe once in one go and once with interruptions."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
        self.folder, self._patch, self.options = folder, monkeypatch, options

    def whole(self) -> Path:
        works("train", *self.options, "--output", self.folder / "whole")
        return self.folder / "whole"

    def killed(self, *steps: int, how: str = "killed") -> Path:
        """Train, killed when a loss of these steps is logged, and going on after each."""
        run = self.folder / how
        for number, step in enumerate(steps):
            self._kill_at(step)
            with pytest.raises(Killed):
                catalign("train", *(("--resume",) if number else self.options), "--output", run)
            self._patch.undo()
        works("train", "--resume", "--output", run)
        return run

    def _kill_at(self, step: int) -> None:
        log = LogFile.on_log

        def on_log(self: LogFile, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            log(self, args, state, control, **kwargs)
            if state.global_step == step and "loss" in kwargs["logs"]:
                raise Killed

        self._patch.setattr(LogFile, "on_log", on_log)


@pytest.fixture
def usual(toy_dataset: Path, toy_model: Path) -> list[object]:
    options = {"batch-size": 8, "epochs": 3, "train-examples": 48, "learning-rate": 3e-3, "valid-windows": 12,
               "logging-steps": 1, "checkpoint-steps": 2, "precision": "float32"}  # fmt: skip
    texts = [text for name, value in options.items() for text in (f"--{name}", value)]
    return ["--dataset", toy_dataset, "--model", toy_model, *texts]


def assert_same(run: Path, other: Path) -> None:
    """Logs, weights and the choice of the epoch are equal; times may differ."""

    lines, others = repeatable(run), repeatable(other)
    assert [line["step"] for line in lines] == [line["step"] for line in others]
    for line, expected in zip(lines, others, strict=True):
        assert line == pytest.approx(expected, rel=1e-6, abs=1e-7)
    for name in ("model.safetensors", "adapter_model.safetensors"):
        if (other / name).exists():
            weights, expected_weights = load_file(run / name), load_file(other / name)
            assert all((weights[key] - expected_weights[key]).abs().max() < 1e-6 for key in expected_weights)
    summary, expected = (json.loads((folder / "provenance.json").read_text())["training"] for folder in (run, other))
    timed = ("seconds", "peak_memory_gb", "observed", "distillation")
    assert {k: v for k, v in summary.items() if k not in timed} == {k: v for k, v in expected.items() if k not in timed}


@pytest.mark.parametrize("options", [
    ["--objective", "lml"],
    ["--objective", "msl+ats", "--bear-weight", 0.5, "--batching", "shuffled", "--logging-steps", 4],
    ["--lora", "--lora-dropout", 0.3, "--micro-batch-size", 4],
    ["--no-validation"],
], ids=["lml", "ats", "dropout", "no-validation"])  # fmt: skip
def test_killed_and_resumed_is_uninterrupted(
    usual: list[object], options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(tmp_path, monkeypatch, *usual, *options)
    assert_same(runs.killed(4, STEPS + 2, 2 * STEPS), runs.whole())


def test_a_run_that_had_stopped_early_stays_stopped(
    usual: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate is so small that no epoch after the first is better; killed while the last checkpoint is made known."""
    runs = Runs(tmp_path, monkeypatch, *usual, "--learning-rate", 1e-9, "--patience", 1, "--epochs", 9)
    run = tmp_path / "killed"
    monkeypatch.setattr("catalign.training.train.finish_run", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        catalign("train", *runs.options, "--output", run)
    monkeypatch.undo()
    works("train", "--resume", "--output", run)
    assert log_lines(run)[-1]["step"] == 2 * STEPS
    assert_same(run, runs.whole())


@pytest.mark.parametrize("moves", [["--curriculum-steps", 4], ["--curriculum", "linear"]], ids=["adaptive", "linear"])
def test_soft(
    usual: list[object], toy_run: Path, moves: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(tmp_path, monkeypatch, "--stage", "soft", "--from", toy_run, *usual[4:], *moves)
    assert_same(runs.killed(3, STEPS + 1), runs.whole())


@pytest.mark.parametrize("kind", [
    ["--negatives-from", "hard", "--refresh-steps", 4],
    ["--negatives-from", "uniform"],
], ids=["refreshed", "uniform"])  # fmt: skip
def test_preference(usual: list[object], kind: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works("train", *usual, "--lora", "--output", tmp_path / "sft")
    stage = ["--stage", "preference", "--from", tmp_path / "sft", "--negatives", 2, *usual[4:], *kind]
    runs = Runs(tmp_path, monkeypatch, *stage)
    assert_same(runs.killed(4, STEPS + 3), runs.whole())


def test_a_torn_checkpoint_is_passed_over(usual: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(tmp_path, monkeypatch, *usual)
    run = tmp_path / "killed"
    runs._kill_at(5)
    with pytest.raises(Killed):
        catalign("train", *usual, "--output", run)
    monkeypatch.undo()
    last, before = checkpoints(run / "checkpoints")
    assert (last.name, before.name) == ("checkpoint-4", "checkpoint-2")
    weights = last / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert not is_whole(last) and newest_whole(run / "checkpoints") == before
    ended = catalign("train", "--resume", "--output", run)
    assert ended.code == 0 and "torn" in ended.err and "from step 2" in ended.err
    assert_same(run, runs.whole())


def test_killed_before_the_first_checkpoint(
    usual: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(tmp_path, monkeypatch, *usual, "--checkpoint-steps", 500)
    assert_same(runs.killed(3), runs.whole())


def test_torn_checkpoints_that_were_passed_over_go(tmp_path: Path) -> None:
    for step in (16, 14):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "partial" / "checkpoint-8").mkdir(parents=True)
    publish(tmp_path / "partial" / "checkpoint-8", tmp_path, best_step=None)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-8"]


@pytest.mark.parametrize("damage", ["no seal", "no file", "not JSON"])
def test_what_is_not_whole(tmp_path: Path, damage: str) -> None:
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "file").write_text("content")
    (checkpoint / SEAL).write_text("{" if damage == "not JSON" else '{"file": "0"}')
    (checkpoint / ("file" if damage == "no file" else SEAL)).unlink() if damage != "not JSON" else None
    assert not is_whole(checkpoint) and newest_whole(tmp_path) is None


def test_the_best_and_the_newest_stay(usual: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(tmp_path, monkeypatch, *usual, "--learning-rate", 1e-9)  # the first epoch stays the best
    runs._kill_at(3 * STEPS - 1)
    with pytest.raises(Killed):
        catalign("train", *runs.options, "--output", tmp_path / "run")
    kept = [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")]
    assert kept == ["checkpoint-16", "checkpoint-14", "checkpoint-6"]


def test_refusals(usual: list[object], toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    assert "no run to go on with" in mistake("train", "--resume", "--output", run)
    assert "has finished" in mistake("train", "--resume", "--output", toy_run)
    assert "already exists" in mistake("train", *usual, "--output", toy_run)
    runs = Runs(tmp_path, monkeypatch, *usual)
    runs._kill_at(3)
    with pytest.raises(Killed):
        catalign("train", *usual, "--output", run)
    monkeypatch.undo()
    assert "--resume" in mistake("train", *usual, "--output", run)
    assert "another epochs" in mistake("train", *usual, "--epochs", 7, "--resume", "--output", run)
    assert "either" in mistake("train", *usual, "--resume", "--overwrite", "--output", run)
    assert "--resume" in mistake("recommend", run, "--history", "i001")
    works("train", *usual, "--resume", "--output", run)  # the same options may be repeated


def test_a_changed_dataset_is_refused(
    usual: list[object], toy_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = tmp_path / "ds"
    shutil.copytree(toy_dataset, dataset)
    options = ["--dataset", dataset, *usual[2:]]
    runs = Runs(tmp_path, monkeypatch, *options)
    runs._kill_at(3)
    with pytest.raises(Killed):
        catalign("train", *options, "--output", tmp_path / "run")
    monkeypatch.undo()
    card = json.loads((dataset / "dataset.json").read_text())
    (dataset / "dataset.json").write_text(json.dumps({**card, "users": card["users"] + 1}))
    assert "has changed" in mistake("train", "--resume", "--output", tmp_path / "run")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_signals(usual: list[object], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real process: SIGTERM ends it at a checkpoint with a line that says how to go on, SIGKILL at once."""
    run = tmp_path / "run"
    options = [*usual, "--epochs", 12]
    program = [sys.executable, "-c", "from catalign.cli.main import main; main()"]
    process = subprocess.Popen(
        [*program, "train", *map(str, options), "--output", str(run)], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not checkpoints(run / "checkpoints") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.Signals[name])
    _, told = process.communicate(timeout=120)
    if name == "SIGTERM":
        assert process.returncode == 143 and "catalign train --resume --output" in told
    else:
        assert process.returncode == -signal.SIGKILL
    works("train", "--resume", "--output", run)
    assert_same(run, Runs(tmp_path, monkeypatch, *options).whole())

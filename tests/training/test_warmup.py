"""A warm-up that was killed goes on by the same command, to the same weights."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from catalign.training.callbacks import LogFile
from toy import catalign, mistake, works


class Killed(BaseException):
    """What no code expects, as if the process had been killed."""


def init(dataset: Path, output: Path, *options: object) -> list[object]:
    """An epoch is one step."""
    usual = ["--preset", "tiny", "--titles-only", "--epochs", 3]
    return ["model", "init", "--dataset", dataset, "--output", output, *usual, *options]


def kill_at(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    log = LogFile.on_log

    def on_log(self: LogFile, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        log(self, args, state, control, **kwargs)
        if state.epoch > epoch:
            raise Killed

    monkeypatch.setattr(LogFile, "on_log", on_log)


def killed(monkeypatch: pytest.MonkeyPatch, epoch: int, *command: object) -> None:
    kill_at(monkeypatch, epoch)
    with pytest.raises(Killed):
        catalign(*command)
    monkeypatch.undo()


def assert_same(model: Path, other: Path) -> None:
    assert sorted(path.name for path in model.iterdir()) == sorted(path.name for path in other.iterdir())
    weights, expected = load_file(model / "model.safetensors"), load_file(other / "model.safetensors")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_killed_and_gone_on_with_is_uninterrupted(
    toy_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works(*init(toy_dataset, tmp_path / "whole"))
    output, work = tmp_path / "lm", tmp_path / ".lm.warming-up"
    for epoch in (0, 1, 2):
        killed(monkeypatch, epoch, *init(toy_dataset, output))
        assert not output.exists() and len(list(work.glob("checkpoints/checkpoint-*"))) == epoch
    works(*init(toy_dataset, output))
    assert not work.exists()
    assert_same(output, tmp_path / "whole")
    assert "already exists" in mistake(*init(toy_dataset, output))


def test_another_warm_up_is_not_gone_on_with(
    toy_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "lm"
    killed(monkeypatch, 1, *init(toy_dataset, output))
    assert "interrupted warm-up with another seed" in mistake(*init(toy_dataset, output, "--seed", 1))
    works(*init(toy_dataset, output, "--seed", 1, "--epochs", 1, "--overwrite"))
    works(*init(toy_dataset, tmp_path / "whole", "--seed", 1, "--epochs", 1))
    assert_same(output, tmp_path / "whole")


def test_what_is_there_stays_until_the_new_one_is_whole(
    toy_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "lm"
    works(*init(toy_dataset, output, "--epochs", 0))
    before = (output / "model.safetensors").read_bytes()
    killed(monkeypatch, 1, *init(toy_dataset, output, "--overwrite"))
    assert (output / "model.safetensors").read_bytes() == before
    works(*init(toy_dataset, output, "--overwrite"))
    assert json.loads((output / "warmup.json").read_text())["warmup"]["epochs_run"] == 3


def test_sigterm(toy_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogFile.on_log

    def on_log(self: LogFile, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        log(self, args, state, control, **kwargs)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(LogFile, "on_log", on_log)
    ended = catalign(*init(toy_dataset, tmp_path / "lm"))
    monkeypatch.undo()
    assert ended.code == 143 and "the same command" in ended.err
    assert "going on from step" in catalign(*init(toy_dataset, tmp_path / "lm")).err

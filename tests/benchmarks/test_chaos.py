"""A few kills, and that a difference would be noticed."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.chaos_stages import make_stages, needed, training_differs
from safetensors.torch import load_file, save_file

from benchmarks import chaos


@pytest.mark.slow
def test_a_few_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    stages = ["--stages", "warm-up", "sft", "evaluation"]
    options = ["chaos", "--kills", "6", "--seconds", "300", "--work", str(tmp_path), "--json", *stages]
    monkeypatch.setattr(sys, "argv", options)
    with pytest.raises(SystemExit) as ended:
        chaos.main()
    outcomes = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0, outcomes
    assert [each["stage"] for each in outcomes] == stages[1:]
    assert sum(sum(each["killed"].values()) for each in outcomes) > 0
    assert not any(each["differences"] for each in outcomes)


def test_stages_name_what_they_start_from(tmp_path: Path) -> None:
    stages = make_stages(tmp_path, tmp_path)
    names = [stage.name for stage in stages]
    assert sum(stage.share for stage in stages) == pytest.approx(1)
    for stage in stages:
        earlier = names[: names.index(stage.name)]
        assert set(stage.needs) <= set(earlier)
        typed = " ".join(stage.command(tmp_path / "out"))
        assert all((f"{tmp_path}/{name} " in f"{typed} ") == (name in stage.needs) for name in names)
    assert [stage.name for stage in needed(stages, ["soft"])] == ["warm-up", "sft", "soft"]


def test_what_differs_is_told(toy_run: Path, tmp_path: Path) -> None:
    assert training_differs(toy_run, toy_run) == []
    other = tmp_path / "run"
    shutil.copytree(toy_run, other)
    weights = load_file(other / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + torch.tensor(1e-4)}, other / "model.safetensors")
    (other / "log.jsonl").write_text((toy_run / "log.jsonl").read_text() * 2)
    (other / ".recipe.yaml.partial-1").write_text("")
    assert training_differs(other, toy_run) == [
        "weights in model.safetensors", "steps in the log", "left behind: .recipe.yaml.partial-1",
    ]  # fmt: skip

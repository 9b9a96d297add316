"""Each benchmark runs on generated data, in small, and its two sides agree."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("search", "--users 3 --exhaustive 3"),
        ("search", "--users 3 --exhaustive 3 --score full --template plain"),
        ("training_step", "--windows 8"),
        ("distillation", "--prompts 8"),
        ("distillation", "--prompts 4 --drawn --template plain"),
        ("preference_step", "--examples 2"),
        ("soft_step", "--windows 4"),
        ("ranking", "--users 2 --candidates 4"),
        ("ranking", "--users 2 --candidates 4 --score valid"),
        ("catalogue_size", "--users 2 --large 2000 --small 200"),
    ],
)
def test_both_sides_agree(
    name: str, options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(name, options, monkeypatch, capsys)
    assert result["same"] is True
    assert result["ratio"] > 0
    assert len(result["runs"]["published"]) == len(result["runs"]["ours"]) == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("preference_step", "--examples 2 --negatives 15 --score valid --template plain --batching shuffled"),
        ("soft_step", "--windows 4 --objective msl --batching shuffled"),
    ],
)
def test_both_sides_agree_under_other_options(
    name: str, options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Memory, which takes a process for each side, is left to the test above."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(importlib.import_module(f"benchmarks.{name}"), "peak_growth", lambda *_: 1)
    assert run(name, options, monkeypatch, capsys)["same"] is True


def test_row_lengths(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    result = run("rows", "--windows 8 --lengths 256 1024", monkeypatch, capsys)
    assert result["cpu_seconds"].keys() == result["relative_work"].keys() == {"256", "1024"}
    assert min(result["relative_work"].values()) == 1
    assert 0 < sum(result["profile"].values()) <= 1


def run(name: str, options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What a benchmark prints."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--json", "--pairs", "1", *options.split()])
    importlib.import_module(f"benchmarks.{name}").main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result

"""Each benchmark runs on generated data, in small, and its two sides agree."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("search", "--users 3 --exhaustive 3"),
        ("search", "--users 3 --exhaustive 3 --score full --template plain"),
        ("training_step", "--windows 8"),
        ("ranking", "--users 2 --candidates 4"),
        ("ranking", "--users 2 --candidates 4 --score valid"),
        ("catalogue_size", "--users 2 --large 2000 --small 200"),
    ],
)
def test_both_sides_agree(
    name: str, options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--json", "--pairs", "1", *options.split()])
    importlib.import_module(f"benchmarks.{name}").main()
    result = json.loads(capsys.readouterr().out)
    assert result["same"] is True
    assert result["ratio"] > 0
    assert len(result["runs"]["published"]) == len(result["runs"]["ours"]) == 1

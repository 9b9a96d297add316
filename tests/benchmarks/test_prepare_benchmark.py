"""The benchmark of preparing, in small: both kinds of tables hold the same log, and nothing is left behind."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_both_kinds_and_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    benchmark = importlib.import_module("benchmarks.prepare")
    monkeypatch.setattr(benchmark, "in_process", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr(benchmark, "CHUNK", 1500)
    options = ["--rows", "4000", "2000", "--kind", "parquet", "csv", "--json"]
    monkeypatch.setattr(sys, "argv", ["prepare", "--work", str(tmp_path), *options])
    benchmark.main()
    result = json.loads(capsys.readouterr().out)
    small, large, small_csv, large_csv = result["runs"]
    assert (small["rows"], large["rows"]) == (2000, 4000)
    assert small["kept"] == small_csv["kept"] and large["windows"] == large_csv["windows"]
    assert 0 < large["kept"]["interactions"] < 4000
    assert "reading the interactions" in large["phases"] and "writing" in large["phases"]
    assert [grown["rows"] for grown in result["growth"]] == [2.0, 2.0]
    assert not list(tmp_path.iterdir())

"""The benchmark of PostgreSQL, in small: the dataset of the queries is that of the files."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from postgres_server import find_programs

pytest.importorskip("adbc_driver_postgresql", reason="the extra sql is not installed")
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.skipif(find_programs() is None, reason="PostgreSQL is not installed (no initdb)")
def test_interactions_through_postgresql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(sys, "argv", ["sql", "--work", str(tmp_path), "--rows", "5000", "--json"])
    importlib.import_module("benchmarks.sql").main()
    result = json.loads(capsys.readouterr().out)
    assert result["same"] is True
    assert result["rows"] == 5000 and 0 < result["prepared"]["kept"] <= 5000
    assert result["read"]["rows_per_second"] > 0 and result["prepared"]["peak_gigabytes"] > 0
    assert not list(tmp_path.iterdir())

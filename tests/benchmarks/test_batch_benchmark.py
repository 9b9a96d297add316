"""What batches cost, in small."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_sizes_give_a_start_and_a_rate(
    toy_run: Path, toy_dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import batch

    places = ["--run", str(toy_run), "--dataset", str(toy_dataset)]
    monkeypatch.setattr(sys, "argv", ["batch", *places, "--people", "40", "--part-rows", "8", "--json"])
    batch.main()
    result = json.loads(capsys.readouterr().out)
    few, many = result["engines"]["local"]["runs"]
    assert result["same"] is True and (few["people"], many["people"]) == (10, 40)
    assert few["processor"] > 0 and many["clock"] > 0

import importlib
import json
import sys
from pathlib import Path

import pytest

from stub_worker import environments_with

ROOT = Path(__file__).parents[2]
ANSWER = "answer(pl.read_parquet(folder / 'train.parquet')['item'].unique().sort().to_list()[:20])\n"


def test_what_is_missing_is_run_and_both_tables_are_printed(
    toy_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    module = importlib.import_module("benchmarks.baselines")
    monkeypatch.setenv("CATALIGN_BASELINES", str(environments_with(tmp_path / "envs", ANSWER)))
    call = ["baselines", str(toy_dataset), "--output", str(tmp_path / "runs"), "--methods", "ease", "sasrec"]
    monkeypatch.setattr(sys, "argv", [*call, "--print", "--json"])
    module.main()
    assert json.loads(capsys.readouterr().out) == {"rows": [], "runs": {}}, "nothing was run"
    monkeypatch.setattr(sys, "argv", [*call, "--json"])
    module.main()
    found = json.loads(capsys.readouterr().out)
    rows = ["popularity", "item-kNN", "item-kNN, ordered", "ease (rectools)", "sasrec (rectools)"]
    assert [row["method"] for row in found["rows"]] == rows
    assert found["runs"]["ease"]["settings"]["trials"] == 4
    (tmp_path / "envs" / "rectools" / "stub.py").write_text("raise SystemExit('not again')")
    monkeypatch.setattr(sys, "argv", call)
    module.main()
    said = capsys.readouterr().out
    valid = found["runs"]["sasrec"]["valid"]["ndcg@10"]
    assert "| sasrec (rectools) |" in said and f"| sasrec | 1 | 0 | {valid:.4f} | – | a 1 |" in said

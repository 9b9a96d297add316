"""The whole path in one command, on little."""

import json
import shutil
from pathlib import Path

import pytest

from catalign import quickstart
from catalign.data.dataset import load_dataset
from catalign.recommender import Recommender
from toy import catalign, mistake, works, write_tables

LITTLE = ("--epochs", 1, "--windows", 20)


def test_without_data_it_makes_a_store_and_shows_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "STORE_USERS", 80)
    monkeypatch.setattr(quickstart, "STORE_ITEMS", 60)
    said = works("quickstart", "--output", tmp_path / "demo", *LITTLE)
    assert all(row in said for row in ("popularity", "item-kNN", "lml", "msl", "NDCG@10"))
    assert said.count("history:") == 3 and said.count("  1. ") == 3 and said.count("  3. ") == 3
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert names == {"quickstart.json", "store", "dataset", "model", "lml", "msl"}
    for run in ("lml", "msl"):
        assert json.loads((tmp_path / "demo" / run / "metrics.json").read_text())["n"] == 20
    titles = set(load_dataset(tmp_path / "demo" / "dataset").items["title"])
    shown = [
        line.strip().split(". ", 1)[1] for line in said.splitlines() if line.startswith(("  1. ", "  2. ", "  3. "))
    ]
    assert {title.removesuffix("  <- what came next") for title in shown} <= titles, "every recommendation is an item"
    again = ("quickstart", "--output", tmp_path / "demo")
    assert "demo: already exists; choose another --output or pass --overwrite" in mistake(*again)
    works(*again, "--overwrite", *LITTLE)
    assert Recommender.load(tmp_path / "demo" / "msl").recommend([next(iter(titles))], k=2)


def test_it_runs_on_a_dataset_folder(tmp_path: Path, toy_dataset: Path) -> None:
    works("quickstart", "--output", tmp_path / "demo", "--data", toy_dataset, *LITTLE)
    assert not (tmp_path / "demo" / "dataset").exists(), "it was there already"
    assert Recommender.load(tmp_path / "demo" / "msl").run.recipe.dataset == toy_dataset.resolve()


def test_it_runs_on_two_tables_under_their_usual_names(tmp_path: Path) -> None:
    write_tables(tmp_path)
    log = (tmp_path / "log.csv").read_text().replace("user,item,time", "user_id,item_id,timestamp")
    (tmp_path / "interactions.csv").write_text(log)
    (tmp_path / "items.csv").write_text((tmp_path / "items.csv").read_text().replace("item,title", "item_id,title"))
    said = works("quickstart", "--output", tmp_path / "demo", "--data", tmp_path, *LITTLE)
    assert "popularity" in said


def test_mistakes_are_told_before_anything_is_made(tmp_path: Path) -> None:
    out = ("--output", tmp_path / "demo")
    assert "no such folder" in mistake("quickstart", *out, "--data", tmp_path / "none")
    assert "is in no known layout; pass --interactions" in mistake("quickstart", *out, "--data", tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    said = mistake("quickstart", "--output", tmp_path / "mine", "--overwrite")
    assert "mine: is not of a quickstart, so it is not replaced" in said
    (tmp_path / "file").write_text("")
    assert "file" in mistake("quickstart", "--output", tmp_path / "file")


def test_an_empty_split_is_told_before_training(tmp_path: Path, toy_dataset: Path) -> None:
    shutil.copytree(toy_dataset, tmp_path / "ds")
    card = json.loads((tmp_path / "ds" / "dataset.json").read_text())
    card["splits"]["test"]["windows"] = 0
    (tmp_path / "ds" / "dataset.json").write_text(json.dumps(card))
    ended = catalign("quickstart", "--output", tmp_path / "demo", "--data", tmp_path / "ds")
    assert ended.code == 2 and "the split test has no windows" in ended.err.splitlines()[-1]
    assert not (tmp_path / "demo" / "model").exists()

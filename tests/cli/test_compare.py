"""`catalign compare` as a user types it: on what evaluate wrote, in every protocol, into files, and its mistakes."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from catalign.data.dataset import load_dataset
from made_runs import lists_with_target_at, made_run
from toy import catalign, evaluated, mistake, works


def compared(*arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(works("compare", *arguments, "--format", "json"))
    return found


@pytest.fixture
def runs(toy_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the runs `good` and `poor`."""
    data = load_dataset(toy_dataset)
    for name, places, epochs in (("good", [1, 2, 1, 0], 3), ("poor", [4, 0, 0, 7], 5)):
        made_run(tmp_path / name, data, lists_with_target_at(data, places), recipe={"epochs": epochs})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_run(toy_run: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, so that evaluations may be written into it."""
    return Path(shutil.copytree(toy_run, tmp_path / "msl", ignore=shutil.ignore_patterns("evaluations", "checkpoints")))


def test_the_full_catalogue(own_run: Path, toy_dataset: Path) -> None:
    metrics = evaluated(own_run, "--beams", 10)
    found = compared(own_run, "--floor", "--metric", "ndcg@10", "--embeddings", own_run, "--by", "history-length")
    assert [row["label"] for row in found["rows"]] == ["popularity", "item-kNN", "item-kNN, ordered", "msl"]
    row = found["rows"][-1]
    assert row["metrics"]["ndcg@10"]["mean"] == pytest.approx(metrics["ndcg@10"])
    assert [row["metrics"]["ndcg@10"][end] for end in ("low", "high")] == pytest.approx(metrics["ci95"]["ndcg@10"])
    assert row["chosen_on"] == "valid" and row["settings"]["beams"] == 10 and row["calibration"]["error"] < 0.5
    assert all(0 < of_row["lists"]["diversity"] < 2 for of_row in found["rows"])
    assert sum(part["windows"] for part in found["slice_tables"][0]["slices"]) == metrics["n"]


def test_one_of_n(own_run: Path) -> None:
    metrics = evaluated(own_run, "--protocol", "candidates", "--candidates", 5, "--windows", 30)
    found = compared(own_run, "--floor", "--metric", "hr@1", "--metric", "ndcg@5", "--metric", "valid_ratio")
    assert (found["protocol"], found["windows"]) == ("1 of 5", 30)
    for name in found["metrics"]:
        assert found["rows"][-1]["metrics"][name]["mean"] == pytest.approx(metrics[name]), name
    rows = json.loads((own_run / "metrics-candidates.json").read_text())["floor"]
    for row in found["rows"][:-1]:
        assert row["metrics"]["ndcg@5"]["mean"] == pytest.approx(rows[row["label"]]["ndcg@5"])
    assert "sampled" in [caution["kind"] for caution in found["cautions"]]
    assert "the protocol candidates has no accuracy" in mistake("compare", own_run, "--metric", "accuracy")


def test_pairs(own_run: Path) -> None:
    metrics = evaluated(own_run, "--protocol", "pairs")
    found = compared(own_run, "--floor", "--by", "warm")
    row = found["rows"][-1]
    assert row["metrics"]["accuracy"]["mean"] == pytest.approx(metrics["accuracy"])
    assert row["auc"] == pytest.approx([metrics["auc"], *metrics["ci95"]["auc"]])
    rows = json.loads((own_run / "metrics-pairs.json").read_text())["floor"]
    for of_floor in found["rows"][:-1]:
        assert of_floor["metrics"]["accuracy"]["mean"] == pytest.approx(rows[of_floor["label"]]["accuracy"])
    assert "pooled AUC" in works("compare", own_run)
    assert "the protocol pairs has no ndcg@10; choose accuracy" in mistake("compare", own_run, "--metric", "ndcg@10")


def test_other_draws_of_candidates_are_not_compared(own_run: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        options = ["--candidates", 4, "--windows", 20, "--seed", seed, "--output", tmp_path / f"p{seed}"]
        works("evaluate", own_run, "--protocol", "candidates", *options)
    said = mistake("compare", tmp_path / "p0", tmp_path / "p1", "--dataset", own_run)
    assert "p1: was evaluated with seed 1" in said and "with seed 0" in said


def test_evaluate_tells_what_a_reader_has_to_know(own_run: Path) -> None:
    quiet = catalign("evaluate", own_run, "--windows", 10, "--beams", 10)
    assert quiet.code == 0 and "Caution" not in quiet.err
    chosen = catalign("evaluate", own_run, "--windows", 10, "--beams", 10, "--split", "valid")
    assert "Caution: the epoch of this run was chosen on the split valid" in " ".join(chosen.err.split())
    sampled = catalign("evaluate", own_run, "--windows", 10, "--protocol", "pairs")
    assert "Caution: the target was ranked among drawn candidates" in " ".join(sampled.err.split())


@pytest.mark.parametrize("form", ["terminal", "markdown", "csv", "json", "latex"])
def test_a_file_holds_what_the_terminal_would_show(runs: Path, form: str) -> None:
    said = works("compare", "good", "poor", "--format", form)
    assert works("compare", "good", "poor", "--format", form, "--output", "out/table") == ""
    written = (runs / "out" / "table").read_text(encoding="utf-8")
    assert "good" in written and "poor" in written
    if form != "terminal":  # which is as wide as the terminal is
        assert written == said


def test_cautions_do_not_get_into_a_csv(runs: Path) -> None:
    ended = catalign("compare", "good", "poor", "--format", "csv")
    assert "Caution" not in ended.out and "every row has one seed" in " ".join(ended.err.split())
    assert len(pl.read_csv(ended.out.encode())) == 2


def test_the_row_to_compare_with_is_named_or_a_folder(runs: Path) -> None:
    for name in ("poor", "./poor", runs / "poor" / "evaluations" / "test-all"):
        assert compared("good", "poor", "--baseline", name)["reference"] == "poor"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["good", "none"], "none: no such folder; give a run folder or a folder of predictions"),
        (["good", "good"], "good/evaluations/test-all: is given twice"),
        (["good", "--metric", "ndgc@10"], "no such metric: ndgc@10; choose from hr, ndcg, mrr, recall, map"),
        (["good", "--by", "colour"], "--by: no such slices: colour; choose from warm, history-length, popularity"),
        (["good", "--baseline", "best"], "--baseline: no such row: best; choose from good"),
        (["good", "--dataset", "poor"], "poor: is not a dataset folder"),
        (["good", "--evaluation", "valid-all"], "good: has no evaluation valid-all; choose from test-all"),
        (["good", "--output", "poor/recipe.yaml/table"], "a file is in the way"),
    ],
)
def test_mistakes_are_one_line(runs: Path, arguments: list[object], words: str) -> None:
    before = sorted(runs.rglob("*"))
    assert words in mistake("compare", *arguments)
    assert sorted(runs.rglob("*")) == before


def test_embeddings_of_another_catalogue(runs: Path, toy_run: Path, tmp_path: Path, toy_dataset: Path) -> None:
    fewer = tmp_path / "ds"
    shutil.copytree(toy_dataset, fewer)
    items = pl.read_parquet(fewer / "items.parquet").with_columns(title=pl.col("title") + "!")
    items.write_parquet(fewer / "items.parquet")
    said = mistake("compare", "good", "--dataset", fewer, "--embeddings", toy_run)
    assert "has another catalogue than the runs that are compared" in said

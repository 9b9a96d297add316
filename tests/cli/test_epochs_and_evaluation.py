"""Which epoch is kept, what an evaluation writes, and that it goes on where it was interrupted."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from safetensors.numpy import load_file

from catalign.evaluation import evaluate
from catalign.evaluation.predictions import PredictionWriter, read_predictions
from catalign.training import train
from toy import catalign, evaluated, log_lines, series, works

METRICS = {f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in (1, 5, 10, 20)}


def train_for(epochs: int, dataset: Path, model: Path, run: Path, *options: object) -> Path:
    recipe = run.with_suffix(".yaml")
    recipe.write_text("{schedule: constant, warmup_steps: 0, batch_size: 64, precision: float32}")
    places = ["--dataset", dataset, "--model", model, "--output", run]
    works("train", recipe, *places, "--epochs", epochs, *options)
    return run


def summary(run: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "provenance.json").read_text())["training"]
    return found


def test_the_best_epoch_is_kept_and_patience_stops(
    toy_dataset: Path, warm_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.1, 0.5, 0.3, 0.4, 0.9])
    with monkeypatch.context() as patch:
        patch.setattr(train.Validator, "__call__", lambda _: {"ndcg@10": next(scores), "hr@10": 0.0})
        stopped = train_for(9, toy_dataset, warm_model, tmp_path / "stopped", "--patience", 2)
    assert next(scores) == 0.9, "two epochs without a gain end the training"
    assert summary(stopped)["best_epoch"] == 2 and summary(stopped)["epochs_run"] == 4
    assert summary(stopped)["valid_ndcg@10"] == 0.5
    two = load_file(train_for(2, toy_dataset, warm_model, tmp_path / "two") / "model.safetensors")
    four = load_file(train_for(4, toy_dataset, warm_model, tmp_path / "four") / "model.safetensors")
    kept = load_file(stopped / "model.safetensors")
    assert all((kept[name] == two[name]).all() for name in two)
    assert not all((kept[name] == four[name]).all() for name in four)


def test_the_epoch_is_chosen_by_validation_windows(toy_dataset: Path, warm_model: Path, tmp_path: Path) -> None:
    run = train_for(3, toy_dataset, warm_model, tmp_path / "run")
    best = max(series(run, "eval_ndcg@10"))
    assert summary(run)["valid_ndcg@10"] == best and summary(run)["chosen_on"] == "valid"
    assert evaluated(run, "--split", "valid", "--beams", 10)["ndcg@10"] == pytest.approx(best)
    assert evaluated(run, "--split", "test", "--beams", 10)["ndcg@10"] != pytest.approx(best)


def test_training_never_reads_the_test_windows(toy_dataset: Path, warm_model: Path, tmp_path: Path) -> None:
    with_test = train_for(1, toy_dataset, warm_model, tmp_path / "with")
    shutil.copytree(toy_dataset, tmp_path / "ds")
    (tmp_path / "ds" / "windows" / "test.parquet").unlink()
    interactions = tmp_path / "ds" / "interactions.parquet"
    pl.read_parquet(interactions).filter(pl.col("split") != "test").write_parquet(interactions)
    without = train_for(1, tmp_path / "ds", warm_model, tmp_path / "without")
    assert series(with_test) == series(without)
    assert series(with_test, "eval_ndcg@10") == series(without, "eval_ndcg@10")


def test_the_warm_up_reads_training_windows_alone(toy_dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_dataset, tmp_path / "ds")
    for split in ("valid", "test"):
        (tmp_path / "ds" / "windows" / f"{split}.parquet").unlink()
    for dataset in (toy_dataset, tmp_path / "ds"):
        works("model", "init", "--dataset", dataset, "--output", tmp_path / dataset.parent.name, "--preset", "tiny")
    one, two = ((tmp_path / dataset.parent.name / "model.safetensors") for dataset in (toy_dataset, tmp_path / "ds"))
    assert one.read_bytes() == two.read_bytes()


def test_a_run_folder_holds_what_the_contract_says(toy_run: Path) -> None:
    names = {path.name for path in toy_run.iterdir()}
    expected = {"config.json", "model.safetensors", "tokenizer.json", "catalogue", "recipe.yaml", "provenance.json"}
    assert names >= expected | {"log.jsonl", "tensorboard"}
    assert list((toy_run / "tensorboard").glob("events.*"))
    assert all("step" in line and "seconds" in line for line in log_lines(toy_run))
    provenance = json.loads((toy_run / "provenance.json").read_text())
    assert provenance["command"].startswith("catalign train --dataset")
    assert {"torch", "transformers", "catalign"} <= provenance["versions"].keys()
    assert provenance["seed"] == 0 and provenance["dataset"]["items"] == 24


def test_metrics_hold_what_the_contract_says(toy_run: Path, tmp_path: Path) -> None:
    rows = json.loads(works("evaluate", toy_run, "--json", "--windows", 30, "--seed", 5, "--output", tmp_path / "p"))
    assert [row["method"] for row in rows] == ["popularity", "item-kNN", "item-kNN, ordered", "msl"]
    written = json.loads((toy_run / "metrics.json").read_text())
    assert written["floor"].keys() == {"popularity", "item-kNN", "item-kNN, ordered"}
    for metrics in (*rows, written):
        assert metrics.keys() >= METRICS | {"warm", "cold", "n", "ci95"}
        assert metrics["n"] == metrics["warm"]["n"] == 30 and metrics["cold"]["n"] == 0
        assert metrics["warm"].keys() >= METRICS and metrics["ci95"].keys() >= METRICS
        low, high = metrics["ci95"]["ndcg@10"]
        assert low <= metrics["ndcg@10"] <= high
    produced = written["produced_by"]
    assert produced["split"] == "test" and produced["beams"] == 20 and produced["score"] == "valid"
    assert produced["windows"] == 30 and produced["seed"] == 5 and "chosen on valid" in produced["checkpoint"]


def test_the_table_shows_the_floor_beside_the_model(toy_run: Path, tmp_path: Path) -> None:
    said = works("evaluate", toy_run, "--output", tmp_path / "p")
    assert all(word in said for word in ("popularity", "item-kNN", "msl", "NDCG@10", "Full catalogue ranked"))


def test_an_interrupted_evaluation_goes_on(toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "CHUNK", 10)
    write = PredictionWriter.write
    parts = []

    def interrupted(self: PredictionWriter, *arguments: object) -> None:
        if len(parts) == 2:
            raise KeyboardInterrupt
        parts.append(len(self.left))
        write(self, *arguments)  # type: ignore[arg-type]

    resumed = tmp_path / "resumed"
    with monkeypatch.context() as patch:
        patch.setattr(PredictionWriter, "write", interrupted)
        ended = catalign("evaluate", toy_run, "--output", resumed)
    assert ended.code == 130
    assert len(list(resumed.glob("part-*.parquet"))) == 2
    before = {path.name: path.read_bytes() for path in resumed.glob("part-*.parquet")}
    works("evaluate", toy_run, "--output", resumed)
    assert all((resumed / name).read_bytes() == content for name, content in before.items())
    works("evaluate", toy_run, "--output", tmp_path / "whole")
    one, other = read_predictions(resumed), read_predictions(tmp_path / "whole")
    assert one.select("window", "target", "ranked").equals(other.select("window", "target", "ranked"))
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (resumed, tmp_path / "whole")]
    assert metrics[0] == metrics[1]


def test_a_run_trained_again_is_evaluated_again(toy_dataset: Path, warm_model: Path, tmp_path: Path) -> None:
    run = train_for(1, toy_dataset, warm_model, tmp_path / "run")
    works("evaluate", run, "--output", tmp_path / "p")
    provenance = json.loads((run / "provenance.json").read_text())
    provenance["started"] = "2031-01-01T00:00:00+00:00"  # as if trained again under the same name
    (run / "provenance.json").write_text(json.dumps(provenance))
    ended = catalign("evaluate", run, "--output", tmp_path / "p")
    assert ended.code == 2 and "holds predictions of other settings (checkpoint" in ended.err


def test_exclusion_leaves_the_history_out(toy_run: Path, toy_dataset: Path, tmp_path: Path) -> None:
    works("evaluate", toy_run, "--exclude-history", "--output", tmp_path / "new")
    windows = pl.read_parquet(toy_dataset / "windows" / "test.parquet")
    predictions = read_predictions(tmp_path / "new")
    both = windows.select("history").hstack(predictions.select("ranked"))
    assert both.select(pl.col("history").list.set_intersection("ranked").list.len().sum()).item() == 0
    assert predictions["ranked"].list.len().min() > 10

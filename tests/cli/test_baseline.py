"""`catalign baseline` as a user types it, with a stand-in for the other environment, and its mistakes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from catalign.data.dataset import load_dataset
from catalign.evaluation.predictions import metrics_of_predictions
from stub_worker import environments_with
from toy import catalign, make_dataset, mistake, works, write_tables

ANSWER = "answer(pl.read_parquet(folder / 'train.parquet')['item'].unique().sort().to_list()[:20])\n"


@pytest.fixture
def place(tmp_path: Path, toy_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a dataset `ds` and environments `envs` whose worker answers the first twenty items."""
    (tmp_path / "ds").symlink_to(toy_dataset)
    environments_with(tmp_path / "envs", ANSWER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CATALIGN_BASELINES", str(tmp_path / "envs"))
    return tmp_path


CALL = ("baseline", "popularity", "--dataset", "ds", "--output", "run")


def test_a_run_holds_what_evaluate_would_write(place: Path) -> None:
    rows = json.loads(works(*CALL, "--trials", 3, "--seconds", 7, "--seed", 5, "--json"))
    assert [row["method"] for row in rows] == ["popularity", "item-kNN", "item-kNN, ordered", "popularity (rectools)"]
    data, predictions = load_dataset(place / "ds"), place / "run" / "evaluations" / "test-all"
    again = metrics_of_predictions(predictions, data.training_counts())
    written = json.loads((place / "run" / "metrics.json").read_text())
    assert {key: value for key, value in written.items() if key != "floor"} == again and "item-kNN" in written["floor"]
    assert again["n"] == len(data.windows("test")) and rows[-1]["ndcg@10"] == again["ndcg@10"]
    assert again["produced_by"]["method"] == "popularity" and again["produced_by"]["split"] == "test"
    provenance = json.loads((place / "run" / "provenance.json").read_text())
    settings = {"trials": 3, "seconds": 7, "seed": 5, "depth": 20, "exclude_history": False}
    assert provenance["settings"].items() >= settings.items()
    assert provenance["chosen"]["parameters"] == {"a": 1} and provenance["versions"]["stub"] == "1"
    assert provenance["valid"]["windows"] == len(data.windows("valid"))
    assert provenance["dataset"]["files"] == data.card.files
    assert not (place / "run" / "item_embeddings.parquet").exists()


def test_embeddings_are_named_by_item_id(place: Path) -> None:
    body = """
frame = pl.DataFrame({"item": [2, 0], "embedding": [[1.0, 2.0], [3.0, 4.0]]})
frame.write_parquet(folder / "embeddings.parquet")
"""
    environments_with(place / "others", ANSWER + body)
    works(*CALL, "--environment", "others")
    found = pl.read_parquet("run/item_embeddings.parquet")
    ids = load_dataset(place / "ds").items["item_id"].to_list()
    assert found.schema == {"item_id": pl.String, "embedding": pl.List(pl.Float32)}
    assert found.rows() == [(ids[2], [1.0, 2.0]), (ids[0], [3.0, 4.0])]


def test_options_reach_the_worker(place: Path) -> None:
    environments_with(place / "others", "print(json.dumps({'event': str(job)})); raise SystemExit(json.dumps(job))")
    options = ["--exclude-history", "--epochs", 2, "--patience", 1, "--split", "valid", "--environment", "others"]
    said = mistake(*CALL, *options)
    for part in ('"exclude_history": true', '"epochs": 2', '"patience": 1', '"method": "popularity"', '"trials": 6'):
        assert part in said


def test_it_can_be_compared_with_a_run(place: Path) -> None:
    works(*CALL)
    environments_with(place / "others", ANSWER.replace("sort()", "sort(descending=True)"))
    works(*CALL[:-1], "other", "--environment", "others")
    found = json.loads(works("compare", "run", "other", "--dataset", "ds", "--format", "json"))
    assert [(row["label"], row["chosen_on"]) for row in found["rows"]] == [("run", "valid"), ("other", "valid")]


def leaves_nothing(place: Path, *arguments: object) -> str:
    """Make a mistake and check that no run and nothing half-written is left."""
    said = mistake(*arguments)
    assert sorted(path.name for path in place.iterdir() if "log" not in path.suffix) == ["ds", "envs"]
    return said


def test_a_missing_environment_says_how_to_make_it(place: Path) -> None:
    said = leaves_nothing(place, "baseline", "gru4rec", "--dataset", "ds", "--output", "run")
    assert said.endswith("cornac: the environment of cornac is not there; make it with catalign baseline setup")


def test_a_worker_that_fails_leaves_its_log_and_nothing_else(place: Path) -> None:
    (place / "envs" / "rectools" / "stub.py").write_text("import sys; sys.exit('out of luck')")
    said = leaves_nothing(place, *CALL)
    assert said == "popularity: the worker ended with code 1 (out of luck); see run.worker.log"
    assert (place / "run.worker.log").read_text() == "out of luck\n"


def test_a_wrong_answer_leaves_nothing(place: Path) -> None:
    stub = place / "envs" / "rectools" / "stub.py"
    stub.write_text(stub.read_text().replace(ANSWER, "answer([1000])"))
    assert "names items outside the catalogue" in leaves_nothing(place, *CALL)


def test_a_run_that_is_there_is_kept_unless_overwritten(place: Path) -> None:
    works(*CALL)
    assert mistake(*CALL) == "run: already exists; choose another folder or pass --overwrite"
    works(*CALL, "--overwrite")


def test_no_dataset(place: Path) -> None:
    said = leaves_nothing(place, "baseline", "ease", "--dataset", "none", "--output", "run")
    assert said.startswith("none: is not a dataset folder")


def test_recent_popularity_needs_times(place: Path) -> None:
    folder = place / "envs"  # a place that is there before and after
    tables = write_tables(folder)
    tables = [option for option in tables if option not in ("--time", "time")]
    works("data", "prepare", *tables, "--split", "leave-one-out", "--output", folder / "timeless")
    said = leaves_nothing(place, "baseline", "recent-popularity", "--dataset", folder / "timeless", "--output", "run")
    assert "says no time of any training interaction, which recent-popularity needs" in said


def test_an_unknown_method_is_refused(place: Path) -> None:
    ended = catalign("baseline", "sasrek")
    assert ended.code == 2 and "sasrec" in ended.err


@pytest.mark.slow
def test_an_interrupt_ends_the_worker_and_leaves_nothing(place: Path) -> None:
    stub = place / "envs" / "rectools" / "stub.py"
    stub.write_text("import os, time; open('worker.pid.log', 'w').write(str(os.getpid())); time.sleep(60)")
    command = [sys.executable, "-c", "from catalign.cli.main import main; main()", *CALL]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        pid = place / "worker.pid.log"
        while not (pid.exists() and pid.read_text()) and running.poll() is None:
            os.sched_yield()
        running.send_signal(signal.SIGINT)  # to catalign alone: it has to end the worker itself
        running.communicate(timeout=60)
    assert running.returncode != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert sorted(path.name for path in place.iterdir() if path.suffix != ".log") == ["ds", "envs"]


def test_histories_are_as_long_as_the_windows(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path)
    longest = load_dataset(folder).windows("test")["history"].list.len().max()
    environments_with(tmp_path / "envs", "raise SystemExit(str(job['history']))")
    said = mistake(
        "baseline", "ease", "--dataset", folder, "--output", tmp_path / "r", "--environment", tmp_path / "envs"
    )
    assert f"code 1 ({longest})" in said and np.isfinite(longest)

"""The libraries themselves, where their environments were made: known answers on small worlds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from catalign.baselines.environment import environments_folder, interpreter
from catalign.baselines.job import Answers, read_answers, run_worker, write_job
from catalign.data.dataset import load_dataset
from catalign.errors import UserError
from catalign.evaluation.floor import floor_rankings
from toy import follower, works

pytestmark = [pytest.mark.baselines, pytest.mark.slow]
DEPTH = 5


def environment_of(library: str) -> Path:
    """The interpreter of a library; the test is skipped where there is none."""
    try:
        return interpreter(library, environments_folder())
    except UserError as error:
        pytest.skip(str(error))


def answers_of(folder: Path, dataset: Path, method: str, **changes: Any) -> Answers:
    """Run a method on a dataset, for its test windows."""
    library = "cornac" if method == "gru4rec" else "rectools"
    python, data = environment_of(library), load_dataset(dataset)
    settings = {"library": library, "method": method, "trials": 1, "seconds": None, "epochs": 1, "patience": 3,
                "seed": 0, "depth": DEPTH, "exclude_history": False, "history": 10}  # fmt: skip
    valid, asked = (data.windows(split).with_row_index("window") for split in ("valid", "test"))
    folder.mkdir()
    write_job(folder, {**settings, **changes}, data.interactions, valid, asked)
    list(run_worker(python, folder))
    return read_answers(folder, valid, asked, items=data.items.height, depth=DEPTH)


@pytest.fixture
def test_windows(toy_dataset: Path) -> pl.DataFrame:
    return load_dataset(toy_dataset).windows("test")


def test_popularity_is_that_of_the_floor(toy_dataset: Path, tmp_path: Path) -> None:
    data = load_dataset(toy_dataset)
    counts_I = data.training_counts()
    for exclude in (False, True):
        answers = answers_of(tmp_path / f"{exclude}", toy_dataset, "popularity", exclude_history=exclude)
        windows = data.windows("test")
        floor_WK = floor_rankings(data.windows("train"), counts_I, windows, depth=DEPTH, exclude_history=exclude)
        # Equal counts may stand in any order, so the counts are compared, which a wrong item would change.
        assert np.array_equal(counts_I[answers.ranked_WK], counts_I[floor_WK["popularity"]])
        assert np.array_equal(answers.scores_WK, counts_I[answers.ranked_WK])


def test_ease_is_its_closed_form(toy_dataset: Path, tmp_path: Path) -> None:
    answers = answers_of(tmp_path / "job", toy_dataset, "ease")
    data = load_dataset(toy_dataset)
    train = data.interactions.filter(pl.col("split") == "train")
    users = train["user_id"].rank("dense").to_numpy() - 1
    seen_UI = np.zeros((users.max() + 1, data.items.height))
    np.add.at(seen_UI, (users, train["item"].to_numpy()), 1)
    regularization = answers.search["trials"][0]["parameters"]["regularization"]
    inverse_II = np.linalg.inv(seen_UI.T @ seen_UI + regularization * np.eye(seen_UI.shape[1]))
    weight_II = -inverse_II / np.diag(inverse_II)  # Steck 2019, equation 8
    np.fill_diagonal(weight_II, 0)
    for row, history in enumerate(data.windows("test")["history"].to_list()):
        score_I = weight_II[history].sum(axis=0)
        assert np.allclose(answers.scores_WK[row], np.sort(score_I)[::-1][:DEPTH], atol=1e-4)
        assert np.allclose(score_I[answers.ranked_WK[row]], answers.scores_WK[row], atol=1e-4)


@pytest.mark.parametrize("method", ["sasrec", "esasrec", "hstu", "bert4rec"])
def test_transformers_learn_what_follows_what(
    toy_dataset: Path, tmp_path: Path, test_windows: pl.DataFrame, method: str
) -> None:
    epochs, share = (150, 0.5) if method == "bert4rec" else (60, 0.8)  # gaps are filled more slowly than followed
    answers = answers_of(tmp_path / "job", toy_dataset, method, epochs=epochs, patience=epochs)
    right_W = np.array([follower(history[-1]) for history in test_windows["history"].to_list()])
    assert (answers.ranked_WK[:, 0] == right_W).mean() > share, "one of 24 by chance"
    chosen = answers.search["trials"][0]
    assert chosen["by_epoch"][chosen["epoch"] - 1] == max(chosen["by_epoch"])
    assert answers.embeddings is not None
    trained = load_dataset(toy_dataset).training_counts() > 0
    assert sorted(answers.embeddings["item"]) == np.flatnonzero(trained).tolist()
    assert answers.embeddings["embedding"].list.len().unique().to_list() == [chosen["parameters"]["n_factors"]]


def test_gru4rec_learns_what_follows_what(toy_dataset: Path, tmp_path: Path, test_windows: pl.DataFrame) -> None:
    answers = answers_of(tmp_path / "job", toy_dataset, "gru4rec", epochs=20, trials=3)
    right_W = np.array([follower(history[-1]) for history in test_windows["history"].to_list()])
    assert (answers.ranked_WK[:, 0] == right_W).mean() > 0.8


@pytest.mark.parametrize("method", ["item-knn", "ials", "recent-popularity", "sasrec", "gru4rec"])
def test_histories_are_left_out_on_demand(
    toy_dataset: Path, tmp_path: Path, test_windows: pl.DataFrame, method: str
) -> None:
    answers = answers_of(tmp_path / "job", toy_dataset, method, exclude_history=True)
    for ranked, history in zip(answers.ranked_WK.tolist(), test_windows["history"].to_list(), strict=True):
        assert not set(ranked) & set(history)


def test_the_command(toy_dataset: Path, tmp_path: Path) -> None:
    environment_of("rectools")
    run = tmp_path / "run"
    rows = json.loads(works("baseline", "sasrec", "--dataset", toy_dataset, "--output", run, "--trials", 1,
                            "--epochs", 1, "--json"))  # fmt: skip
    assert rows[-1]["method"] == "sasrec (rectools)" and rows[-1]["n"] == len(load_dataset(toy_dataset).windows("test"))
    assert pl.read_parquet(run / "item_embeddings.parquet").columns == ["item_id", "embedding"]
    assert json.loads((run / "provenance.json").read_text())["versions"]["rectools"] == "0.19.0"

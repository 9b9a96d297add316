"""The worker of the baselines without any of their libraries: the search, the histories, the lists."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalign.baselines.methods import LIBRARIES, METHODS
from catalign.baselines.workers import worker
from catalign.evaluation import metrics

TRAIN = worker.Train(np.array([0, 0, 0, 1, 1]), np.array([3, 1, 3, 3, 1]), np.full(5, np.nan))
JOB = {"method": "m", "trials": 3, "seconds": 100.0, "epochs": 10, "patience": 2, "seed": 0, "depth": 4,
       "exclude_history": False}  # fmt: skip
WINDOWS = worker.Windows(np.array([5, 6]), np.array([0]), np.array([3]))  # window 6 has no known item


class Climber:
    """A model whose first item of every list is that of its epoch's entry in `course`: 1 is the right one."""

    def __init__(self, course: list[int], *, epochs: bool = True) -> None:
        self.course, self.epochs, self.epoch = course, epochs, 0

    def fit(self) -> None:
        self.epoch += 1

    def recommend(self, windows: worker.Windows, depth: int, exclude: bool) -> worker.Ranked:
        row_N = np.unique(windows.row_N)
        return row_N, np.zeros(len(row_N), int), np.full(len(row_N), self.course[self.epoch - 1]), np.ones(len(row_N))

    def state(self) -> Any:
        return self.epoch

    def restore(self, state: Any) -> None:
        self.epoch = state

    def embeddings(self) -> Any:
        return None


def searched(courses: dict[int, Climber], **changes: Any) -> tuple[Any, list[dict[str, Any]], list[dict[str, Any]]]:
    """Search over models by their number; the target of the window with a history is item 1."""
    said: list[dict[str, Any]] = []
    methods = SimpleNamespace(
        GRIDS={"m": {"number": list(courses)}},
        build=lambda method, parameters, train, job: courses[parameters["number"]],
    )
    best, trials = worker.search(
        methods, {**JOB, **changes}, TRAIN, WINDOWS, np.array([1, 9]), lambda **event: said.append(event)
    )
    return best, trials, said


def test_the_best_epoch_of_the_best_trial_is_kept() -> None:
    right = Climber([3, 3, 1, 3, 3, 3, 1])
    best, trials, said = searched({0: Climber([3] * 9), 1: right, 2: Climber([3] * 9)})
    assert best is right and right.epoch == 3, "the weights of the best epoch"
    tried = {trial["parameters"]["number"]: trial for trial in trials}
    assert tried[1]["epoch"] == 3 and tried[1]["ndcg@10"] == 0.5 and len(tried[1]["by_epoch"]) == 5, "patience 2"
    assert tried[0]["epoch"] == 1 and len(tried[0]["by_epoch"]) == 3
    assert said[-1]["best"] == 0.5 and said[0]["trials"] == 3


def test_a_tie_takes_the_earlier_epoch_and_trial() -> None:
    first = Climber([1] * 9)
    best, trials, _ = searched({0: first, 1: Climber([1] * 9)})
    assert best is first and first.epoch == 1 and trials[0]["epoch"] == 1


def test_a_method_without_epochs_is_fitted_once() -> None:
    _, trials, said = searched({0: Climber([3, 1], epochs=False)})
    assert len(said) == 1 and "epoch" not in trials[0]


def test_no_time_is_one_epoch_of_one_trial() -> None:
    _, trials, said = searched({0: Climber([3] * 9), 1: Climber([1] * 9)}, seconds=0.0)
    assert len(trials) == len(said) == 1


@given(st.integers(1, 30), st.integers(0, 5))
def test_trials_are_points_of_the_grid_the_usual_first(count: int, seed: int) -> None:
    grid = {"a": [1, 2, 3], "b": ["x", "y"]}
    drawn = worker.draw_trials(grid, count, seed)
    assert drawn[0] == {"a": 1, "b": "x"} and len(drawn) == min(count, 6)
    assert len({json.dumps(point) for point in drawn}) == len(drawn)
    assert drawn == worker.draw_trials(grid, count, seed)
    assert worker.draw_trials({}, count, seed) == [{}]


def test_histories_keep_their_order_and_lose_what_training_did_not_show(tmp_path: Path) -> None:
    rows = {"window": [7, 7, 7, 4, 9, 9], "item": [3, 8, 1, 8, 1, 3]}
    pl.DataFrame(rows).write_parquet(tmp_path / "w.parquet")
    windows = worker.read_windows(tmp_path / "w.parquet", np.array([9, 4, 7]), TRAIN)
    assert windows.row_N.tolist() == [0, 0, 2, 2] and windows.item_N.tolist() == [1, 3, 3, 1]


def test_popularity_stands_in_where_no_item_is_known() -> None:
    model = Climber([1])
    model.fit()
    ranked_WK, score_WK = worker.rank(model, WINDOWS, TRAIN, JOB)
    assert ranked_WK.tolist() == [[1, -1, -1, -1], [3, 1, -1, -1]] and score_WK[1].tolist() == [3, 2, 0, 0]


@given(st.integers(0, 1000))
def test_the_score_that_chooses_is_our_ndcg(seed: int) -> None:
    generator = np.random.default_rng(seed)
    ranked_WK = np.stack([generator.permutation(30)[:15] for _ in range(8)])
    target_W = generator.integers(0, 30, 8)
    ours = metrics.ndcg(metrics.ranks_of_targets(ranked_WK, target_W), 10).mean()
    assert worker.ndcg(ranked_WK, target_W) == pytest.approx(ours)


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_method_has_a_grid_in_its_library(library: str) -> None:
    source = (Path(worker.__file__).parent / f"{library}_methods.py").read_text(encoding="utf-8")
    grids = source[source.index("GRIDS") : source.index('"""Method ->')]
    for method in METHODS.values():
        assert (f'"{method.name}": ' in grids) == (method.library == library)
    assert importlib.util.find_spec(f"catalign.baselines.workers.{library}_methods")

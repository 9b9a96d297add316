"""One of N: ranks and ValidRatio by hand, ties, free answers, going on after an interruption."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from catalign.data.dataset import Dataset, load_dataset
from catalign.errors import UserError
from catalign.evaluation import candidates_protocol
from catalign.evaluation.candidates_protocol import evaluate_candidates, rank_by_scores
from catalign.evaluation.predictions import read_predictions

Ints = npt.NDArray[np.int64]


@pytest.fixture
def toy(toy_dataset: Path) -> Dataset:
    return load_dataset(toy_dataset)


def evaluated(answers: Any, dataset: Dataset, folder: Path, **changes: Any) -> dict[str, Any]:
    options = {
        "free": False, "split": "test", "windows": 12, "seed": 0, "candidates": 5, "batch_size": 4,
        "produced_by": {"checkpoint": "mine"},
    }  # fmt: skip
    return evaluate_candidates(answers, dataset, folder, **(options | changes))


class Oracle:
    """Knows the targets of the toy world by their histories; puts each at the place it is told."""

    def __init__(self, dataset: Dataset, places: list[int]) -> None:
        windows = dataset.windows("test")
        self.target = dict(zip(map(tuple, windows["history"].to_list()), windows["target"].to_list(), strict=True))
        self.places, self.calls = places, 0

    def __call__(self, histories: Any, candidate_BN: Ints) -> npt.NDArray[np.float32]:
        scores = np.zeros(candidate_BN.shape, dtype=np.float32)
        for row, (history, candidates) in enumerate(zip(histories, candidate_BN, strict=True)):
            place = self.places[self.calls % len(self.places)]
            others = iter([number for number in range(len(candidates)) if number != place])
            target = self.target[tuple(history)]
            scores[row] = [-place if item == target else -next(others) for item in candidates]
            self.calls += 1
        return scores


def test_ranks_are_counted_among_the_candidates(toy: Dataset, tmp_path: Path) -> None:
    """Every fourth target is first, the others second, second and fifth."""
    metrics = evaluated(Oracle(toy, [0, 1, 1, 4]), toy, tmp_path / "p")
    assert metrics["n"] == 12 and metrics["hr@1"] == 0.25 and metrics["hr@5"] == 1.0 and "hr@10" not in metrics
    assert metrics["mrr@5"] == pytest.approx((1 + 1 / 2 + 1 / 2 + 1 / 5) / 4)
    assert metrics["ndcg@5"] == pytest.approx((1 + 2 / np.log2(3) + 1 / np.log2(6)) / 4)
    assert metrics["valid_ratio"] == 1.0 and metrics["ci95"]["valid_ratio"] == [1.0, 1.0]
    assert metrics["produced_by"]["protocol"] == "1 of 5" and metrics["produced_by"]["windows"] == 12
    low, high = metrics["ci95"]["hr@1"]
    assert low <= 0.25 <= high


def test_the_floor_ranks_the_same_candidates(toy: Dataset, tmp_path: Path) -> None:
    """After item i always comes its follower: what came after what knows the toy world."""
    floor = evaluated(Oracle(toy, [0]), toy, tmp_path / "p", windows=None)["floor"]
    assert floor.keys() == {"popularity", "item-kNN", "item-kNN, ordered"}
    assert floor["item-kNN, ordered"]["hr@1"] > 0.9 > floor["popularity"]["hr@1"]
    assert 0.0 < floor["popularity"]["hr@1"] < 0.5


def test_equal_scores_stay_in_the_random_order_of_the_candidates() -> None:
    candidate_WN = np.array([[7, 3, 9], [1, 2, 0]])
    assert rank_by_scores(candidate_WN, np.array([[1, 1, 2], [0, 0, 0]])).tolist() == [[9, 7, 3], [1, 2, 0]]


def test_a_scorer_that_knows_nothing_hits_by_chance(toy: Dataset, tmp_path: Path) -> None:
    def ignorant(histories: Any, candidate_BN: Ints) -> npt.NDArray[np.float32]:
        return np.zeros(candidate_BN.shape, dtype=np.float32)

    hits = [
        evaluated(ignorant, toy, tmp_path / str(seed), windows=None, seed=seed, candidates=4)["hr@1"]
        for seed in range(8)
    ]
    rows = 8 * len(toy.windows("test"))
    assert abs(np.mean(hits) - 1 / 4) < 4 * np.sqrt(3 / 16 / rows)


def test_free_answers_count_where_they_name_a_candidate(toy: Dataset, tmp_path: Path) -> None:
    """Of four answers one names the target, two another candidate, one none: HR@1 .25, ValidRatio .75."""
    oracle, calls = Oracle(toy, [0]), iter(range(99))

    def writes(histories: Any, candidate_BN: Ints) -> Ints:
        best_B, last_B = oracle(histories, candidate_BN).argmax(axis=1), oracle(histories, candidate_BN).argmin(axis=1)
        rows = np.arange(len(candidate_BN))
        kind_B = np.array([next(calls) % 4 for _ in rows])
        return np.select([kind_B == 0, kind_B == 3], [candidate_BN[rows, best_B], -1], candidate_BN[rows, last_B])

    metrics = evaluated(writes, toy, tmp_path / "p", free=True)
    assert metrics["hr@1"] == 0.25 and metrics["valid_ratio"] == 0.75 and "hr@5" not in metrics
    low, high = metrics["ci95"]["valid_ratio"]
    assert low < 0.75 < high
    assert read_predictions(tmp_path / "p")["ranked"].list.len().to_list() == [1, 1, 1, 0] * 3


def test_an_interrupted_evaluation_goes_on(toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates_protocol, "CHUNK", 4)

    def by_index(histories: Any, candidate_BN: Ints) -> npt.NDArray[np.float32]:
        return candidate_BN.astype(np.float32)

    calls = []

    def interrupted(histories: Any, candidate_BN: Ints) -> npt.NDArray[np.float32]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return by_index(histories, candidate_BN)

    with pytest.raises(KeyboardInterrupt):
        evaluated(interrupted, toy, tmp_path / "p")
    assert len(list((tmp_path / "p").glob("part-*.parquet"))) == 2
    assert evaluated(by_index, toy, tmp_path / "p") == evaluated(by_index, toy, tmp_path / "whole")
    with pytest.raises(UserError, match="holds predictions of other settings"):
        evaluated(by_index, toy, tmp_path / "p", candidates=6)


def test_more_candidates_than_the_catalogue_has(toy: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="23 negatives asked for, but of 24 titles only"):
        evaluated(Oracle(toy, [0]), toy, tmp_path / "p", candidates=24)
    assert not (tmp_path / "p").exists()

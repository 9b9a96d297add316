"""Floor scores of given candidates: popularity by hand, item-kNN in the order of the full ranking."""

import numpy as np
import polars as pl
import pytest

from catalign.evaluation import floor_candidates
from catalign.evaluation.floor import floor_rankings
from catalign.evaluation.floor_candidates import floor_scores


def frame(histories: list[list[int]], targets: list[int]) -> pl.DataFrame:
    schema = {"history": pl.List(pl.UInt32), "target": pl.UInt32}
    return pl.DataFrame({"history": histories, "target": targets}, schema=schema)


def test_popularity_is_the_training_count() -> None:
    counts = np.array([5, 0, 2])
    scores = floor_scores(frame([[0]], [2]), counts, frame([[0], [1]], [0, 0]), np.array([[2, 0], [1, 2]]))
    assert scores["popularity"].tolist() == [[2, 5], [0, 2]]


@pytest.mark.parametrize("cells", [16_000_000, 40])
def test_all_items_as_candidates_give_the_full_ranking(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor_candidates, "_CHUNK_CELLS", cells)
    generator = np.random.default_rng(0)
    items = 15
    sequences = generator.integers(items, size=(40, 4))
    training = frame(sequences[:, :3].tolist(), sequences[:, 3].tolist())
    counts = np.bincount(sequences.ravel(), minlength=items)
    asked = frame(generator.integers(items, size=(10, 3)).tolist(), [0] * 10)
    everything = np.tile(np.arange(items), (10, 1))
    scores = floor_scores(training, counts, asked, everything)
    rankings = floor_rankings(training, counts, asked, depth=items)
    assert scores.keys() == rankings.keys()
    for name, score_WI in scores.items():
        ranked = np.argsort(-score_WI, axis=1, kind="stable")  # equal scores by item, as the full ranking has them
        assert (ranked == rankings[name]).all(), name

"""What is recommended: by hand, by pairs formed one by one, and for lists that end early."""

import doctest
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalign.evaluation import beyond_accuracy
from catalign.evaluation.beyond_accuracy import diversities, gini, list_statistics, mean_statistics, novelties
from catalign.evaluation.metrics import NO_ITEM

RANKED_WK = np.array([[0, 1, 2], [0, 3, NO_ITEM], [NO_ITEM, NO_ITEM, NO_ITEM]])
COUNTS_I = np.array([6, 2, 0, 0, 4])


def test_docstrings_compute_what_they_say() -> None:
    result = doctest.testmod(beyond_accuracy)
    assert result.attempted >= 6 and result.failed == 0


def test_the_statistics_by_hand() -> None:
    """The third list is empty and has no mean; five items, twelve occurrences in training."""
    found = list_statistics(RANKED_WK, np.array([4, 1, 0]), COUNTS_I, k=2)
    assert (found.k, found.coverage) == (2, 3 / 5)  # the items 0, 1, 3
    assert found.gini == pytest.approx((2 * np.arange(1, 6) - 6) @ [0, 0, 1, 1, 2] / (5 * 4))
    surprise = -np.log2((COUNTS_I + 1) / 17)
    assert found.novelty == pytest.approx(((surprise[0] + surprise[1]) / 2 + (surprise[0] + surprise[3]) / 2) / 2)
    assert found.popularity == ((6 + 2) / 2 + (6 + 0) / 2) / 2
    assert found.popularity_ratio == pytest.approx(3.5 / 4)  # targets: 4, 2 and 6 times
    assert found.diversity is None


def test_targets_that_were_never_trained_have_no_popularity() -> None:
    assert list_statistics(RANKED_WK, np.array([2, 2, 3]), COUNTS_I).popularity_ratio is None


def test_lists_without_items() -> None:
    found = list_statistics(np.full((2, 3), NO_ITEM), np.array([0, 1]), COUNTS_I, embed=lambda items: np.eye(5)[items])
    assert (found.coverage, found.gini) == (0, 0)
    assert np.isnan([found.novelty, found.popularity, found.diversity]).all()
    assert np.isnan(novelties(RANKED_WK, COUNTS_I)).tolist() == [False, False, True]


@given(st.integers(0, 2**31), st.integers(1, 6))
def test_diversity_is_the_mean_over_all_pairs(seed: int, length: int) -> None:
    generator = np.random.default_rng(seed)
    vector_IH = generator.normal(size=(8, 3))
    ranked_WK = np.stack([generator.permutation(8)[:length] for _ in range(4)])
    ranked_WK[0, length // 2 :] = NO_ITEM
    for row, value in zip(ranked_WK, diversities(ranked_WK, lambda items: vector_IH[items]), strict=True):
        unit = [vector / np.linalg.norm(vector) for vector in vector_IH[row[row != NO_ITEM]]]
        pairs = [1 - one @ other for one, other in combinations(unit, 2)]
        assert value == pytest.approx(np.mean(pairs)) if pairs else np.isnan(value)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked_WK = np.stack([np.random.default_rng(seed).permutation(9)[:4] for seed in range(7)])
    whole = diversities(ranked_WK, lambda items: np.eye(9)[items] + 1)
    monkeypatch.setattr(beyond_accuracy, "_CHUNK_WINDOWS", 3)
    assert diversities(ranked_WK, lambda items: np.eye(9)[items] + 1).tolist() == whole.tolist()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=10).filter(any))
def test_gini_is_the_mean_difference(times: list[int]) -> None:
    """Half the relative mean absolute difference between all pairs of items."""
    ranked = np.repeat(np.arange(len(times)), times)[:, None]
    value = np.asarray(times)
    expected = np.abs(value[:, None] - value[None]).mean() / (2 * value.mean())
    assert gini(ranked, len(times)) == pytest.approx(expected)


def test_seeds_are_averaged() -> None:
    one = list_statistics(RANKED_WK[:1], np.array([4]), COUNTS_I)
    other = list_statistics(RANKED_WK[1:2], np.array([2]), COUNTS_I)
    mean = mean_statistics([one, other])
    assert mean.coverage == (one.coverage + other.coverage) / 2 == (3 / 5 + 2 / 5) / 2
    assert mean.popularity_ratio == one.popularity_ratio and mean.diversity is None

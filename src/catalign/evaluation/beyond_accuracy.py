"""What is recommended, whether it hits or not: coverage, concentration, novelty, popularity and diversity of the lists.

Shapes: W windows, K places of a ranked list, I items, B windows of one chunk, H width of an embedding.

A list that ends early (`NO_ITEM`) counts with the items that it has; a window without any has no mean and is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalign.evaluation.metrics import NO_ITEM

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Embedder = Callable[[Ints], npt.NDArray[np.floating]]
"""Item indices [N] to the embeddings of their titles [N, H]."""

_CHUNK_WINDOWS = 1_024  # whose embeddings are held at once


@dataclass(frozen=True)
class ListStatistics:
    """What the lists of one row recommend.

    Attributes:
        k: length of the lists that were looked at.
        coverage: see `coverage`.
        gini: see `gini`.
        novelty: mean over windows of `novelties`, in bits.
        popularity: mean over windows of `popularities`.
        popularity_ratio: that over the mean training count of the targets; above 1 the row recommends what is more
            popular than what people took. None where no target occurs in training.
        diversity: mean over windows of `diversities`; None without embeddings.
    """

    k: int
    coverage: float
    gini: float
    novelty: float
    popularity: float
    popularity_ratio: float | None
    diversity: float | None


def list_statistics(
    ranked_WK: Ints, target_W: Ints, training_counts_I: Ints, *, k: int = 10, embed: Embedder | None = None
) -> ListStatistics:
    """Return the statistics of the first `k` places.

    Args:
        ranked_WK: item indices, best first, filled up with `NO_ITEM`.
        target_W: the targets, whose popularity is compared with.
        training_counts_I: occurrences of each item in training.
        k: cut-off; lists that are shorter are taken whole.
        embed: embeddings of titles, for the diversity.
    """
    top_WK = ranked_WK[:, :k]
    popularity = _mean(popularities(top_WK, training_counts_I))
    of_targets = float(training_counts_I[target_W].mean())
    return ListStatistics(
        k=top_WK.shape[1],
        coverage=coverage(top_WK, len(training_counts_I)),
        gini=gini(top_WK, len(training_counts_I)),
        novelty=_mean(novelties(top_WK, training_counts_I)),
        popularity=popularity,
        popularity_ratio=popularity / of_targets if of_targets else None,
        diversity=None if embed is None else _mean(diversities(top_WK, embed)),
    )


def mean_statistics(found: Sequence[ListStatistics]) -> ListStatistics:
    """Return the mean over the seeds of a method, at least one."""
    return ListStatistics(
        k=found[0].k,
        coverage=float(np.mean([of_seed.coverage for of_seed in found])),
        gini=float(np.mean([of_seed.gini for of_seed in found])),
        novelty=float(np.mean([of_seed.novelty for of_seed in found])),
        popularity=float(np.mean([of_seed.popularity for of_seed in found])),
        popularity_ratio=_mean_known([of_seed.popularity_ratio for of_seed in found]),
        diversity=_mean_known([of_seed.diversity for of_seed in found]),
    )


def coverage(ranked_WK: Ints, items: int) -> float:
    """Return the share of the catalogue that stands in at least one list.

    >>> coverage(np.array([[0, 1], [1, NO_ITEM]]), items=4)
    0.5
    """
    return float(np.count_nonzero(_times_recommended(ranked_WK, items)) / items)


def gini(ranked_WK: Ints, items: int) -> float:
    """Return the Gini index of how often each item of the catalogue is recommended: 0 all alike, near 1 few take all.

    Of the counts c_1 <= ... <= c_I: sum of (2 i - I - 1) c_i over I sum of c_i.

    >>> gini(np.array([[0, 1], [1, 0]]), items=2), gini(np.array([[0], [0]]), items=4)
    (0.0, 0.75)
    """
    times_I = np.sort(_times_recommended(ranked_WK, items))
    if times_I[-1] == 0:
        return 0.0
    return float((2 * np.arange(1, items + 1) - items - 1) @ times_I / (items * times_I.sum()))


def novelties(ranked_WK: Ints, training_counts_I: Ints) -> Floats:
    """Return the mean of -log2 p(item) of each list in bits, float64 [W], nan for an empty one.

    p(item) is (count + 1) / (all counts + I): one is added so that an item that never occurred in training has a finite
    surprise. Source: self-information, Zhou et al., PNAS 107 (2010).

    >>> novelties(np.array([[0, 1], [0, NO_ITEM]]), np.array([3, 0])).round(3).tolist()  # p = 4/5 and 1/5
    [1.322, 0.322]
    """
    surprise_I = -np.log2((training_counts_I + 1) / (training_counts_I.sum() + len(training_counts_I)))
    return _means_of_lists(ranked_WK, surprise_I)


def popularities(ranked_WK: Ints, training_counts_I: Ints) -> Floats:
    """Return the mean training count of the items of each list, float64 [W], nan for an empty one.

    Its mean over windows is the average recommendation popularity of Yin et al. (VLDB 2012).

    >>> popularities(np.array([[0, 1], [0, NO_ITEM]]), np.array([3, 0])).tolist()
    [1.5, 3.0]
    """
    return _means_of_lists(ranked_WK, training_counts_I.astype(np.float64))


def diversities(ranked_WK: Ints, embed: Embedder) -> Floats:
    """Return the mean of 1 - cosine over all pairs of each list, float64 [W], nan for a list of fewer than two items.

    Of n unit vectors the cosines of all pairs sum to (|sum of the vectors|^2 - n) / 2, so no pair is formed. Source:
    one minus the intra-list similarity of Ziegler et al. (WWW 2005).

    >>> directions = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    >>> lists = np.array([[0, 1, NO_ITEM], [0, 2, NO_ITEM], [0, 1, 2]])
    >>> diversities(lists, lambda items: directions[items]).round(3).tolist()
    [1.0, 0.0, 0.667]
    """
    parts = [np.zeros(0)]
    for start in range(0, len(ranked_WK), _CHUNK_WINDOWS):
        chunk_BK = ranked_WK[start : start + _CHUNK_WINDOWS]
        known_BK = chunk_BK != NO_ITEM
        found_NH = np.asarray(embed(chunk_BK[known_BK]), dtype=np.float64)
        vector_BKH = np.zeros((*chunk_BK.shape, found_NH.shape[1]))
        length_N1 = np.linalg.norm(found_NH, axis=1, keepdims=True)
        vector_BKH[known_BK] = found_NH / np.where(length_N1 > 0, length_N1, 1.0)
        count_B = known_BK.sum(axis=1).astype(np.float64)
        twice_B = (vector_BKH.sum(axis=1) ** 2).sum(axis=1) - count_B
        pairs_B = np.where(count_B > 1, count_B * (count_B - 1), np.nan)
        parts.append(1 - twice_B / pairs_B)
    return np.concatenate(parts)


def _times_recommended(ranked_WK: Ints, items: int) -> Ints:
    """How often each item stands in a list [I]."""
    return np.bincount(ranked_WK[ranked_WK != NO_ITEM], minlength=items).astype(np.int64)


def _means_of_lists(ranked_WK: Ints, value_I: Floats) -> Floats:
    """The mean of a value of items over each list [W], nan where it is empty."""
    known_WK = ranked_WK != NO_ITEM
    count_W = known_WK.sum(axis=1).astype(np.float64)
    sum_W = np.where(known_WK, value_I[ranked_WK], 0.0).sum(axis=1)
    mean_W: Floats = sum_W / np.where(count_W > 0, count_W, np.nan)
    return mean_W


def _mean_known(values: Sequence[float | None]) -> float | None:
    """The mean of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _mean(value_W: Floats) -> float:
    """The mean over the windows that have one; nan where none has."""
    known_W = value_W[~np.isnan(value_W)]
    return float(known_W.mean()) if len(known_W) else float("nan")

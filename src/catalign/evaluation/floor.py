"""The floor: rankings that need counting only, always printed beside a model.

Shapes: W windows, K places of a ranked list, I items, P pairs (a window and one item of its history).

All rank the full catalogue; equal scores are ordered by training count, then by item index, so items without a training
occurrence come last in index order. With `exclude_history` the items of a window's own history are left out.

Constants were chosen by NDCG@10 on the 6,142 validation windows of Amazon Video Games, never on test: recency
0.7 ** age against 0.8 and 0.5 ** age and 1 / (age + 1); that an item may follow itself (cosine 0.065 with, 0.056
without; ordered 0.083 and 0.074); for the ordered form also the backward weight (0, 0.25, 0.5, 1) and the powers of the
two training counts (0 to 0.7).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from catalign.evaluation.metrics import NO_ITEM, ranks_of_targets, summarise

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DEPTH = 20
RECENCY = 0.7  # weight of a history item per step of age
BACKWARD = 0.25  # ordered form: weight of "was followed by the history item" against "followed it"
POWERS = (0.5, 0.1)  # ordered form: of the training counts of the history item and of the candidate
_CHUNK_CELLS = 16_000_000  # scores held at once


def floor_rankings(
    training_windows: pl.DataFrame,
    training_counts_I: Ints,
    windows: pl.DataFrame,
    *,
    depth: int = DEPTH,
    exclude_history: bool = False,
) -> dict[str, Ints]:
    """Return the ranked lists of every floor row for `windows`: row name to ranked_WK int64 [W, depth].

    The rows are `popularity`, `item-kNN` (symmetric cosine) and `item-kNN, ordered`. Lists end in `NO_ITEM` where items
    run out.

    Args:
        training_windows: history (list of item indices, oldest first) and target.
        training_counts_I: occurrences of each item in the training interactions.
        windows: the windows to rank for; only their history is read.
        depth: length of the lists.
        exclude_history: leave out the items of the window's history.
    """
    following_II = following_counts(training_windows, len(training_counts_I))
    similarities = {
        "item-kNN": cosine_similarity(following_II, training_counts_I),
        "item-kNN, ordered": ordered_similarity(following_II, training_counts_I),
    }
    history = windows["history"]
    popular_WK = rank_by_popularity(training_counts_I, history, depth=depth, exclude_history=exclude_history)
    similar = {
        name: rank_by_similarity(matrix_II, training_counts_I, history, depth=depth, exclude_history=exclude_history)
        for name, matrix_II in similarities.items()
    }
    return {"popularity": popular_WK, **similar}


def floor_metrics(
    training_windows: pl.DataFrame,
    training_counts_I: Ints,
    windows: pl.DataFrame,
    *,
    exclude_history: bool = False,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Return the metrics (see `metrics.summarise`) of every floor row over `windows` (user_id, history, target)."""
    rankings = floor_rankings(training_windows, training_counts_I, windows, exclude_history=exclude_history)
    target_W = windows["target"].to_numpy().astype(np.int64)
    warm_W, users_W = training_counts_I[target_W] > 0, windows["user_id"].to_numpy()
    return {
        name: summarise(ranks_of_targets(ranked_WK, target_W), warm_W, depth=DEPTH, groups_W=users_W, seed=seed)
        for name, ranked_WK in rankings.items()
    }


def following_counts(training_windows: pl.DataFrame, items: int) -> sparse.csr_array:
    """Return float64 [I, I]: how often the column's item was the target after the row's item in the history."""
    row_P, item_P, _ = history_pairs(training_windows["history"])
    target_P = training_windows["target"].to_numpy().astype(np.int64)[row_P]
    return sparse.csr_array((np.ones(len(row_P)), (item_P, target_P)), shape=(items, items))


def cosine_similarity(following_II: sparse.csr_array, training_counts_I: Ints) -> sparse.csr_array:
    """Return the textbook similarity [I, I]: co-occurrences in either order over sqrt(count_i * count_j).

    Source: Sarwar et al., *Item-based collaborative filtering recommendation algorithms* (WWW 2001).
    """
    return _normalised(following_II + following_II.T, training_counts_I, 0.5, 0.5)


def ordered_similarity(following_II: sparse.csr_array, training_counts_I: Ints) -> sparse.csr_array:
    """Return (F + BACKWARD * F^T)_ij / (count_i^0.5 * count_j^0.1) [I, I] of the following counts F.

    It knows what the cosine does not: what comes after what; and it penalises popular candidates less.
    """
    return _normalised((following_II + BACKWARD * following_II.T).tocsr(), training_counts_I, *POWERS)


def rank_by_popularity(
    training_counts_I: Ints, history: pl.Series, *, depth: int = DEPTH, exclude_history: bool = False
) -> Ints:
    """Return the most frequent items of training for every window, int64 [W, depth]."""
    order_I = _popularity_order(training_counts_I)
    longest = int(history.list.len().to_numpy().max(initial=0)) if exclude_history else 0
    best_WC = np.tile(order_I[: depth + longest], (len(history), 1))  # enough candidates to lose a whole history
    if exclude_history:
        row_P, item_P, _ = history_pairs(history)
        place_I = np.argsort(order_I)
        near_P = place_I[item_P] < best_WC.shape[1]
        best_WC[row_P[near_P], place_I[item_P[near_P]]] = NO_ITEM
        best_WC = np.take_along_axis(best_WC, np.argsort(best_WC == NO_ITEM, axis=1, kind="stable"), axis=1)
    return _widened(best_WC[:, :depth], depth)


def rank_by_similarity(
    similarity_II: sparse.csr_array,
    training_counts_I: Ints,
    history: pl.Series,
    *,
    depth: int = DEPTH,
    exclude_history: bool = False,
) -> Ints:
    """Return the items with the highest sum of RECENCY ** age * similarity over the history, int64 [W, depth].

    The newest item of a history has age 0.

    Args:
        similarity_II: not negative; row = item of the history, column = candidate.
        training_counts_I: orders equal scores.
        history: lists of item indices, oldest first.
        depth: length of the lists.
        exclude_history: leave out the items of the window's history.
    """
    order_I = _popularity_order(training_counts_I)
    place_I = np.argsort(order_I)
    items, windows = len(order_I), len(history)
    row_P, item_P, age_P = history_pairs(history)
    shape = (windows, items)
    weight_WI = sparse.csr_array((RECENCY**age_P, (row_P, item_P)), shape=shape)
    seen_WI = sparse.csr_array((np.ones(len(row_P), dtype=bool), (row_P, place_I[item_P])), shape=shape)
    by_place_II = similarity_II[:, order_I].tocsr()  # columns by popularity, so that the place breaks ties
    chunk = max(1, _CHUNK_CELLS // items)
    ranked_WK = np.full((windows, depth), NO_ITEM, dtype=np.int64)
    for start in range(0, windows, chunk):
        rows = slice(start, min(start + chunk, windows))
        key_CI = _sortable((weight_WI[rows] @ by_place_II).toarray())
        if exclude_history:
            key_CI[seen_WI[rows].toarray()] = -1
        ranked_WK[rows] = _widened(_best(key_CI, order_I, depth), depth)
    return ranked_WK


def _sortable(scores_CI: Floats) -> Ints:
    """Return int64 keys that order by score, then by column (the first wins); no two of a row are equal.

    The bits of a float32 that is not negative grow with its value, so they can be the key's upper half.
    """
    bits_CI = scores_CI.astype(np.float32).view(np.int32).astype(np.int64)
    return (bits_CI << 32) | np.arange(scores_CI.shape[1])[::-1]


def _best(key_CI: Ints, order_I: Ints, depth: int) -> Ints:
    """Return the items of the highest keys of each row, best first; `NO_ITEM` where a key is -1."""
    count = min(depth, key_CI.shape[1])
    place_CK = np.argpartition(key_CI, -count, axis=1)[:, -count:]
    key_CK = np.take_along_axis(key_CI, place_CK, axis=1)
    by_key_CK = np.argsort(-key_CK, axis=1)
    ranked_CK = order_I[np.take_along_axis(place_CK, by_key_CK, axis=1)]
    ranked_CK[np.take_along_axis(key_CK, by_key_CK, axis=1) < 0] = NO_ITEM
    return ranked_CK


def _normalised(
    counts_II: sparse.csr_array, training_counts_I: Ints, row_power: float, power: float
) -> sparse.csr_array:
    """Return counts_ij / (count_i ** row_power * count_j ** power); an item without occurrences has only zeros."""
    count_I = np.maximum(training_counts_I, 1).astype(np.float64)
    left_II, right_II = sparse.diags_array(count_I**-row_power), sparse.diags_array(count_I**-power)
    return sparse.csr_array(left_II @ counts_II @ right_II)


def history_pairs(history: pl.Series) -> tuple[Ints, Ints, Ints]:
    """Return row, item and age (0 = newest) of every history item, int64 [P] each."""
    length_W = history.list.len().to_numpy().astype(np.int64)
    row_P = np.repeat(np.arange(len(length_W)), length_W)
    end_W = np.cumsum(length_W)
    age_P = end_W[row_P] - 1 - np.arange(len(row_P))
    return row_P, history.explode(empty_as_null=False).to_numpy().astype(np.int64), age_P


def _popularity_order(training_counts_I: Ints) -> Ints:
    """Return the item indices, most frequent first, equal counts in index order."""
    return np.argsort(-training_counts_I, kind="stable")


def _widened(ranked_WK: Ints, depth: int) -> Ints:
    """Fill up with `NO_ITEM` where the catalogue is smaller than `depth`."""
    return np.pad(ranked_WK, ((0, 0), (0, depth - ranked_WK.shape[1])), constant_values=NO_ITEM)

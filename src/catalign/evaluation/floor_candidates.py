"""The floor rows for given candidates: scores that need counting only, for the protocols with candidates and pairs.

Shapes: W windows, N candidates, I items.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from catalign.evaluation.floor import RECENCY, cosine_similarity, following_counts, history_pairs, ordered_similarity

Ints = npt.NDArray[np.int64]

_CHUNK_CELLS = 16_000_000  # similarities held at once


def floor_scores(
    training_windows: pl.DataFrame, training_counts_I: Ints, windows: pl.DataFrame, candidate_WN: Ints
) -> dict[str, Ints]:
    """Return what orders the candidates of every window in each floor row: row name to int64 [W, N], high is good.

    The rows are those of `floor.floor_rankings`. Equal similarities are ordered by training count; candidates that are
    equal in that too stay equal.

    Args:
        training_windows: history (list of item indices, oldest first) and target.
        training_counts_I: occurrences of each item in the training interactions.
        windows: the windows; only their history is read.
        candidate_WN: item indices.
    """
    rows = {"popularity": training_counts_I[candidate_WN]}
    following_II = following_counts(training_windows, len(training_counts_I))
    for name, similarity in (("item-kNN", cosine_similarity), ("item-kNN, ordered", ordered_similarity)):
        matrix_II = similarity(following_II, training_counts_I)
        rows[name] = _similarity_keys(matrix_II, training_counts_I, windows["history"], candidate_WN)
    return rows


def _similarity_keys(
    similarity_II: sparse.csr_array, training_counts_I: Ints, history: pl.Series, candidate_WN: Ints
) -> Ints:
    """The sum of RECENCY ** age * similarity over the history as the upper half of a key, the count as the lower."""
    windows, items = len(history), len(training_counts_I)
    row_P, item_P, age_P = history_pairs(history)
    weight_WI: Any = sparse.csr_array((RECENCY**age_P, (row_P, item_P)), shape=(windows, items))
    chunk = max(1, _CHUNK_CELLS // items)
    parts = []
    for start in range(0, windows, chunk):
        rows = slice(start, min(start + chunk, windows))
        score_CI = (weight_WI[rows] @ similarity_II).toarray()
        parts.append(np.take_along_axis(score_CI, candidate_WN[rows], axis=1))
    score_WN = np.concatenate([np.zeros((0, candidate_WN.shape[1])), *parts])
    # The bits of a float32 that is not negative grow with its value.
    bits_WN = score_WN.astype(np.float32).view(np.int32).astype(np.int64)
    return (bits_WN << 32) | training_counts_I[candidate_WN]

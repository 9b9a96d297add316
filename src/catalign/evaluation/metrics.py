"""HR@k, NDCG@k and MRR@k of next-item recommendation: one target per window, ranked against the full catalogue.

With one target some measures of information retrieval are the same number, so they are not computed again:

    Recall@k    = (targets within k) / 1                       = HR@k
    Precision@k = (targets within k) / k                       = HR@k / k
    MAP@k       = (precision at the target's rank) / 1 = 1/rank = MRR@k

Shapes: W windows, K places of a ranked list, M metrics.

A rank is 1-based; 0 means that the target is not in the list. A ranked list holds item indices, best first, and is
filled up with `NO_ITEM` where the catalogue (or a filter) had no more items to give.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from catalign.errors import UserError
from catalign.evaluation.intervals import bootstrap_interval

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

KS = (1, 5, 10, 20)
NO_ITEM = -1


def hit_rate(rank_W: Ints, k: int) -> Floats:
    """Return HR@k of each window, float64 [W]: 1 where 1 <= rank <= k, else 0 (Recall@k with a single target).

    >>> hit_rate(np.array([1, 5, 6, 0]), 5).tolist()
    [1.0, 1.0, 0.0, 0.0]
    """
    return ((rank_W >= 1) & (rank_W <= k)).astype(np.float64)


def ndcg(rank_W: Ints, k: int) -> Floats:
    """Return NDCG@k of each window, float64 [W]: 1 / log2(rank + 1) where 1 <= rank <= k, else 0.

    With one target the ideal list has DCG 1, so nothing is divided by (Jarvelin and Kekalainen, TOIS 2002).

    >>> ndcg(np.array([1, 3, 6, 0]), 5).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    discount_W: Floats = np.log2(np.maximum(rank_W, 1) + 1.0)
    return hit_rate(rank_W, k) / discount_W


def mrr(rank_W: Ints, k: int) -> Floats:
    """Return MRR@k of each window, float64 [W]: 1 / rank where 1 <= rank <= k, else 0.

    >>> mrr(np.array([1, 4, 6, 0]), 5).tolist()
    [1.0, 0.25, 0.0, 0.0]
    """
    return hit_rate(rank_W, k) / np.maximum(rank_W, 1)


METRICS = {"hr": hit_rate, "ndcg": ndcg, "mrr": mrr}
SAME_NUMBER = {"recall": "hr", "map": "mrr"}
"""Names of measures that, with one target, are another one; see the head of this module."""


def metric_of_ranks(name: str, rank_W: Ints) -> Floats:
    """Return a metric by its name, `ndcg@10` say, of each window, float64 [W].

    >>> metric_of_ranks("map@5", np.array([1, 4, 6, 0])).tolist()  # one target: the same as mrr@5
    [1.0, 0.25, 0.0, 0.0]

    Raises:
        UserError: no such metric.
    """
    measure, cutoff = split_name(name)
    return METRICS[SAME_NUMBER.get(measure, measure)](rank_W, cutoff)


def split_name(name: str) -> tuple[str, int]:
    """Return measure and cutoff of a metric's name.

    >>> split_name("ndcg@10")
    ('ndcg', 10)

    Raises:
        UserError: no such metric.
    """
    measure, _, cutoff = name.partition("@")
    if measure not in METRICS.keys() | SAME_NUMBER.keys() or not cutoff.isdecimal() or int(cutoff) == 0:
        known = ", ".join([*METRICS, *SAME_NUMBER])
        raise UserError(f"no such metric: {name}", mend=f"choose from {known}, each with @k: ndcg@10")
    return measure, int(cutoff)


def ranks_of_targets(ranked_WK: Ints, target_W: Ints) -> Ints:
    """Return the 1-based rank of each target in its ranked list, int64 [W], 0 where it is not in it.

    >>> ranks_of_targets(np.array([[7, 3, 5], [2, 4, NO_ITEM]]), np.array([5, 9])).tolist()
    [3, 0]

    Raises:
        ValueError: an item stands twice in one list, an item after a `NO_ITEM`, or shapes that disagree.
    """
    if ranked_WK.ndim != 2 or target_W.shape != ranked_WK.shape[:1]:
        raise ValueError(f"ranked_WK {ranked_WK.shape} and target_W {target_W.shape} do not belong together")
    sorted_WK = np.sort(ranked_WK, axis=1)
    twice_W = ((sorted_WK[:, 1:] == sorted_WK[:, :-1]) & (sorted_WK[:, 1:] != NO_ITEM)).any(axis=1)
    if twice_W.any():
        raise ValueError(f"the ranked list of row {int(twice_W.argmax())} holds an item twice")
    empty_WK = ranked_WK == NO_ITEM
    if (empty_WK[:, :-1] & ~empty_WK[:, 1:]).any():
        raise ValueError("a ranked list holds an item after a NO_ITEM")
    hit_WK = (ranked_WK == target_W[:, None]) & ~empty_WK
    return np.where(hit_WK.any(axis=1), hit_WK.argmax(axis=1) + 1, 0).astype(np.int64)


def summarise(
    rank_W: Ints,
    warm_W: Bools,
    *,
    depth: int,
    groups_W: npt.NDArray[Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the keys of `metrics.json`: means with 95 % intervals, over all windows and by warm and cold targets.

    `{"hr@1": ..., "ndcg@10": ..., "n": W, "ci95": {"hr@1": [low, high], ...}, "ci95_over": "users" or "windows",
    "depth": depth, "warm": {same metrics, n, ci95}, "cold": {...}}`. A k beyond `depth` is left out: a list of 10 says
    nothing about place 11. A part without windows is `{"n": 0}`.

    Args:
        rank_W: 1-based ranks, 0 = not in the list.
        warm_W: True where the target occurs in the training interactions.
        depth: how many items each list was asked for (a list may be shorter only because there were no more items).
        groups_W: user ids; where given, intervals resample users instead of windows (and `ci95_over` says so).
        seed: of the bootstrap.

    Raises:
        ValueError: a rank outside 0..depth, or shapes that disagree.
    """
    if rank_W.shape != warm_W.shape or rank_W.ndim != 1:
        raise ValueError(f"rank_W {rank_W.shape} and warm_W {warm_W.shape} do not belong together")
    if len(rank_W) and not 0 <= rank_W.min() <= rank_W.max() <= depth:
        raise ValueError(f"ranks must lie in 0..{depth}, got {rank_W.min()}..{rank_W.max()}")
    return {
        **_part(rank_W, groups_W, depth, seed),
        "ci95_over": "windows" if groups_W is None else "users",
        "depth": depth,
        "warm": _part(rank_W[warm_W], None if groups_W is None else groups_W[warm_W], depth, seed),
        "cold": _part(rank_W[~warm_W], None if groups_W is None else groups_W[~warm_W], depth, seed),
    }


def _part(rank_W: Ints, groups_W: npt.NDArray[Any] | None, depth: int, seed: int) -> dict[str, Any]:
    """Return means, number of windows and intervals of one set of windows."""
    if len(rank_W) == 0:
        return {"n": 0}
    columns = {f"{name}@{k}": metric(rank_W, k) for name, metric in METRICS.items() for k in KS if k <= depth}
    values_WM = np.stack(list(columns.values()), axis=1)
    interval_M2 = bootstrap_interval(values_WM, groups_W, seed=seed)
    return {
        **dict(zip(columns, values_WM.mean(axis=0).tolist(), strict=True)),
        "n": len(rank_W),
        "ci95": dict(zip(columns, interval_M2.tolist(), strict=True)),
    }

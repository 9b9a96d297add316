"""Filters over interactions: repeated pairs and the k-core."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl


def repeated_pairs(interactions: pl.DataFrame, keep: Literal["first", "last"]) -> pl.Series:
    """Say which rows repeat a (user, item) pair.

    Args:
        interactions: `user` and `item` (UInt32), `timestamp` (may be null), in the order of the file.
        keep: the occurrence to spare, in time order (ties in the order of the file).

    Returns:
        Boolean, true where the row is to go.
    """
    pair = (interactions["user"].to_numpy().astype(np.uint64) << np.uint64(32)) | interactions["item"].to_numpy()
    timed = pl.DataFrame([pl.Series("pair", pair), interactions["timestamp"]])
    order = timed.select(pl.arg_sort_by("pair", "timestamp", maintain_order=True))["pair"].to_numpy()
    ordered = pair[order]
    again = np.zeros(ordered.size, dtype=np.bool_)
    if keep == "first":
        again[1:] = ordered[1:] == ordered[:-1]
    else:
        again[:-1] = ordered[1:] == ordered[:-1]
    repeated = np.empty_like(again)
    repeated[order] = again
    return pl.Series("repeated", repeated)


def k_core(users: npt.NDArray[np.uint32], items: npt.NDArray[np.uint32], k: int) -> npt.NDArray[np.bool_]:
    """Find the largest part of the interactions in which every user and every item has at least `k` of them.

    Args:
        users: [interactions], user numbers from 0.
        items: [interactions], item numbers from 0.
        k: the least count; repeated pairs count as often as they occur.

    Returns:
        [interactions], true where the interaction stays.
    """
    user_counts, item_counts = np.bincount(users), np.bincount(items)
    alive = np.ones(users.size, dtype=np.bool_)
    while True:
        stays = (user_counts >= k)[users] & (item_counts >= k)[items]  # who has fallen below k never comes back
        gone = alive & ~stays
        if not gone.any():
            return stays
        user_counts -= np.bincount(users[gone], minlength=user_counts.size)
        item_counts -= np.bincount(items[gone], minlength=item_counts.size)
        alive = stays

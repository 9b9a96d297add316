"""Filters over interactions: repeated pairs and the k-core."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl


def repeated_pairs(interactions: pl.DataFrame, keep: Literal["first", "last"]) -> pl.Series:
    """Say which rows repeat a (user, item) pair.

    Args:
        interactions: `user_id`, `item_id`, `order` (UInt32, the order of the file), `timestamp` (may be null).
        keep: the occurrence to spare, in time order (ties in the order of the file).

    Returns:
        Boolean, true where the row is to go.
    """
    ordered = interactions.select("user_id", "item_id", "order", "timestamp").sort("timestamp", "order")
    spare = pl.col("order").first() if keep == "first" else pl.col("order").last()
    flags = ordered.select("order", repeated=pl.col("order") != spare.over("user_id", "item_id"))
    return flags.sort("order")["repeated"]


def k_core(users: npt.NDArray[np.uint32], items: npt.NDArray[np.uint32], k: int) -> npt.NDArray[np.bool_]:
    """Find the largest part of the interactions in which every user and every item has at least `k` of them.

    Args:
        users: [interactions], user numbers from 0.
        items: [interactions], item numbers from 0.
        k: the least count; repeated pairs count as often as they occur.

    Returns:
        [interactions], true where the interaction stays.
    """
    alive = np.ones(users.size, dtype=np.bool_)
    while True:
        enough_users = np.bincount(users[alive], minlength=int(users.max(initial=0)) + 1) >= k
        enough_items = np.bincount(items[alive], minlength=int(items.max(initial=0)) + 1) >= k
        stays = alive & enough_users[users] & enough_items[items]
        if stays.sum() == alive.sum():
            return stays
        alive = stays

"""Sliding windows: a few items of history and the next one as target."""

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa


def sliding_windows(
    interactions: pl.DataFrame, *, history: int, min_history: int, start: int = 0, rows: int | None = None
) -> pl.DataFrame:
    """Make one window of every interaction that has enough before it.

    Args:
        interactions: `user`, `item` (UInt32), `timestamp`, `split`, `position` (from 0 within the user), each user's
            rows together and in time order.
        history: at most this many items, the last before the target.
        min_history: at least this many.
        start: the first row to make a window of; histories reach behind it.
        rows: how many rows to make windows of; None: all from there.

    Returns:
        `user`, `history` (list of UInt32, oldest first), `target`, `timestamp`, `split`, in the order of the rows.
    """
    targets = interactions.slice(start, rows).with_row_index("at").filter(pl.col("position") >= min_history)
    ends = targets["at"].to_numpy().astype(np.int64) + start
    lengths = np.minimum(targets["position"].to_numpy(), history).astype(np.int64)
    lists = gather_lists(interactions["item"].to_numpy(), ends - lengths, lengths)
    return targets.select("user", history=lists, target="item", timestamp="timestamp", split="split")


def gather_lists(
    values: npt.NDArray[np.uint32], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> pl.Series:
    """Return the lists `values[start : start + length]` as one list column.

    Args:
        values: [items].
        starts: [lists], first index of each list in `values`.
        lengths: [lists].
    """
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = values[np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)]
    array = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(flat, pa.uint32()))
    return pl.Series("history", array, dtype=pl.List(pl.UInt32))

"""Sliding windows against a loop."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.data.windows import gather_lists, sliding_windows


def interactions(lengths: list[int]) -> pl.DataFrame:
    users = [user for user, length in enumerate(lengths) for _ in range(length)]
    position = [place for length in lengths for place in range(length)]
    count = len(users)
    return pl.DataFrame(
        {
            "user": pl.Series(users, dtype=pl.UInt32),
            "item": pl.Series([(7 * row) % 11 for row in range(count)], dtype=pl.UInt32),
            "timestamp": pl.Series(range(count), dtype=pl.Int64),
            "split": ["train"] * count,
            "position": pl.Series(position, dtype=pl.UInt32),
        }
    )


def test_three_purchases_make_two_windows() -> None:
    windows = sliding_windows(interactions([3]), history=10, min_history=1)
    assert windows.rows() == [(0, [0], 7, 1, "train"), (0, [0, 7], 3, 2, "train")]
    assert windows.schema["history"] == pl.List(pl.UInt32)
    assert windows.schema["target"] == pl.UInt32


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 15), max_size=6),
    st.integers(min_value=1, max_value=6),
    st.integers(min_value=1, max_value=4),
)
def test_windows_are_those_of_a_loop(lengths: list[int], history: int, min_history: int) -> None:
    log = interactions(lengths)
    expected = []
    for user, length in enumerate(lengths):
        mine = log.filter(pl.col("user") == user)["item"].to_list()
        expected += [(user, mine[max(place - history, 0) : place], mine[place]) for place in range(min_history, length)]
    windows = sliding_windows(log, history=history, min_history=min_history)
    assert windows.select("user", "history", "target").rows() == expected
    slices = [
        sliding_windows(log, history=history, min_history=min_history, start=start, rows=4)
        for start in range(0, log.height, 4)
    ]
    assert pl.concat([windows.clear(), *slices]).equals(windows)


def test_lists_may_be_empty_and_overlap() -> None:
    lists = gather_lists(np.array([4, 5, 6], dtype=np.uint32), np.array([0, 1, 1]), np.array([2, 0, 2]))
    assert lists.to_list() == [[4, 5], [], [5, 6]]

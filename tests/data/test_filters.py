"""Repeated pairs and the k-core against plain loops."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.data.filters import k_core, repeated_pairs


def test_the_k_core_falls_like_dominoes() -> None:
    # item 2 has one interaction; without it user 1 has one; without that item 1 has one; users 0 and item 0 hold out.
    users = np.array([0, 0, 1, 1, 2, 2], dtype=np.uint32)
    items = np.array([0, 0, 1, 2, 0, 1], dtype=np.uint32)
    assert k_core(users, items, 2).tolist() == [True, True, False, False, False, False]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40), st.integers(1, 4))
def test_the_k_core_is_that_of_a_loop(pairs: list[tuple[int, int]], k: int) -> None:
    left = list(enumerate(pairs))
    while True:
        users = [user for _, (user, _) in left]
        items = [item for _, (_, item) in left]
        stay = [(row, (user, item)) for row, (user, item) in left if users.count(user) >= k and items.count(item) >= k]
        if len(stay) == len(left):
            break
        left = stay
    columns = np.array(pairs, dtype=np.uint32).reshape(-1, 2)
    assert np.flatnonzero(k_core(columns[:, 0], columns[:, 1], k)).tolist() == [row for row, _ in left]


@pytest.mark.parametrize(
    ("keep", "gone"), [("first", [False, True, False, True]), ("last", [True, False, False, True])]
)
def test_repeated_pairs_are_judged_in_time_order(keep: str, gone: list[bool]) -> None:
    log = pl.DataFrame(
        {
            "user_id": ["ann", "ann", "bob", "ann"],
            "item_id": ["x", "x", "x", "x"],
            "order": [0, 1, 2, 3],
            "timestamp": [5, 9, 1, 7],
        }
    )
    assert repeated_pairs(log, keep).to_list() == gone  # type: ignore[arg-type]


def test_repeated_pairs_without_times_are_judged_in_file_order() -> None:
    log = pl.DataFrame(
        {"user_id": ["ann", "ann"], "item_id": ["x", "x"], "order": [0, 1], "timestamp": [None, None]},
        schema_overrides={"timestamp": pl.Int64},
    )
    assert repeated_pairs(log, "first").to_list() == [False, True]

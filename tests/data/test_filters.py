"""Repeated pairs and the k-core against plain loops."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.data.filters import k_core, repeated_pairs

NUMBERS = {"user": pl.UInt32, "item": pl.UInt32}


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
            "user": [0, 0, 1, 0],
            "item": [7, 7, 7, 7],
            "timestamp": [5, 9, 1, 7],
        },
        schema_overrides=NUMBERS,
    )
    assert repeated_pairs(log, keep).to_list() == gone  # type: ignore[arg-type]


def test_repeated_pairs_without_times_are_judged_in_file_order() -> None:
    log = pl.DataFrame(
        {"user": [0, 0], "item": [7, 7], "timestamp": [None, None]},
        schema_overrides={**NUMBERS, "timestamp": pl.Int64},
    )
    assert repeated_pairs(log, "first").to_list() == [False, True]


PURCHASES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.none() | st.integers(-2, 2)), max_size=30)


@settings(deadline=None)
@given(PURCHASES, st.sampled_from(["first", "last"]))
def test_repeated_pairs_are_those_of_a_loop(rows: list[tuple[int, int, int | None]], keep: str) -> None:
    log = pl.DataFrame(rows, schema={**NUMBERS, "timestamp": pl.Int64}, orient="row")
    in_time = sorted(range(len(rows)), key=lambda row: (rows[row][2] is not None, rows[row][2] or 0))
    spared: dict[tuple[int, int], int] = {}
    for row in in_time:
        spared[rows[row][:2]] = row if keep == "last" else spared.get(rows[row][:2], row)
    repeated = repeated_pairs(log, keep).to_list()  # type: ignore[arg-type]
    assert repeated == [row not in spared.values() for row in range(len(rows))]

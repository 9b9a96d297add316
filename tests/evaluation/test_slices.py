"""Slices of windows: each window where it belongs, none lost, none empty."""

import doctest

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalign.errors import UserError
from catalign.evaluation import slices
from catalign.evaluation.slices import BY, deciles, slices_of_windows

SCHEMA = {"history": pl.List(pl.UInt32), "target": pl.UInt32}
WINDOWS = pl.DataFrame(
    {"history": [[0], [1, 2, 0, 3], [0] * 6, [3] * 11, [1, 0]], "target": [1, 2, 0, 3, 4]}, schema=SCHEMA
)
ITEMS = pl.DataFrame(
    {
        "item_id": list("abcde"),
        "title": ["One", "Two", "Two", "Three", "Four"],
        "brand": ["x", "y", "x", None, "x"],
        "tags": [["red"], ["red", "blue"], [], None, ["blue"]],
        "price": [1.0, 2.0, 3.0, None, 5.0],
    }
)
COUNTS_I = np.array([9, 1, 1, 3, 0])


def rows(by: str, windows: pl.DataFrame = WINDOWS, items: pl.DataFrame = ITEMS) -> dict[str, list[int]]:
    found = slices_of_windows(by, windows, items, COUNTS_I)
    return {name: np.flatnonzero(mask_W).tolist() for name, mask_W in found.items()}


def test_docstrings_compute_what_they_say() -> None:
    result = doctest.testmod(slices)
    assert result.attempted >= 1 and result.failed == 0


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("warm", {"warm": [0, 1, 2, 3], "cold": [4]}),
        ("history-length", {"history 1-3": [0, 4], "history 4-5": [1], "history 6-9": [2], "history 10-11": [3]}),
        ("repeat", {"repeat": [1, 2, 3], "new": [0, 4]}),
        ("duplicate-title", {"shared title": [0, 1], "title of its own": [2, 3, 4]}),
        ("popularity", {"cold": [4], "decile 4: 1 times": [0, 1], "decile 8: 3 times": [3], "decile 10: 9 times": [2]}),
        ("brand", {"x": [1, 2, 4], "unknown": [3], "y": [0]}),
        ("tags", {"blue": [0, 4], "red": [0, 2], "unknown": [1, 3]}),
    ],
)
def test_windows_lie_where_they_belong(by: str, expected: dict[str, list[int]]) -> None:
    assert rows(by) == expected


def test_many_values_leave_the_rare_ones_together() -> None:
    brands = [f"b{min(number, 30)}" for number in range(40)]
    items = pl.DataFrame({"title": [f"t{number}" for number in range(40)], "brand": brands})
    windows = pl.DataFrame({"history": [[0]] * 40, "target": list(range(40))}, schema=SCHEMA)
    found = slices_of_windows("brand", windows, items, np.ones(40, dtype=np.int64))
    assert len(found) == slices.VALUES + 1 and next(iter(found)) == "b30" and list(found)[-1] == "other"
    assert found["b30"].sum() == 10 and sum(mask_W.sum() for mask_W in found.values()) == 40


def test_numbers_are_cut_into_quarters() -> None:
    items = pl.DataFrame({"title": ["t"] * 101, "price": [*map(float, range(100)), None]})
    windows = pl.DataFrame({"history": [[0]] * 101, "target": list(range(101))}, schema=SCHEMA)
    found = slices_of_windows("price", windows, items, np.ones(101, dtype=np.int64))
    assert [int(mask_W.sum()) for mask_W in found.values()] == [25, 25, 25, 25, 1]
    assert next(iter(found)) == "0 – 24.75" and list(found)[-1] == "unknown"


@given(st.lists(st.integers(0, 60), min_size=1, max_size=50))
def test_deciles_rise_with_the_count_and_are_a_tenth_each(counts: list[int]) -> None:
    count_I = np.asarray(counts)
    decile_I = deciles(count_I)
    assert ((decile_I == 0) == (count_I == 0)).all() and decile_I.max() <= 10
    order = np.argsort(count_I, kind="stable")
    assert (np.diff(decile_I[order]) >= 0).all()
    every = deciles(np.random.default_rng(0).permutation(np.arange(1, 201)))  # no equal counts
    assert np.bincount(every).tolist() == [0, *[20] * 10]


@pytest.mark.parametrize("by", BY)
def test_every_window_lies_in_just_one(by: str) -> None:
    found = slices_of_windows(by, WINDOWS, ITEMS, COUNTS_I)
    assert (np.sum(list(found.values()), axis=0) == 1).all()
    assert all(mask_W.any() for mask_W in found.values())


def test_refuses_slices_that_are_none() -> None:
    with pytest.raises(UserError, match=r"--by: no such slices: colour; choose from warm, .*, brand, tags, price"):
        rows("colour")
    with pytest.raises(UserError, match="no such slices: title"):
        rows("title")
    nested = ITEMS.with_columns(box=pl.struct("brand", "price"))
    with pytest.raises(UserError, match="the column box: holds neither texts nor numbers"):
        rows("box", items=nested)

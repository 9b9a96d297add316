"""Columns of requests, one kind at a time, against plain Python; keys that stand twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.batch import keys
from catalign.batch.columns import read_candidates, read_catalogues, read_counts, read_filters, read_history, read_items
from catalign.batch.keys import KeyTable
from catalign.catalogue.catalogue import Catalogue
from catalign.errors import UserError

TITLES = ["red lamp", "blue lamp", "[green] lamp", "7", "red lamp"]
METADATA = pl.DataFrame({"item_id": list("abcde"), "title": TITLES, "price": [1.0, 2.0, 3.0, None, 5.0]})
CATALOGUE = Catalogue.from_frame(METADATA, [1, 0, 0, 0, 9])


def both(checked: tuple[pl.Series, pl.Series]) -> list[tuple[Any, str | None]]:
    return list(zip(checked[0].to_list(), checked[1].to_list(), strict=True))


NAMES = st.sampled_from(["a", "b", "red lamp", "7", "nothing", ""])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.none() | st.lists(st.none() | NAMES, max_size=4), max_size=6))
def test_lists_are_looked_up_one_by_one(rows: list[list[str | None] | None]) -> None:
    column = pl.Series("history", rows, dtype=pl.List(pl.String))
    text = pl.Series("history", [None if row is None else json.dumps(row) for row in rows], dtype=pl.String)
    expected = []
    for row in rows:
        unknown = [name for name in row or [] if name is None or CATALOGUE.find(name) is None]
        named = [f'no item has the id or title "{name}"' if name is not None else "holds a null" for name in unknown]
        expected.append((None if row is None else [CATALOGUE.find(name or "") for name in row], (named or [None])[0]))
    assert both(read_items(column, CATALOGUE, "|")) == expected
    assert both(read_items(text, CATALOGUE, "|")) == expected


def test_texts_are_cut_at_the_delimiter() -> None:
    column = pl.Series(["a|b", " blue lamp | 7 |", "", None, " ", "b", "lost|a"])
    said = 'no item has the id or title "lost"'
    expected = [
        ([0, 1], None),
        ([1, 3], None),
        (None, None),
        (None, None),
        (None, None),
        ([1], None),
        ([None, 0], said),
    ]
    assert both(read_items(column, CATALOGUE, "|")) == expected
    assert both(read_items(pl.Series(["a, b"]), CATALOGUE, ",")) == [([0, 1], None)]


def test_a_text_that_begins_like_a_list_is_one() -> None:
    broken = "is no JSON list of texts or whole numbers"
    cells = ['["[green] lamp", "a"]', "[green] lamp", "[7]", "[1.5]", '[["a"]]', '{"a": 1}', "[]"]
    reasons = read_items(pl.Series(cells), CATALOGUE, "|")[1].to_list()
    assert reasons == [None, broken, None, broken, broken, 'no item has the id or title "{"a": 1}"', None]
    assert read_items(pl.Series(cells[:1]), CATALOGUE, "|")[0].to_list() == [[2, 0]]


@pytest.mark.parametrize(
    "column", [pl.Series([[7]]), pl.Series([["7"]], dtype=pl.List(pl.Categorical)), pl.Series([7])]
)
def test_ids_may_be_numbers(column: pl.Series) -> None:
    assert both(read_items(column, CATALOGUE, "|")) == [([3], None)]


def test_lists_of_something_else_are_refused() -> None:
    for wrong in (pl.Series("history", [[1.5]]), pl.Series("history", [[["a"]]])):
        with pytest.raises(
            UserError, match=r"the column 'history' holds List\(.*; give lists of ids or titles, or text"
        ):
            read_items(wrong, CATALOGUE, "|")


def test_who_has_nothing_is_told_so() -> None:
    column = pl.Series([["a"], [], None], dtype=pl.List(pl.String))
    assert read_history(column, CATALOGUE, "|")[1].to_list() == [None, "is empty", "is empty"]
    assert both(read_candidates(column, CATALOGUE, "|")) == [([0], None), ([], "names no item"), (None, None)]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pl.Series([1, None, 5]), [1, 3, 5]),
        (pl.Series([1.0, None, float("nan")]), [1, 3, 3]),
        (pl.Series(["2", "", "4.0"]), [2, 3, 4]),
        (pl.Series([None, None, None], dtype=pl.String), [3, 3, 3]),
    ],
)
def test_counts(column: pl.Series, expected: list[int]) -> None:
    value, reason = read_counts(column, 3, 5)
    assert value.to_list() == expected and value.dtype == pl.UInt32 and reason.null_count() == 3


@pytest.mark.parametrize("wrong", ["0", "6", "-1", "1.5", "many", "nan", "inf", "1e400", "99999999999999999999"])
def test_counts_that_are_none(wrong: str) -> None:
    _, reason = read_counts(pl.Series(["1", wrong]), 3, 5)
    assert reason.to_list() == [None, f"{wrong} is no whole number from 1 to 5"]


def test_filters_of_one_meaning_have_one_form() -> None:
    column = pl.Series(['{"price": {"min": 1, "max": 2}}', ' {"price":{"max":2,"min":1}} ', "{}", "", None])
    key, reason = read_filters(column, CATALOGUE)
    assert key[0] == key[1] is not None and key.to_list()[2:] == [None] * 3 and reason.null_count() == 5


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('{"price"', 'is no JSON: {"price"'),
        ("[1]", "is no object of columns"),
        ('{"price": null}', "is no object of columns"),
        ('{"price": [[1]]}', "is no object of columns"),
        ('{"price": {"min": "a"}}', "is no object of columns"),
        ('{"colour": "red"}', "'colour': the catalogue has no such column; it has price"),
        ('{"price": "cheap"}', "'price': holds numbers"),
    ],
)
def test_filters_that_are_none(wrong: str, said: str) -> None:
    key, reason = read_filters(pl.Series([None, wrong]), CATALOGUE)
    assert key.to_list() == [None, None] and reason[0] is None and reason[1].startswith(said)


def test_catalogues_have_names() -> None:
    there = "no catalogue has this name; there are de, fr"
    assert both(read_catalogues(pl.Series(["de", "", None, "it"]), ["de", "fr"])) == [
        ("de", None), (None, None), (None, None), ("it", there),
    ]  # fmt: skip
    assert "--catalogue NAME=FILE" in read_catalogues(pl.Series(["de"]), [])[1][0]


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.lists(st.integers(0, 12), max_size=8), max_size=5), buckets=st.sampled_from([1, 3, 256]))
def test_keys_that_were_there_before(
    parts: list[list[int]], buckets: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder: Path = tmp_path_factory.mktemp("keys")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "BUCKETS", buckets)
        table = KeyTable(folder)
        for part in parts:
            table.add(pl.Series([f"u{number}" for number in part], dtype=pl.String))
        repeated = table.repeated()
    flat = [number for part in parts for number in part]
    assert repeated.dtype == np.int64
    assert repeated.tolist() == [place for place, number in enumerate(flat) if number in flat[:place]]

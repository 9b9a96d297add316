"""Filters against plain Python, and the mistakes one can make in them."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.catalogue.filters import filter_key, items_passing
from catalign.errors import UserError

ROWS: list[dict[str, Any]] = [
    {"department": "Kitchen", "price": 9.5, "stock": 3, "new": True, "tags": ["gift", "metal"]},
    {"department": "Garden", "price": 20.0, "stock": 0, "new": False, "tags": []},
    {"department": None, "price": None, "stock": None, "new": None, "tags": None},
    {"department": "Garden", "price": 3.25, "stock": 8, "new": True, "tags": ["gift"]},
    {"department": "Toys", "price": 12.0, "stock": 5, "new": False, "tags": ["wood", "metal"]},
]
FRAME = pl.DataFrame(ROWS, schema_overrides={"stock": pl.Int32, "department": pl.Categorical})

CONDITIONS: dict[str, st.SearchStrategy[Any]] = {
    "department": st.sampled_from(["Kitchen", "Garden", "Nowhere"]) | st.lists(st.sampled_from(["Garden", "Toys"])),
    "price": st.dictionaries(st.sampled_from(["min", "max"]), st.integers(0, 25), min_size=1) | st.just(9.5),
    "stock": st.dictionaries(st.sampled_from(["min", "max"]), st.integers(0, 9), min_size=1) | st.lists(st.just(3)),
    "new": st.booleans(),
    "tags": st.sampled_from(["gift", "metal"]) | st.lists(st.sampled_from(["gift", "wood", "paper"]), min_size=1),
}


def passes(row: dict[str, Any], name: str, condition: Any) -> bool:
    value = row[name]
    if value is None:
        return False
    if isinstance(condition, dict):
        return bool(condition.get("min", value) <= value <= condition.get("max", value))
    among = condition if isinstance(condition, list) else [condition]
    return any(entry in among for entry in value) if isinstance(value, list) else value in among


@given(st.fixed_dictionaries({}, optional=CONDITIONS))
@settings(max_examples=150, deadline=None)
def test_an_item_passes_if_every_condition_holds(filters: dict[str, Any]) -> None:
    expected = [all(passes(row, name, condition) for name, condition in filters.items()) for row in ROWS]
    assert items_passing(FRAME, len(ROWS), filters).tolist() == expected


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"colour": "red"}, "no such column"),
        ({"department": 3}, "holds text, not 3"),
        ({"department": {"min": 1}}, "a range needs numbers"),
        ({"price": "cheap"}, 'holds numbers, not "cheap"'),
        ({"price": True}, "holds numbers, not true"),
        ({"price": {}}, '"min", "max" or both'),
        ({"price": {"under": 3}}, '"min", "max" or both'),
        ({"new": 1}, "true or false"),
        ({"tags": [1]}, "holds text, not 1"),
    ],
)
def test_mistakes_are_told(filters: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        items_passing(FRAME, len(ROWS), filters)


def test_without_metadata_nothing_can_be_filtered() -> None:
    assert items_passing(None, 3, {}).tolist() == [True] * 3
    with pytest.raises(UserError, match="no metadata"):
        items_passing(None, 3, {"price": 1})


def test_the_order_of_conditions_does_not_matter() -> None:
    assert filter_key({"a": 1, "b": [2]}) == filter_key({"b": [2], "a": 1}) != filter_key({"a": 1, "b": [3]})

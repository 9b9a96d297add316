"""What the metadata of the items hold, for those who want to filter by them or to show them."""

import math
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.datatypes import DataTypeClass

from catalign.catalogue.filters import TEXT
from catalign.serving.schemas import Column, ColumnValue

Kind: TypeAlias = Literal["text", "number", "boolean"]
MOST_VALUES = 100
LONGEST_VALUE = 200  # characters; nobody chooses a longer text from a list


def columns_of(metadata: pl.DataFrame | None, open_I: npt.NDArray[np.bool_]) -> list[Column]:
    """The columns that filters can name, and what the open items have in them.

    Args:
        metadata: [items] rows.
        open_I: [items]; those that are looked at.
    """
    if metadata is None:
        return []
    rows = metadata.filter(pl.Series(open_I))
    return [_column(rows[name], kind) for name, kind in _kinds(metadata).items()]


def values_of(metadata: pl.DataFrame | None, items: list[int]) -> list[dict[str, Any]]:
    """For each item the values it has in the columns that filters can name."""
    if metadata is None:
        return [{} for _ in items]
    rows = metadata.select(_kinds(metadata).keys())[items]
    return [{name: value for name, value in row.items() if _is_value(value)} for row in rows.to_dicts()]


def _kinds(metadata: pl.DataFrame) -> dict[str, Kind]:
    """Column to what it, or a list in it, holds; without those that cannot be filtered."""
    kinds = {name: _kind(_inner(dtype)) for name, dtype in metadata.schema.items()}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _inner(dtype: pl.DataType) -> pl.DataType | DataTypeClass:
    return dtype.inner if isinstance(dtype, pl.List) else dtype


def _kind(dtype: pl.DataType | DataTypeClass) -> Kind | None:
    if isinstance(dtype, TEXT):
        return "text"
    if dtype == pl.Boolean:
        return "boolean"
    return "number" if dtype.is_numeric() else None


def _column(column: pl.Series, kind: Kind) -> Column:
    several = isinstance(column.dtype, pl.List)
    if several:  # an item counts once for a value, however often its list has it
        column = column.list.unique().explode(empty_as_null=False)
    column = column.drop_nulls()
    if kind == "number":
        numbers = column.cast(pl.Float64).to_numpy()
        finite = numbers[np.isfinite(numbers)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (None, None)
        return Column(name=column.name, kind=kind, several=several, distinct=column.n_unique(), min=low, max=high)
    values = (column.cast(pl.String) if kind == "text" else column).to_frame("value")
    counted = values.group_by("value").len("items").sort("items", "value", descending=[True, False])
    shown = counted.filter(pl.col("value").str.len_chars() <= LONGEST_VALUE) if kind == "text" else counted
    listed = [ColumnValue(**row) for row in shown.head(MOST_VALUES).to_dicts()]
    return Column(name=column.name, kind=kind, several=several, distinct=counted.height, values=listed)


def _is_value(value: Any) -> bool:
    """Whether there is a value, and JSON can carry it."""
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))

"""Filters on the metadata of items, as a mask that the search obeys inside its beams.

A filter names columns of the catalogue, and for each a value, a list of values of which one must hold, or a range
`{"min": ..., "max": ...}` (either may be absent, both are included). A column of lists holds if any of its entries
does. An item without a value never passes.
"""

import json
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.datatypes import DataTypeClass

from catalign.errors import UserError

Value: TypeAlias = str | int | float | bool
Condition: TypeAlias = Value | list[Value] | dict[str, int | float]
Filters: TypeAlias = Mapping[str, Condition]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

TEXT = (pl.String, pl.Categorical, pl.Enum)


def filter_key(filters: Filters) -> str:
    """The same text for the same filters."""
    return json.dumps(filters, sort_keys=True)


def items_passing(metadata: pl.DataFrame | None, items: int, filters: Filters) -> BoolArray:
    """[items]; which pass every condition.

    Raises:
        UserError: a column that the catalogue does not have or that cannot be filtered, or a value of another type.
    """
    if not filters:
        return np.ones(items, dtype=np.bool_)
    if metadata is None:
        raise UserError("the catalogue of this run has no metadata", where="filters", mend="leave the filters out")
    conditions = [_condition(metadata, name, condition) for name, condition in filters.items()]
    mask: BoolArray = metadata.select(pl.all_horizontal(conditions).fill_null(False)).to_series().to_numpy()
    return mask


def _condition(metadata: pl.DataFrame, name: str, condition: Condition) -> pl.Expr:
    """One condition as an expression."""
    where = f"filters, {name!r}"
    if name not in metadata.columns:
        known = ", ".join(metadata.columns)
        raise UserError("the catalogue has no such column", where=where, mend=f"it has {known}")
    dtype, column = metadata.schema[name], pl.col(name)
    listed = isinstance(dtype, pl.List)
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    if isinstance(condition, dict):
        if listed or not inner.is_numeric():
            raise UserError(f"a range needs numbers, this column holds {dtype}", where=where)
        unknown = condition.keys() - {"min", "max"}
        if unknown or not condition:
            raise UserError('a range has "min", "max" or both', where=where)
        bounds = []
        if "min" in condition:
            bounds.append(column >= condition["min"])
        if "max" in condition:
            bounds.append(column <= condition["max"])
        return pl.all_horizontal(bounds)
    values = condition if isinstance(condition, list) else [condition]
    for value in values:
        _check_value(value, inner, where)
    among = pl.Series(values, dtype=pl.String if isinstance(inner, TEXT) else None, strict=False).implode()
    if listed:
        return column.list.set_intersection(pl.lit(among.cast(pl.List(inner)))).list.len() > 0
    if isinstance(inner, TEXT):
        column = column.cast(pl.String)
    return column.is_in(pl.lit(among))


def _check_value(value: Value, dtype: pl.DataType | DataTypeClass, where: str) -> None:
    """Refuse a value that a column of this type cannot hold."""
    if isinstance(dtype, TEXT):
        fits, kind = isinstance(value, str), "text"
    elif dtype == pl.Boolean:
        fits, kind = isinstance(value, bool), "true or false"
    elif dtype.is_numeric():
        fits, kind = isinstance(value, int | float) and not isinstance(value, bool), "numbers"
    else:
        raise UserError(f"a column of {dtype} cannot be filtered", where=where)
    if not fits:
        raise UserError(f"holds {kind}, not {json.dumps(value)}", where=where)

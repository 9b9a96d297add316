"""One column of a request at a time: texts, numbers or lists as they are found in files, and what is wrong with them.

Every function returns two series of the rows' length: the values as they are computed with, and a reason (text) where a
row cannot be answered, null elsewhere.
"""

import json
from collections.abc import Collection
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from catalign.catalogue.catalogue import Catalogue
from catalign.catalogue.filters import Condition, filter_key, items_passing
from catalign.errors import UserError

Checked = tuple[pl.Series, pl.Series]

_FILTERS: TypeAdapter[dict[str, Condition]] = TypeAdapter(dict[str, Condition])
_SHOWN = 100  # characters of a value that a reason repeats
_FILTERS_KEPT = 10_000


def read_users(column: pl.Series) -> Checked:
    """Keys as text; an empty one is refused."""
    user = column.cast(pl.String)
    return user, _reasons(user.fill_null("") == "", "is empty")


def read_items(column: pl.Series, catalogue: Catalogue, delimiter: str) -> Checked:
    """Lists of item indices, List(UInt32), null where the row says nothing.

    Args:
        column: lists of ids or titles; or text: a JSON list if it begins with `[`, else items between delimiters.
        catalogue: the items that there are.
        delimiter: stands between items.

    Raises:
        UserError: the column holds neither lists of texts or whole numbers nor text.
    """
    lists, broken = _lists(column, delimiter)
    length = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
    text = lists.explode(empty_as_null=False, keep_nulls=False)
    index = catalogue.find_all(text)
    offsets = pa.array(np.concatenate([[0], np.cumsum(length)]), pa.int64())
    found = pl.Series(pa.LargeListArray.from_arrays(offsets, index.to_arrow()), dtype=pl.List(pl.UInt32))
    unknown = pl.DataFrame({"row": np.repeat(np.arange(len(length)), length), "text": text}).filter(index.is_null())
    first = unknown.unique("row", keep="first", maintain_order=True).with_columns(pl.col("text").str.head(_SHOWN))
    named = pl.format('no item has the id or title "{}"', "text")
    reasons = first.select(
        "row", reason=pl.when(pl.col("text").is_null()).then(pl.lit("holds a null")).otherwise(named)
    )
    rows = pl.DataFrame({"row": np.arange(len(length)), "found": found, "silent": lists.is_null(), "broken": broken})
    joined = rows.join(reasons, on="row", how="left", maintain_order="left").select(
        pl.when("silent").then(None).otherwise("found").alias("found"),
        pl.when("broken").then(pl.lit("is no JSON list of texts or whole numbers")).otherwise("reason").alias("reason"),
    )
    return joined["found"], joined["reason"]


def read_history(column: pl.Series, catalogue: Catalogue, delimiter: str) -> Checked:
    """As `read_items`; an empty one is refused."""
    items, reason = read_items(column, catalogue, delimiter)
    return items, first_reason(reason, _reasons(items.list.len().fill_null(0) == 0, "is empty"))


def read_candidates(column: pl.Series, catalogue: Catalogue, delimiter: str) -> Checked:
    """As `read_items`; a list of nothing is refused, no list means everything."""
    items, reason = read_items(column, catalogue, delimiter)
    return items, first_reason(reason, _reasons(items.list.len() == 0, "names no item"))


def read_counts(column: pl.Series, default: int, most: int) -> Checked:
    """Whole numbers from 1 to `most`, UInt32, the default where a row says nothing."""
    if column.dtype.is_float():  # a column of whole numbers with gaps, as pandas writes it
        column = column.fill_nan(None)
    number = pl.col("text").cast(pl.Float64, strict=False)
    fits = ((number == number.floor()) & number.is_between(1, most)).fill_null(False)
    reason = pl.format("{} is no whole number from 1 to {}", pl.col("text").str.head(_SHOWN), pl.lit(most))
    read = _text(column).to_frame("text").select(
        value=pl.when(fits).then(number).otherwise(pl.lit(default, pl.Float64)).cast(pl.UInt32),
        reason=pl.when(pl.col("text").is_not_null() & ~fits).then(reason),
    )  # fmt: skip
    return read["value"], read["reason"]


def read_filters(column: pl.Series, catalogue: Catalogue) -> Checked:
    """Filters (JSON) in one form for all that mean the same, null where there are none; see `catalogue.filters`."""
    text = _text(column)
    distinct = text.drop_nulls().unique()
    read = [_filter(catalogue, value) for value in distinct]
    key, reason = (pl.Series([one[part] for one in read], dtype=pl.String) for part in (0, 1))
    options: dict[str, Any] = {"default": None, "return_dtype": pl.String}
    return text.replace_strict(distinct, key, **options), text.replace_strict(distinct, reason, **options)


def read_catalogues(column: pl.Series, known: Collection[str]) -> Checked:
    """Names of catalogues, null where a row says nothing."""
    name = _text(column)
    there = f"there are {', '.join(known)}" if known else "name one with --catalogue NAME=FILE"
    return name, _reasons(~name.is_in(list(known)), f"no catalogue has this name; {there}")


@lru_cache(maxsize=_FILTERS_KEPT)
def _filter(catalogue: Catalogue, text: str) -> tuple[str | None, str | None]:
    """The key of a filter, None where it asks for nothing, and what is wrong with it."""
    try:
        filters = _FILTERS.validate_python(json.loads(text), strict=True)
        items_passing(None if catalogue.metadata is None else catalogue.metadata.head(0), 0, filters)
    except (ValueError, RecursionError) as error:
        what = "no object of columns with values, lists or ranges" if isinstance(error, ValidationError) else "no JSON"
        return None, f"is {what}: {text[:_SHOWN]}"
    except UserError as error:
        return None, str(error).removeprefix("filters").lstrip(",: ")
    return filter_key(filters) if filters else None, None


def _lists(column: pl.Series, delimiter: str) -> tuple[pl.Series, pl.Series]:
    """Lists of texts, null where a row says nothing, and whether a row is a broken list."""
    kind = column.dtype
    if isinstance(kind, pl.List):
        if not (kind.inner.is_integer() or isinstance(kind.inner, pl.String | pl.Null | pl.Categorical | pl.Enum)):
            raise UserError(f"the column {column.name!r} holds {kind}", mend="give lists of ids or titles, or text")
        return column.cast(pl.List(pl.String)), pl.Series([False], dtype=pl.Boolean).new_from_index(0, len(column))
    rows = _text(column).to_frame("text").with_columns(
        json=pl.when(pl.col("text").str.starts_with("[")).then("text"),
        parts=pl.col("text").str.split(delimiter).list.eval(pl.element().str.strip_chars())
        .list.eval(pl.element().filter(pl.element() != "")),
    )  # fmt: skip
    rows = rows.with_columns(_json_lists(rows["json"]).alias("read"))
    rows = rows.select(
        lists=pl.when(pl.col("json").is_null()).then("parts").otherwise("read"),
        broken=pl.col("json").is_not_null() & pl.col("read").is_null(),
    )
    return rows["lists"], rows["broken"]


def _json_lists(text: pl.Series) -> pl.Series:
    """JSON lists of texts or whole numbers as lists of texts; null where a text is something else."""
    try:
        return text.str.json_decode(pl.List(pl.String))
    except pl.exceptions.PolarsError:  # some row is broken: which?
        return pl.Series([None if one is None else _json_list(one) for one in text], dtype=pl.List(pl.String))


def _json_list(text: str) -> list[str | None] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(entry, str | int | None) for entry in value):
        return None
    return [None if entry is None else str(entry) for entry in value]


def _text(column: pl.Series) -> pl.Series:
    """Texts without space around them; null where nothing is left."""
    text = column.cast(pl.String).str.strip_chars()
    return text.to_frame("text").select(pl.when(pl.col("text") != "").then("text"))["text"]


def _reasons(wrong: pl.Series, reason: str) -> pl.Series:
    """A reason where something is wrong, null elsewhere."""
    return wrong.to_frame("wrong").select(pl.when("wrong").then(pl.lit(reason)).alias("reason"))["reason"]


def first_reason(*reasons: pl.Series) -> pl.Series:
    """For each row the first reason that there is."""
    named = [reason.alias(str(number)) for number, reason in enumerate(reasons)]
    return pl.DataFrame(named).select(pl.coalesce(pl.all()).alias("reason"))["reason"]

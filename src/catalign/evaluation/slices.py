"""Kinds of windows, to see where a method wins and loses.

A slice is a name and the windows that belong to it; a window may lie in several (a target with two categories).

Shapes: W windows, I items.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.errors import UserError

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Slices = dict[str, Bools]
"""Name of a slice to whether each window belongs to it [W], in the order of printing; none is empty."""

HISTORY_LENGTHS = ((1, 3), (4, 5), (6, 9), (10, None))
VALUES = 12  # of a metadata column that are shown each by itself
BY = ("warm", "history-length", "popularity", "repeat", "duplicate-title")


def slices_of_windows(by: str, windows: pl.DataFrame, items: pl.DataFrame, training_counts_I: Ints) -> Slices:
    """Divide windows.

    - `warm`: whether the target occurs in training.
    - `history-length`: how many items the history has, `HISTORY_LENGTHS`.
    - `popularity`: the decile of the target among the items that occur in training, by training count, the tenth the
      most popular; items with equal counts share a decile; cold targets apart.
    - `repeat`: whether the target stands in the history.
    - `duplicate-title`: whether another item has the target's title, so that a text cannot tell them apart.
    - a metadata column of the items: its value for the target; the `VALUES` most frequent, numbers in quarters.

    Args:
        by: one of `BY`, or a column of `items`.
        windows: `history` and `target`.
        items: `title` and metadata.
        training_counts_I: occurrences of each item in training.

    Raises:
        UserError: no such slices.
    """
    target_W = windows["target"].to_numpy().astype(np.int64)
    if by == "warm":
        warm_W = training_counts_I[target_W] > 0
        found = {"warm": warm_W, "cold": ~warm_W}
    elif by == "history-length":
        found = _by_length(windows["history"].list.len().to_numpy().astype(np.int64))
    elif by == "popularity":
        found = _by_popularity(target_W, training_counts_I)
    elif by == "repeat":
        repeat_W = repeated(windows)
        found = {"repeat": repeat_W, "new": ~repeat_W}
    elif by == "duplicate-title":
        shared_W = items["title"].is_duplicated().to_numpy()[target_W]
        found = {"shared title": shared_W, "title of its own": ~shared_W}
    elif by in items.columns and by not in ("item_id", "title"):
        found = _by_value(items[by].gather(target_W))
    else:
        known = ", ".join([*BY, *(name for name in items.columns if name not in ("item_id", "title"))])
        raise UserError(f"no such slices: {by}", where="--by", mend=f"choose from {known}")
    return {name: mask_W for name, mask_W in found.items() if mask_W.any()}


def repeated(windows: pl.DataFrame) -> Bools:
    """Return whether the target of each window stands in its history, bool [W]."""
    repeat_W: Bools = windows.select(pl.col("history").list.contains(pl.col("target"))).to_series().to_numpy()
    return repeat_W


def deciles(training_counts_I: Ints) -> Ints:
    """Return the popularity decile of each item, 1 (rarest) to 10, 0 for items that never occur in training, int64 [I].

    By mean rank among the items that do occur, so items with equal counts share a decile and some may be empty.

    >>> deciles(np.array([0, 1, 1, 2, 50])).tolist()  # mean ranks 1.5, 1.5, 3 and 4 of 4
    [0, 4, 4, 8, 10]
    """
    count_P = np.sort(training_counts_I[training_counts_I > 0])
    below_I = np.searchsorted(count_P, training_counts_I, side="left")
    rank_I = (below_I + np.searchsorted(count_P, training_counts_I, side="right") + 1) / 2
    decile_I: Ints = np.ceil(10 * rank_I / max(len(count_P), 1)).astype(np.int64)
    return np.where(training_counts_I > 0, decile_I, 0)


def _by_popularity(target_W: Ints, training_counts_I: Ints) -> Slices:
    decile_I = deciles(training_counts_I)
    slices = {"cold": decile_I[target_W] == 0}
    for decile in np.unique(decile_I[decile_I > 0]).tolist():
        counts = training_counts_I[decile_I == decile]
        slices[f"decile {decile}: {_range(int(counts.min()), int(counts.max()))} times"] = decile_I[target_W] == decile
    return slices


def _by_length(length_W: Ints) -> Slices:
    longest = int(length_W.max(initial=0))
    return {
        f"history {_range(low, longest if high is None else high)}": (length_W >= low) & (length_W <= (high or longest))
        for low, high in HISTORY_LENGTHS
    }


def _by_value(value: pl.Series) -> Slices:
    """By the values of a metadata column; of a list every value counts."""
    if value.dtype.is_numeric() and value.n_unique() > VALUES:
        return _by_quarter(value)
    rows = pl.DataFrame({"window": np.arange(len(value)), "value": value})
    if isinstance(value.dtype, pl.List):
        rows = rows.explode("value", empty_as_null=True)
    if isinstance(rows["value"].dtype, pl.List | pl.Struct | pl.Array):
        raise UserError("holds neither texts nor numbers", where=f"the column {value.name}", mend="choose another")
    rows = rows.with_columns(pl.col("value").cast(pl.String).fill_null("unknown"))
    frequent = rows.group_by("value").len().sort("len", "value", descending=[True, False])["value"].head(VALUES)
    rows = rows.with_columns(value=pl.when(pl.col("value").is_in(frequent.implode())).then("value").otherwise(None))
    slices = {}
    for name in [*frequent, None]:
        mask_W = np.zeros(len(value), dtype=np.bool_)
        mask_W[rows.filter(pl.col("value").eq_missing(name))["window"].to_numpy()] = True
        slices["other" if name is None else str(name)] = mask_W
    return slices


def _by_quarter(value: pl.Series) -> Slices:
    """A number in four parts of about as many windows."""
    value_W = value.cast(pl.Float64).to_numpy()
    known_W = ~np.isnan(value_W)
    edges = np.unique(np.quantile(value_W[known_W], [0, 0.25, 0.5, 0.75, 1]))
    part_W = np.clip(np.searchsorted(edges, value_W, side="right") - 1, 0, len(edges) - 2)
    slices = {f"{edges[part]:g} – {edges[part + 1]:g}": known_W & (part_W == part) for part in range(len(edges) - 1)}
    return {**slices, "unknown": ~known_W}


def _range(low: int, high: int) -> str:
    """`3`, or `1-3`."""
    return str(low) if low >= high else f"{low}-{high}"

"""What the published window layouts share: tables by split, lists of ids in texts, validation where none is given."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from catalign.data.cleaning import as_milliseconds, as_text
from catalign.data.ledger import Ledger
from catalign.data.options import Table
from catalign.data.sources.folders import TABLE_ENDINGS, choose, files_in, table_named
from catalign.data.splits import SPLIT_TYPE, cut_instants
from catalign.data.streams import line_blocks
from catalign.data.tables import column_names, read_table
from catalign.errors import UserError

SPLIT_NAMES = {"train": ("train",), "valid": ("valid", "val", "dev"), "test": ("test",)}
"""What the tables of a split are called."""

_VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class PublishedWindows:
    """A published data set.

    Attributes:
        items: `item_id`, `title`, `file`, `row`.
        windows: `user_id`, `history` (list of ids), `target` (id), `timestamp` (ms or null), `split`, `file`, `row`, in
            the order of the files, training first.
        paths: the files read.
        split_rule: how the splits came about, in words.
        warnings: what a reader of results should know.
    """

    items: pl.DataFrame
    windows: pl.DataFrame
    paths: list[Path]
    split_rule: str
    warnings: list[str] = field(default_factory=list)


def split_tables(folder: Path, *, train_file: str | None, name: str | None) -> dict[str, Path]:
    """Find the tables of windows: `train.csv`, or `train/train.csv`, or the only `train_10000.csv` or `train/X.csv`.

    Args:
        folder: where they lie; validation may be missing, or stand under `val` or beside the training table.
        train_file: the training table, if not the usual one.
        name: of one of several sets, `train/NAME.csv`.

    Raises:
        UserError: training or test is missing, or several tables fit.
    """
    tables = {
        split: _split_table(folder, split, name) for split in SPLIT_NAMES if not (split == "train" and train_file)
    }
    if train_file is not None:
        tables = {"train": folder / train_file, **tables}
    for split in ("train", "test"):
        if tables[split] is None:
            raise UserError(f"there is no {split}.csv", where=folder, mend=_MEND[split])
    return {split: path for split, path in tables.items() if path is not None}


_MEND = {
    "train": "name the training table: --train-file (none is there)",
    "test": "without test windows there is nothing to measure: put it beside the training table",
}


def _split_table(folder: Path, split: str, name: str | None) -> Path | None:
    for stem in SPLIT_NAMES[split]:
        for place in (folder, folder / stem, folder / "train"):
            path = table_named(place, stem)
            if path is not None:
                return path
    for stem in SPLIT_NAMES[split]:
        sets = {_stem(file): path for file, path in files_in(folder / stem).items() if file.endswith(TABLE_ENDINGS)}
        if sets:
            return sets[choose(list(sets), name, folder / stem, "tables")]
        parts = {file: path for file, path in files_in(folder).items()
                 if re.match(rf"{stem}[._-]", file) and file.endswith(TABLE_ENDINGS)}  # fmt: skip
        if len(parts) > 1:
            found = ", ".join(path.name for path in parts.values())
            how = f"name the training table: --train-file ({found})" if split == "train" else f"keep one of {found}"
            raise UserError(f"there is no {stem}.csv", where=folder, mend=how)
        if parts:
            return next(iter(parts.values()))
    return None


def _stem(file: str) -> str:
    return file.rpartition(".")[0]


def list_of_ids(text: pl.Expr) -> pl.Expr:
    """Read `[12, 7]`, `['B01', 'B02']` or `[12 7]` as a list of texts; of pairs `[(12, 5), (7, 3)]` the first."""
    return text.str.replace_all(r"\(\s*([^\s,()]+)\s*,[^()]*\)", "$1").str.extract_all(r"""[^\s,'"\[\]()]+""")


def read_window_table(
    path: Path,
    columns: Mapping[str, str],
    windows: tuple[pl.Expr, pl.Expr],
    split: str,
    ledger: Ledger,
    *,
    user: str | None = "user_id",
) -> pl.DataFrame:
    """Read a table of windows.

    Args:
        path: the table.
        columns: name that `windows` uses -> name in the file.
        windows: the history (a list of texts) and the target (text).
        split: that the windows belong to.
        ledger: counts rows under `windows`.
        user: the column of the user; None: there is none, and every row is a user of its own.

    Returns:
        As `PublishedWindows.windows`.
    """
    table = Table.of(path)
    timed = "timestamp" in column_names(table)
    columns = {**columns, **({"user_id": user} if user else {}), **({"time": "timestamp"} if timed else {})}
    read = read_table(table, columns, table_name="windows", ledger=ledger, lists=columns)
    read = read.with_columns(_as_written(read[name]) for name in columns if name != "time")
    times = as_milliseconds(read["time"]) if timed else pl.Series([None] * read.height, dtype=pl.Int64)
    history, target = windows
    return read.select(
        as_text(pl.col("user_id")) if user else pl.format("{}-{}", pl.lit(split), "row").alias("user_id"),
        history.alias("history"),
        target.alias("target"),
        times.alias("timestamp"),
        pl.lit(split, dtype=SPLIT_TYPE).alias("split"),
        "file",
        "row",
    )


def _as_written(column: pl.Series) -> pl.Series:
    """Lists and numbers of Parquet files as CSV has them."""
    is_list = isinstance(column.dtype, pl.List)
    return column.cast(pl.List(pl.String)).list.join(" ") if is_list else column.cast(pl.String)


def gathered(
    items: pl.DataFrame, titles: Path, parts: Mapping[str, pl.DataFrame], paths: Mapping[str, Path], *warnings: str
) -> PublishedWindows:
    """Put the splits together; validation is cut from training where none is published.

    Args:
        items: as `PublishedWindows.items`.
        titles: the file that they come from.
        parts: the windows of each split.
        paths: the file of each split.
        warnings: what a reader of results should know.
    """
    parts = dict(parts)
    rule = f"as published ({', '.join(path.name for path in paths.values())})"
    told = list(warnings)
    if parts["train"].is_empty():
        raise UserError("no window is left", where=paths["train"], mend="check that it is a table of windows")
    if "valid" not in parts:
        parts["train"], note, more = cut_validation(parts["train"])
        rule, told = f"{rule}; {note}", [*told, *more]
    windows = pl.concat([parts[split] for split in SPLIT_NAMES if split in parts])
    return PublishedWindows(items, windows, list(dict.fromkeys([titles, *paths.values()])), rule, told)


def cut_validation(train: pl.DataFrame) -> tuple[pl.DataFrame, str, list[str]]:
    """Take validation windows from training where none are published.

    With timestamps the last tenth of the time-ordered windows; without them the last users of the file, whole, until
    they hold a tenth of the windows.

    Returns:
        The windows with their new split, the rule in words, warnings.
    """
    share = _VALIDATION_SHARE
    if train["timestamp"].null_count() == 0:
        (instant,) = cut_instants(train["timestamp"], (1 - share, share))
        held_out = pl.col("timestamp") >= instant
        rule, warnings = "validation is the last tenth of the training windows by time", []
    else:
        users = (
            train["user_id"]
            .value_counts(name="windows")
            .join(train.select("user_id").unique(maintain_order=True).with_row_index("order"), on="user_id")
            .sort("order", descending=True)
        )
        last = users.filter(pl.col("windows").cum_sum() <= share * train.height)["user_id"]
        held_out = pl.col("user_id").is_in(last.implode())
        rule = "validation is the last users of the training table, whole, with a tenth of its windows"
        warnings = ["the training table has no timestamps: validation was cut by user, not by time"]
    split = pl.when(held_out).then(pl.lit("valid", dtype=SPLIT_TYPE)).otherwise("split")
    return train.with_columns(split.alias("split")), rule, warnings


def titles_by_line(path: Path, pattern: str, ledger: Ledger, *, encoding: str = "utf-8") -> pl.DataFrame:
    """Read a file of titles line by line, as `PublishedWindows.items`.

    Args:
        path: the file, gzipped or not.
        pattern: a regular expression with the groups `item_id` and `title`.
        ledger: counts the lines under `items`, and those that the pattern does not fit.
        encoding: of the file.
    """
    lines = [line for block in line_blocks(path, encoding) for line in block]
    text = pl.DataFrame({"text": lines}, schema={"text": pl.String}).with_row_index("row", offset=1)
    text = text.with_columns(pl.col("text").str.strip_suffix("\r"), file=pl.lit(path.name, dtype=pl.Categorical))
    text = text.filter(pl.col("text").str.strip_chars() != "").with_columns(
        parts=pl.col("text").str.extract_groups(pattern)
    )
    ledger.enter("items", text.height)
    text = text.select("text", "parts", "file", "row")
    text = ledger.drop("items", text, pl.col("parts").struct["item_id"].is_null(), "not a line of id and title")
    return text.unnest("parts").select("item_id", "title", "file", "row")

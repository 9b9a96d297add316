"""The published window layouts, read as they are.

`msl`: the layout of MSL (arXiv 2504.04178) and its follow-ups: `train*.csv`, `test.csv` with `user_id`, `item_ids` (the
text of a list whose last id is the target) and `timestamp`, and `id2name4Rec.json`, id -> title.
`d3`: the layout of the BIGRec / D3 family: `train.csv`, `valid.csv`, `test.csv` with `user_id`, `history_item_id` (the
text of a list), `item_id` and `timestamp`, and `info.txt`, lines of title, TAB, id.
`dmpo`: the few-shot files of DMPO, read by `fewshot.py`.
Every table of `msl` and `d3` may be gzipped. `shop` and `movielens` are folders of two plain tables under their usual
names.
"""

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from catalign.data.cleaning import as_milliseconds, as_text
from catalign.data.fewshot import ANY_SFT_FILE
from catalign.data.ledger import Ledger
from catalign.data.options import Table, TableSource
from catalign.data.splits import SPLIT_TYPE, cut_instants
from catalign.data.tables import column_names, read_table
from catalign.errors import UserError
from catalign.files import read_json

WINDOW_LAYOUTS = ("msl", "d3")
FEWSHOT = "dmpo"
LAYOUTS = (*WINDOW_LAYOUTS, FEWSHOT, "shop", "movielens")
_TITLES = {"msl": "id2name4Rec.json", "d3": "info.txt"}
_MSL_VALIDATION_SHARE = 0.1


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


def recognise(folder: Path) -> str:
    """Return the name of the layout that `folder` is in.

    Raises:
        UserError: it is no folder, or in none of them.
    """
    if not folder.is_dir():
        raise UserError("no such folder", where=folder, mend="pass tables with --interactions and --items")
    for layout, titles in _TITLES.items():
        if (folder / titles).is_file():
            return layout
    if any(folder.glob(ANY_SFT_FILE)):
        return FEWSHOT
    if (folder / "ratings.csv").is_file() and (folder / "movies.csv").is_file():
        return "movielens"
    if (folder / "interactions.csv").is_file() and (folder / "items.csv").is_file():
        return "shop"
    raise UserError(
        "is in no known layout",
        where=folder,
        mend="pass --interactions and --items with the names of their columns (known: id2name4Rec.json or info.txt "
        "beside train, valid and test tables; rec_*_sft_ranking.json; interactions.csv with items.csv; "
        "ratings.csv with movies.csv)",
    )


def table_source(folder: Path, layout: str) -> TableSource:
    """Return the tables of a folder in the layout `shop` or `movielens`.

    Raises:
        UserError: a table is missing.
    """
    if layout == "movielens":
        return TableSource(
            interactions=Table.of(folder / "ratings.csv"), items=Table.of(folder / "movies.csv"),
            user="userId", item="movieId", time="timestamp", rating="rating",
            item_id="movieId", title="title", metadata=["genres"],
        )  # fmt: skip
    interactions, items = Table.of(folder / "interactions.csv"), Table.of(folder / "items.csv")
    return TableSource(
        interactions=interactions, user="user_id", item="item_id", time="timestamp",
        rating="rating" if "rating" in column_names(interactions) else None,
        items=items, item_id="item_id", title="title",
        metadata=[name for name in column_names(items) if name not in ("item_id", "title")],
    )  # fmt: skip


def read_windows(folder: Path, layout: str, ledger: Ledger, *, train_file: str | None = None) -> PublishedWindows:
    """Read a folder in the layout `msl` or `d3`.

    Args:
        folder: where the files lie.
        layout: `msl` or `d3`.
        ledger: counts rows under `items` and `windows`.
        train_file: name of the training table, if not the usual one.

    Raises:
        UserError: a file or column is missing or unreadable.
    """
    train = _training_table(folder, train_file)
    valid, test = _table(folder, "valid"), _table(folder, "test")
    if test is None:
        raise UserError("there is no test.csv", where=folder)
    titles = folder / _TITLES[layout]
    if layout == "msl":
        items, read = _read_names(titles, ledger), _read_msl_table
    else:
        items, read = _read_info(titles, ledger), _read_d3_table
    named = {"train": train, "valid": valid, "test": test}
    paths = {split: path for split, path in named.items() if path is not None}
    parts = {split: read(path, split, ledger) for split, path in paths.items()}
    warnings: list[str] = []
    rule = f"as published ({', '.join(path.name for path in paths.values())})"
    if valid is None:
        parts["train"], note, warnings = _cut_validation(parts["train"])
        rule = f"{rule}; {note}"
    return PublishedWindows(items, pl.concat(parts.values()), [titles, *paths.values()], rule, warnings)


def _table(folder: Path, stem: str) -> Path | None:
    """Return `stem.csv` or `stem.csv.gz`, whichever is there."""
    return next((path for path in (folder / f"{stem}.csv", folder / f"{stem}.csv.gz") if path.is_file()), None)


def _training_table(folder: Path, name: str | None) -> Path:
    if name is not None:
        return folder / name
    usual = _table(folder, "train")
    others = sorted(folder.glob("train*.csv")) + sorted(folder.glob("train*.csv.gz"))
    if usual is None and len(others) != 1:
        found = ", ".join(path.name for path in others) or "none is there"
        raise UserError("there is no train.csv", where=folder, mend=f"name the training table: --train-file ({found})")
    return usual or others[0]


def _read_names(path: Path, ledger: Ledger) -> pl.DataFrame:
    names = read_json(path)
    if not isinstance(names, dict) or not all(isinstance(title, str) for title in names.values()):
        raise UserError("is not a JSON object of id and title", where=path)
    frame = pl.DataFrame(
        {"item_id": list(names.keys()), "title": list(names.values())},
        schema_overrides={"item_id": pl.String, "title": pl.String},
    )
    return _entered(frame.with_row_index("row", offset=1), path, ledger)


def _read_info(path: Path, ledger: Ledger) -> pl.DataFrame:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text ({error})", where=path) from error
    text = pl.DataFrame({"line": lines}).with_row_index("row", offset=1).filter(pl.col("line").str.strip_chars() != "")
    parts = pl.col("line").str.strip_suffix("\r").str.extract_groups(r"^(.*)\t([^\t]*)$")
    return _entered(text.select("row", item_id=parts.struct[1], title=parts.struct[0]), path, ledger)


def _entered(frame: pl.DataFrame, path: Path, ledger: Ledger) -> pl.DataFrame:
    ledger.enter("items", frame.height)
    return frame.with_columns(file=pl.lit(path.name, dtype=pl.Categorical))


def _list_of_ids(text: pl.Expr) -> pl.Expr:
    """Read `[12, 7]` or `['B01', 'B02']` as a list of texts."""
    bare = text.str.strip_chars().str.strip_chars("[]").str.replace_all(r"""[\s'"]""", "")
    return pl.when(bare != "").then(bare.str.split(",")).otherwise(pl.lit([], dtype=pl.List(pl.String)))


def _read_msl_table(path: Path, split: str, ledger: Ledger) -> pl.DataFrame:
    ids = _list_of_ids(pl.col("ids"))
    history = ids.list.head(ids.list.len().cast(pl.Int64) - 1)
    return _read_window_table(path, {"ids": "item_ids"}, history, ids.list.last(), split, ledger)


def _read_d3_table(path: Path, split: str, ledger: Ledger) -> pl.DataFrame:
    columns = {"ids": "history_item_id", "next": "item_id"}
    return _read_window_table(path, columns, _list_of_ids(pl.col("ids")), as_text(pl.col("next")), split, ledger)


def _read_window_table(
    path: Path, columns: dict[str, str], history: pl.Expr, target: pl.Expr, split: str, ledger: Ledger
) -> pl.DataFrame:
    table = Table.of(path)
    timed = "timestamp" in column_names(table)
    columns = {"user_id": "user_id", **columns, **({"time": "timestamp"} if timed else {})}
    read = read_table(table, columns, table_name="windows", ledger=ledger)
    times = as_milliseconds(read["time"]) if timed else pl.Series([None] * read.height, dtype=pl.Int64)
    return read.select(
        as_text(pl.col("user_id")),
        history.alias("history"),
        target.alias("target"),
        times.alias("timestamp"),
        pl.lit(split, dtype=SPLIT_TYPE).alias("split"),
        "file",
        "row",
    )


def _cut_validation(train: pl.DataFrame) -> tuple[pl.DataFrame, str, list[str]]:
    """Take validation windows from training where none are published.

    With timestamps the last tenth of the time-ordered windows; without them the last users of the file, whole, until
    they hold a tenth of the windows.

    Returns:
        The windows with their new split, the rule in words, warnings.
    """
    share = _MSL_VALIDATION_SHARE
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

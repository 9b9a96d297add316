"""The layout of LLaRA (arXiv 2312.02445) and S-DPO: `train_data`, `Val_data` and `Test_data`, and `id2name.txt`.

The published tables are pandas pickles (`train_data.df`). Reading a pickle runs what is in it, so they are not read:
write them as CSV (or Parquet) once, with pandas,

    pandas.read_pickle("train_data.df").to_csv("train_data.csv")

Of their columns `seq` (a list of ids, filled up to ten with an id that is no item; MovieLens: pairs of id and
rating), `len_seq` (how many of `seq` are items) and `next` (the target) are read. `id2name.txt` has lines of
`id::title`; MovieLens has `u.item` instead, whose ids are larger by one. The tables name no users, so every row is a
user of its own. LLaRA uses windows of at least three items of history only (`--min-history 3`) and writes MovieLens
titles without the year.
"""

from pathlib import Path

import polars as pl

from catalign.data.ledger import Ledger
from catalign.data.sources.folders import TABLE_ENDINGS, find, text_encoding
from catalign.data.sources.window_files import (
    PublishedWindows,
    gathered,
    list_of_ids,
    read_window_table,
    titles_by_line,
)
from catalign.data.streams import reading
from catalign.errors import UserError

_STEMS = {"train": "train_data", "valid": "val_data", "test": "test_data"}
_NAMES, _MOVIES = "id2name.txt", "u.item"
_NAME = r"^(?P<item_id>.*?)::(?P<title>.*)$"
_MOVIE = r"^(?P<item_id>[^|]*)\|(?P<title>[^|]*)\|"
_COLUMNS = {"ids": "seq", "length": "len_seq", "next": "next"}


def recognises(folder: Path) -> bool:
    """Whether the training table is there, as a pickle or not."""
    return find(folder, *_named(_STEMS["train"]), "train_data.df") is not None


def read(folder: Path, ledger: Ledger) -> PublishedWindows:
    """Read the windows and the titles; see the head of this module.

    Args:
        folder: where the files lie.
        ledger: counts rows under `items` and `windows`.

    Raises:
        UserError: a file or column is missing or unreadable, or only pickles are there.
    """
    paths = {split: path for split, stem in _STEMS.items() if (path := _table(folder, stem)) is not None}
    titles = find(folder, _NAMES, _MOVIES)
    if titles is None:
        raise UserError(f"there is no {_NAMES}", where=folder, mend="it has the titles: put it beside the tables")
    movies = titles.name.lower().startswith(_MOVIES)
    with reading(titles):
        items = titles_by_line(titles, _MOVIE if movies else _NAME, ledger, encoding=text_encoding(titles))
    if movies:
        items = items.with_columns((pl.col("item_id").cast(pl.Int64, strict=False) - 1).cast(pl.String))
    length = pl.col("length").cast(pl.Float64, strict=False).cast(pl.UInt32, strict=False)
    history = list_of_ids(pl.col("ids")).list.head(length)
    windows = history, list_of_ids(pl.col("next")).list.first()
    parts = {
        split: read_window_table(path, _COLUMNS, windows, split, ledger, user=None) for split, path in paths.items()
    }
    return gathered(items, titles, parts, paths, "the tables name no users: every window counts as a user of its own")


def _named(stem: str) -> list[str]:
    return [stem + ending for ending in TABLE_ENDINGS]


def _table(folder: Path, stem: str) -> Path | None:
    path = find(folder, *_named(stem))
    pickled = find(folder, f"{stem}.df")
    if path is None and pickled is not None:
        raise UserError(
            "is a pickle, which runs what is in it, so it is not read",
            where=pickled,
            mend=f"write it as CSV with pandas: pandas.read_pickle({pickled.name!r}).to_csv('{pickled.stem}.csv')",
        )
    if path is None and stem != _STEMS["valid"]:
        raise UserError(f"there is no {stem}.csv", where=folder)
    return path

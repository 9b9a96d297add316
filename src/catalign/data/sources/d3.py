"""The layout of BIGRec (arXiv 2308.08434), D3 (arXiv 2406.14900) and MiniOneRec (arXiv 2510.24431).

Three tables of windows, `train.csv`, `valid.csv`, `test.csv`, or of several sets `train/X.csv`, `valid/X.csv`,
`test/X.csv`; of their columns `user_id`, `history_item_id` (the text of a list), `item_id` and `timestamp` are read,
the last only where it is there (BIGRec's movies: `history_movie_id`, `movie_id`). The titles are

- D3: `info.txt` or `info/X.txt`, lines of title, TAB, id;
- MiniOneRec: the same files with lines of semantic id, TAB, title, TAB, id; semantic ids are not read;
- BIGRec: `id2name.txt`, lines of title, TAB, id; or MovieLens' `movies.dat`, lines of `id::title::genres`.

Titles inside the tables (`history_item_title`, `item_title`) are not read: they are those of the ids.
"""

from pathlib import Path

import polars as pl

from catalign.data.cleaning import as_text
from catalign.data.ledger import Ledger
from catalign.data.options import Table
from catalign.data.sources.folders import choose, column_like, files_in, find, text_encoding
from catalign.data.sources.window_files import (
    PublishedWindows,
    gathered,
    list_of_ids,
    read_window_table,
    split_tables,
    titles_by_line,
)
from catalign.data.streams import first_lines, reading
from catalign.data.tables import column_names, require_columns
from catalign.errors import UserError

_TITLE_AND_ID = r"^(?:(?:<[^<>\t]*>)+\t)?(?P<title>.*)\t(?P<item_id>[^\t]*)$"
_MOVIE = r"^(?P<item_id>.*?)::(?P<title>.*?)(?:::.*)?$"
_SEMANTIC_ID = "<"


def family(folder: Path) -> str | None:
    """Which of `d3`, `bigrec` and `minionerec` the folder is, if any."""
    infos = _infos(folder)
    if infos:
        with reading(next(iter(infos.values()))):
            first = first_lines(next(iter(infos.values())), "utf-8", 1)
        return "minionerec" if first and first[0].startswith(_SEMANTIC_ID) and first[0].count("\t") > 1 else "d3"
    if find(folder, "train.csv") is None:
        return None
    names = find(folder, "id2name.txt", "movies.dat")
    header = column_names(Table.of(find(folder, "train.csv") or folder))
    windows = column_like(header, "history_item_id", "history_movie_id") is not None
    return "bigrec" if names is not None and windows else None


def read(folder: Path, ledger: Ledger, *, train_file: str | None = None, name: str | None = None) -> PublishedWindows:
    """Read the windows and the titles; see the head of this module.

    Args:
        folder: where the files lie.
        ledger: counts rows under `items` and `windows`.
        train_file: name of the training table, if not the usual one.
        name: of one of several sets.

    Raises:
        UserError: a file or column is missing or unreadable, or several sets are there and none is named.
    """
    paths = split_tables(folder, train_file=train_file, name=name)
    titles = _titles_file(folder, name)
    movies = titles.name.lower().startswith("movies.dat")
    with reading(titles):
        pattern, encoding = (_MOVIE, text_encoding(titles)) if movies else (_TITLE_AND_ID, "utf-8")
        items = titles_by_line(titles, pattern, ledger, encoding=encoding)
    windows = list_of_ids(pl.col("ids")), as_text(pl.col("next"))
    parts = {split: read_window_table(path, _columns(path), windows, split, ledger) for split, path in paths.items()}
    return gathered(items, titles, parts, paths)


def _infos(folder: Path) -> dict[str, Path]:
    """The files of title and id by set."""
    own = find(folder, "info.txt")
    if own is not None:
        return {"info": own}
    return {
        file.removesuffix(".txt"): path for file, path in files_in(folder / "info").items() if file.endswith(".txt")
    }


def _titles_file(folder: Path, name: str | None) -> Path:
    infos = _infos(folder)
    if len(infos) == 1:
        return next(iter(infos.values()))
    if infos:
        return infos[choose(list(infos), name, folder / "info", "files of titles")]
    path = find(folder, "id2name.txt", "movies.dat")
    if path is None:
        raise UserError("there is no info.txt", where=folder, mend="it has the titles: put it beside the tables")
    return path


def _columns(path: Path) -> dict[str, str]:
    present = column_names(Table.of(path))
    what = "movie" if "history_movie_id" in present else "item"
    wanted = {"ids": f"history_{what}_id", "next": f"{what}_id"}
    require_columns(path, list(wanted.values()), present)
    return wanted

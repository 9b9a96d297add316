"""The layout of MSL (arXiv 2504.04178), SOFT (arXiv 2505.20771) and their follow-ups.

`train*.csv`, `test*.csv` and perhaps `valid*.csv` with `user_id`, `item_ids` (the text of a list whose last id is the
target) and `timestamp`; `id2name4Rec.json`, id -> title. SOFT has the tables in `train/` and `test/`.
"""

from pathlib import Path

import polars as pl

from catalign.data.json_tables import parse_json, read_document
from catalign.data.ledger import Ledger
from catalign.data.sources.folders import find, need
from catalign.data.sources.window_files import (
    PublishedWindows,
    gathered,
    list_of_ids,
    read_window_table,
    split_tables,
)
from catalign.errors import UserError

_TITLES = "id2name4Rec.json"


def recognises(folder: Path) -> bool:
    """Whether the titles are there."""
    return find(folder, _TITLES) is not None


def read(folder: Path, ledger: Ledger, *, train_file: str | None = None, name: str | None = None) -> PublishedWindows:
    """Read the windows and the titles; see the head of this module.

    Args:
        folder: where the files lie.
        ledger: counts rows under `items` and `windows`.
        train_file: name of the training table, if not the usual one.
        name: of one of several sets in the folders of the splits.

    Raises:
        UserError: a file or column is missing or unreadable.
    """
    paths = split_tables(folder, train_file=train_file, name=name)
    titles = need(folder, _TITLES)
    items = _read_names(titles, ledger)
    ids = list_of_ids(pl.col("ids"))
    windows = ids.list.head(ids.list.len().cast(pl.Int64) - 1), ids.list.last()
    parts = {
        split: read_window_table(path, {"ids": "item_ids"}, windows, split, ledger) for split, path in paths.items()
    }
    return gathered(items, titles, parts, paths)


def _read_names(path: Path, ledger: Ledger) -> pl.DataFrame:
    text = read_document(path)
    pairs = parse_json(text, path, pairs=True)
    if not text.lstrip().startswith("{") or any(isinstance(title, list | bool) for _, title in pairs):
        raise UserError("is not a JSON object of id and title", where=path)
    titles = [title if title is None else str(title) for _, title in pairs]  # 1984 is a title too
    frame = pl.DataFrame(
        {"item_id": [item for item, _ in pairs], "title": titles},
        schema_overrides={"item_id": pl.String, "title": pl.String},
    ).with_row_index("row", offset=1)
    ledger.enter("items", frame.height)
    return frame.with_columns(file=pl.lit(path.name, dtype=pl.Categorical))

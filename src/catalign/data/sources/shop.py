"""A folder of our own form: `interactions` and `items`, as CSV, TSV, JSON lines or Parquet.

The interactions have the columns `user_id`, `item_id`, `timestamp` and perhaps `rating`; the items `item_id` and
`title`, and every other column of theirs is kept. The sample store is written like this.
"""

from pathlib import Path

from catalign.data.options import Table, TableSource
from catalign.data.sources.folders import table_named
from catalign.data.tables import column_names
from catalign.errors import UserError


def recognises(folder: Path) -> bool:
    """Whether both tables are there."""
    return table_named(folder, "interactions") is not None and table_named(folder, "items") is not None


def source(folder: Path) -> TableSource:
    """The two tables.

    Raises:
        UserError: one of them is missing.
    """
    paths = {stem: table_named(folder, stem) for stem in ("interactions", "items")}
    absent = [stem for stem, path in paths.items() if path is None]
    if absent:
        raise UserError(f"there is no {absent[0]}.csv", where=folder)
    interactions, items = (Table.of(path) for path in paths.values() if path is not None)
    return TableSource(
        interactions=interactions, user="user_id", item="item_id", time="timestamp",
        rating="rating" if "rating" in column_names(interactions) else None,
        items=items, item_id="item_id", title="title",
        metadata=[column for column in column_names(items) if column not in ("", "item_id", "title")],
    )  # fmt: skip

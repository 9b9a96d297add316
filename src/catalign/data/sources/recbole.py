"""RecBole's atomic files: `X.inter` and `X.item`, tabs, no quotation marks, a header of `name:type`.

The user is the column `user_id` (or the first whose name begins with user, uid or session); the item is the id that
the item table has too (`item_id`, `business_id`, ...; Steam's `product_id` is `id` there); the time is `timestamp`; the
title is `title`, or the first column with title or name in it. Given splits (`X.train.inter`, `X.valid.inter`,
`X.test.inter`) are taken where there is no `X.inter`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catalign.data.options import Table, TableSource
from catalign.data.sources.folders import choose, files_in
from catalign.data.tables import column_names
from catalign.errors import UserError

_SPLITS = ("train", "valid", "test")
_TYPES = ("token", "token_seq", "float", "float_seq")
_METADATA = (
    "brand", "store", "category", "categories", "price", "genre", "genres", "class", "release_year", "year",
    "sales_type", "developer", "publisher", "artist", "author", "authors", "city",
)  # fmt: skip


def recognises(folder: Path) -> bool:
    """Whether there is a file of interactions."""
    return any(name.endswith(".inter") for name in files_in(folder))


def source(folder: Path, name: str | None = None) -> TableSource:
    """The interactions and the items of one set.

    Args:
        folder: where the files lie.
        name: the set, where there are several.

    Raises:
        UserError: a file or a column is missing, or several sets are there and none is named.
    """
    files = files_in(folder)
    stems = [file.removesuffix(".inter") for file in files if file.endswith(".inter")]
    sets = sorted({re.sub(r"\.(train|valid|test)$", "", stem) for stem in stems})
    short = choose(sets, name, folder, "sets of atomic files (.inter)")
    stem = short if short in stems else f"{short}.train"
    if f"{short}.item" not in files:
        raise UserError(
            f"there is no {short}.item", where=folder, mend="it has the titles: put it beside the interactions"
        )
    if stem != short and (missing := [part for part in _SPLITS if f"{short}.{part}.inter" not in files]):
        raise UserError(f"there is no {short}.{missing[0]}.inter", where=folder)
    log, items = _table(files[f"{stem}.inter"]), _table(files[f"{short}.item"])
    splits: dict[str, Any] = {}
    if stem != short:
        splits = {part: _table(files[f"{short}.{part}.inter"]) for part in ("valid", "test")}
        splits["defaults"] = {"split": "given"}
    return _source(log, items, splits)


def _table(path: Path) -> Table:
    return Table.of(path, delimiter="\t", quoted=False)


def _bare(columns: Sequence[str]) -> dict[str, str]:
    """Name without its type, in small letters -> name; the first of a name counts."""
    split = {name: name.rpartition(":") for name in columns}
    return {(bare if kind in _TYPES else name).lower(): name for name, (bare, _, kind) in reversed(split.items())}


def _source(log: Table, items: Table, splits: dict[str, Any]) -> TableSource:
    events, known = _bare(column_names(log)), _bare(column_names(items))
    user = _first(events, log, "a user", ("user_id",), ("user", "uid", "session"))
    item, item_id = _item_columns(events, known, user, log)
    title = next((known[bare] for bare in ("app_name", "title", "movie_title", "name") if bare in known), None) or next(
        (name for bare, name in known.items() if ("title" in bare or "name" in bare) and name != item_id), None
    )
    if title is None:
        raise UserError("has no column of titles", where=items, mend=f"the columns are: {', '.join(known.values())}")
    return TableSource(
        interactions=log, **splits, user=user, item=item,
        time=events.get("timestamp") or events.get("time") or events.get("date"), rating=events.get("rating"),
        items=items, item_id=item_id, title=title,
        metadata=[known[bare] for bare in _METADATA if bare in known and known[bare] != title],
    )  # fmt: skip


def _item_columns(events: dict[str, str], known: dict[str, str], user: str, log: Table) -> tuple[str, str]:
    """The columns of the item in the interactions and in the items; Steam has other things in both too."""
    first = list(known)[-1]  # `_bare` turns the order round
    ids = [bare for bare in events if bare.endswith("id") and events[bare] != user]
    shared = sorted((bare for bare in ids if bare in known), key=lambda bare: bare != "item_id")
    if shared:
        return events[shared[0]], known[shared[0]]
    if "id" in known and len(ids) == 1:
        return events[ids[0]], known["id"]
    if first in events and events[first] != user:
        return events[first], known[first]
    both = f"interactions: {', '.join(events)}; items: {', '.join(known)}"
    raise UserError("has no column of items that the item table has too", where=log, mend=both)


def _first(
    columns: dict[str, str], table: Table, what: str, names: tuple[str, ...], beginnings: tuple[str, ...]
) -> str:
    found = next((columns[name] for name in names if name in columns), None)
    found = found or next((name for bare, name in columns.items() if bare.startswith(beginnings)), None)
    if found is None:
        raise UserError(f"has no column of {what}", where=table, mend=f"the columns are: {', '.join(columns.values())}")
    return found

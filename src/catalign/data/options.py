"""The options of preparing a dataset, as they stand in `dataset.json`."""

from pathlib import Path
from typing import Literal

import pydantic


class TitleOptions(pydantic.BaseModel):
    """What happens to titles.

    Attributes:
        clean: HTML entities, tags and superfluous white space go.
        missing_titles: `drop` removes an item without a title together with its interactions; `id` shows its id
            instead.
        duplicate_titles: `keep` leaves distinct items that share a title (they share a leaf of the trie); `merge`
            makes one item of them, under the id of the first.
    """

    clean: bool = True
    missing_titles: Literal["drop", "id"] = "drop"
    duplicate_titles: Literal["keep", "merge"] = "keep"


class WindowOptions(TitleOptions):
    """How windows are made.

    Attributes:
        history: a window shows at most this many items before its target.
        min_history: and at least this many.
    """

    history: int = pydantic.Field(default=10, ge=1)
    min_history: int = pydantic.Field(default=1, ge=1)


class FewshotOptions(pydantic.BaseModel):
    """How the few-shot files of DMPO become windows.

    Attributes:
        domain: which of the published data sets.
        history: a window shows at most this many items before its target; None: all that the published prompt shows,
            so that it can be written again.
        clean: HTML entities, tags and superfluous white space go.
    """

    domain: Literal["games", "movies", "ml-1m"]
    history: int | None = pydantic.Field(default=None, ge=1)
    clean: bool = True


class TableOptions(WindowOptions):
    """How tables of interactions become windows.

    Attributes:
        split: `chronological` cuts all users at the same two instants (8:1:1 of the windows); `leave-one-out` takes
            each user's last two interactions, and leaks; `given` reads the split from a column or from files.
        min_rating: interactions rated lower are dropped, and those without a rating.
        k_core: every user and item keeps at least this many interactions (0: no filter).
        duplicates: of repeated (user, item) pairs keep all, as the published sets do, or the first or last in time.
        keep_unused: keep items without an interaction in the catalogue.
    """

    split: Literal["chronological", "leave-one-out", "given"] = "chronological"
    min_rating: float | None = None
    k_core: int = pydantic.Field(default=0, ge=0)
    duplicates: Literal["keep", "first", "last"] = "keep"
    keep_unused: bool = False


class TableSource(pydantic.BaseModel):
    """Two tables and the names of their columns.

    Attributes:
        interactions: one row per interaction; with `valid` and `test` the training ones.
        items: one row per item.
        valid, test: the interactions of given splits.
        user, item, time, rating, split_column: columns of the interactions.
        item_id, title, metadata: columns of the items.
        encoding: of CSV files.
    """

    interactions: Path
    items: Path
    valid: Path | None = None
    test: Path | None = None
    user: str
    item: str
    time: str | None = None
    rating: str | None = None
    split_column: str | None = None
    item_id: str
    title: str
    metadata: list[str] = []
    encoding: str = "utf-8"

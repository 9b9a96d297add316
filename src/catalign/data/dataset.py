"""The dataset folder: its card, its tables, how it is read."""

import contextlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pydantic

from catalign.data.rules import RuleAccount
from catalign.data.splits import SPLITS
from catalign.errors import UserError
from catalign.files import read_json

CARD = "dataset.json"


class SourceFile(pydantic.BaseModel):
    """A file that the dataset was made from."""

    name: str
    bytes: int
    sha256: str


class SourceQuery(SourceFile):
    """A query that the dataset was made from; `bytes` and `sha256` are those of its rows as CSV, in their order."""

    connection: str = pydantic.Field(description="the address of the database, without a password")
    query: str
    rows: int


class SplitCounts(pydantic.BaseModel):
    """How much a split holds."""

    windows: int
    interactions: int
    cold_targets: int = pydantic.Field(description="windows whose target never occurs in training")


class TitleCounts(pydantic.BaseModel):
    """What cleaning met in the titles."""

    changed: int = pydantic.Field(description="titles that cleaning changed")
    missing: int = pydantic.Field(description="items without a title")
    items_sharing: int = pydantic.Field(description="kept items whose title another kept item has too")
    titles_shared: int = pydantic.Field(description="titles that more than one kept item has")
    alone: int = pydantic.Field(default=0, description="items with their title alone: a field of the format is missing")
    shortened: int = pydantic.Field(default=0, description="titles that were cut to the length asked for")
    distinguished: dict[str, int] = pydantic.Field(default={}, description="column -> kept items marked with its value")


class Appended(pydantic.BaseModel):
    """What was added to a dataset after it was prepared; see `append`."""

    when: str
    catalign: str
    sources: list[SourceQuery | SourceFile]
    split: str = pydantic.Field(description="where the new interactions went: a split, or time, by the own instants")
    items: int
    users: int = pydantic.Field(description="those who were not there before")
    interactions: int
    windows: dict[str, int] = pydantic.Field(description="split -> windows")
    rows_in: dict[str, int]
    dropped: dict[str, dict[str, int]]


class Card(pydantic.BaseModel):
    """The content of `dataset.json`."""

    format: Literal[1] = 1
    catalign: str
    layout: str
    sources: list[SourceQuery | SourceFile]
    options: dict[str, Any]
    split_rule: str
    users: int
    items: int
    interactions: int
    splits: dict[str, SplitCounts]
    titles: TitleCounts
    rows_in: dict[str, int] = pydantic.Field(description="table -> rows read")
    rows_kept: dict[str, int] = pydantic.Field(description="table -> rows kept")
    dropped: dict[str, dict[str, int]] = pydantic.Field(description="table -> reason -> rows dropped")
    rules: list[RuleAccount] = pydantic.Field(default=[], description="the cleaning rules in their order")
    appended: list[Appended] = pydantic.Field(default=[], description="what came later, which the above counts too")
    warnings: list[str]
    files: dict[str, str] = pydantic.Field(description="file -> SHA-256")


class Dataset:
    """A dataset folder, read when asked.

    Attributes:
        folder: where it lies.
        card: the content of `dataset.json`.
    """

    def __init__(self, folder: Path, card: Card) -> None:
        self.folder = folder
        self.card = card

    @cached_property
    def items(self) -> pl.DataFrame:
        """`item_id`, `title`, metadata; the row number is the item index."""
        return self._read("items.parquet")

    @cached_property
    def interactions(self) -> pl.DataFrame:
        """`user_id`, `item` (UInt32), `timestamp` (Int64 ms or null), `rating` (Float32 or null), `split` (text)."""
        return self._read("interactions.parquet")

    def windows(self, split: str) -> pl.DataFrame:
        """`user_id`, `history` (list of UInt32, oldest first), `target` (UInt32), `timestamp` (Int64 ms or null).

        Raises:
            UserError: there is no such split.
        """
        return self._read(self._windows_file(split))

    def scan_windows(self, split: str) -> pl.LazyFrame:
        """`windows`, not read yet: for questions that do not need all of them in memory.

        Raises:
            UserError: there is no such split.
        """
        name = self._windows_file(split)
        with self._readable(name):
            scan = pl.scan_parquet(self.folder / name)
            scan.collect_schema()
            return scan

    def training_counts(self) -> npt.NDArray[np.int64]:
        """Return how often each item occurs in training, [items]; above 0 the item is warm."""
        with self._readable("interactions.parquet"):
            trained = pl.scan_parquet(self.folder / "interactions.parquet").filter(pl.col("split") == "train")
            counts = trained.group_by("item").len().collect(engine="streaming")
        counts_I = np.zeros(self.items.height, dtype=np.int64)
        counts_I[counts["item"].to_numpy()] = counts["len"].to_numpy()
        return counts_I

    def _windows_file(self, split: str) -> str:
        if split not in SPLITS:
            raise UserError(f"there is no split {split!r}", where=self.folder, mend=f"choose from {', '.join(SPLITS)}")
        return f"windows/{split}.parquet"

    def _read(self, name: str) -> pl.DataFrame:
        with self._readable(name):
            return pl.read_parquet(self.folder / name)

    @contextlib.contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, pl.exceptions.PolarsError) as error:
            raise UserError(
                f"{name} is missing or damaged", where=self.folder, mend="prepare the dataset again"
            ) from error


def load_dataset(folder: Path) -> Dataset:
    """Open a dataset folder.

    Raises:
        UserError: it is none.
    """
    folder = Path(folder)
    if not (folder / CARD).is_file():
        raise UserError(
            f"is not a dataset folder (no {CARD})", where=folder, mend="make one with catalign data prepare"
        )
    try:
        return Dataset(folder, Card.model_validate(read_json(folder / CARD)))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"is not the card of a dataset ({'.'.join(map(str, first['loc']))}: {first['msg']})",
            where=folder / CARD,
            mend="prepare the dataset again",
        ) from error

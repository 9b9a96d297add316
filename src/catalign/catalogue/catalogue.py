"""The items of a shop: their ids, titles and training counts, in one fixed order.

An *item index* is a row of the catalogue; everything else in the package speaks of items by it.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from catalign.catalogue.trie import TitleTrie
from catalign.errors import UserError
from catalign.files import whole_file

FILE_NAME = "catalogue.parquet"
COUNT = "training_count"  # the column of the popularity
ENCODED_AT_ONCE = (
    16_384  # titles turned into Python lists of tokens at a time, which are ten times the size of an array
)
NEAR_TITLES = 3  # titles suggested for one that is not there
COMPARED = 100  # titles compared letter by letter before suggesting


@dataclasses.dataclass(frozen=True, eq=False)
class Catalogue:
    """Items in a fixed order.

    Attributes:
        item_ids: the caller's ids, unique.
        titles: one per item; several items may share one.
        popularity: [items] int64; how often each item occurs in training.
        metadata: [items] rows of further columns, or None.
    """

    item_ids: list[str]
    titles: list[str]
    popularity: NDArray[np.int64]
    metadata: pl.DataFrame | None = None

    @classmethod
    def from_lists(
        cls, item_ids: Iterable[str], titles: Iterable[str], popularity: ArrayLike | None = None
    ) -> Catalogue:
        """Build from an id, a title and (optionally) a training count per item; see `from_frame`."""
        columns = {"item_id": list(item_ids), "title": list(titles)}
        return cls.from_frame(pl.DataFrame(columns, schema={"item_id": pl.String, "title": pl.String}), popularity)

    @classmethod
    def from_frame(cls, items: pl.DataFrame, popularity: ArrayLike | None = None) -> Catalogue:
        """Build from a table of items, such as the `items.parquet` of a dataset folder.

        Args:
            items: `item_id` and `title` (text); the other columns are kept as metadata.
            popularity: [items]; training counts, zeros if absent.

        Raises:
            UserError: no items, a column missing, an id or title missing, an id twice, a metadata column named
                `training_count`.
        """
        _check_items(items)
        counts = np.zeros(items.height) if popularity is None else np.asarray(popularity)
        if counts.shape != (items.height,):
            raise ValueError(f"popularity has shape {counts.shape} for {items.height} items")
        metadata = items.drop("item_id", "title")
        return cls(
            item_ids=items["item_id"].to_list(),
            titles=items["title"].to_list(),
            popularity=counts.astype(np.int64),
            metadata=metadata if metadata.width else None,
        )

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the ids and titles in their order: two catalogues with one digest name the same items."""
        text = json.dumps([self.item_ids, self.titles], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def _index_of_id(self) -> dict[str, int]:
        return {item_id: index for index, item_id in enumerate(self.item_ids)}

    @cached_property
    def _index_of_title(self) -> dict[str, int]:
        """The most popular item of every title, ties by index: the last one written wins."""
        rising = np.lexsort((-np.arange(len(self)), self.popularity)).tolist()
        return {self.titles[index]: index for index in rising}

    @cached_property
    def _lower_titles(self) -> pl.Series:
        return pl.Series(self.titles).str.to_lowercase()

    def find_id(self, item_id: str) -> int | None:
        """The index of the item with this id; None if there is none."""
        return self._index_of_id.get(item_id)

    def find_title(self, title: str) -> int | None:
        """The index of the most popular item with exactly this title; None if there is none."""
        return self._index_of_title.get(title)

    def find(self, text: str) -> int | None:
        """The index of the item with this id or exactly this title, as `index_of`; None if there is none."""
        index = self.find_id(text)
        return self.find_title(text) if index is None else index

    @cached_property
    def _index_of_text(self) -> pl.DataFrame:
        """`text` and `index` of every id, and of every title that is no id."""
        ids = pl.DataFrame({"text": self.item_ids, "index": range(len(self))}, schema_overrides={"index": pl.UInt32})
        titles = pl.DataFrame({"text": self.titles, "index": ids["index"], "popularity": self.popularity})
        titles = titles.sort("popularity", descending=True, maintain_order=True).drop("popularity")
        titles = titles.unique("text", keep="first", maintain_order=True).join(ids, on="text", how="anti")
        return pl.concat([ids, titles])

    def find_all(self, texts: pl.Series) -> pl.Series:
        """What `find` finds for each of many texts, UInt32; null where there is none."""
        found = texts.to_frame("text").join(self._index_of_text, on="text", how="left", maintain_order="left")
        return found["index"]

    def index_of(self, text: str) -> int:
        """The index of an item given by its id or its exact title; the most popular of those that share the title.

        Raises:
            UserError: no such item; the nearest titles are suggested.
        """
        index = self.find(text)
        if index is None:
            near = self.nearest_titles(text)
            mend = "did you mean " + " or ".join(f'"{title}"' for title in near) + "?" if near else None
            raise UserError(f'no item has the id or title "{text}"', where="the catalogue", mend=mend)
        return index

    def titles_holding(self, text: str, count: int) -> list[int]:
        """Indices of items whose title holds `text`, letter case aside: the most popular first, ties by index."""
        items = np.flatnonzero(self._lower_titles.str.contains(text.lower(), literal=True).to_numpy())
        order = np.argsort(-self.popularity[items], kind="stable")
        return [int(item) for item in items[order[:count]]]

    def nearest_titles(self, text: str, count: int = NEAR_TITLES) -> list[str]:
        """The titles most like `text`, letter case aside.

        Shared runs of three letters (Dice coefficient) pick the candidates, difflib orders them: comparing every title
        letter by letter takes seconds for 100,000.
        """
        wanted = text.lower().strip()
        runs = sorted({wanted[start : start + 3] for start in range(max(len(wanted) - 2, 1))} - {""})[:64]
        if not runs:
            return []
        lower = pl.col("title").str.to_lowercase()
        shared = pl.sum_horizontal(lower.str.contains(run, literal=True).cast(pl.Int32) for run in runs)
        alike = 2 * shared / (lower.str.len_chars().clip(lower_bound=3) - 2 + len(runs))
        candidates = (
            pl.LazyFrame({"title": self.titles})
            .unique(maintain_order=True)
            .with_columns(alike.alias("alike"))
            .filter(pl.col("alike") > 0)
            .sort("alike", descending=True, maintain_order=True)
            .head(COMPARED)
            .collect()["title"]
            .to_list()
        )
        matcher = difflib.SequenceMatcher(b=wanted, autojunk=False)

        def likeness(title: str) -> float:
            matcher.set_seq1(title.lower())
            return matcher.ratio()

        return sorted(candidates, key=likeness, reverse=True)[:count]

    def build_trie(self, encode: Callable[[list[str]], Sequence[Sequence[int]]], end_token: int) -> TitleTrie:
        """Build the trie of the titles.

        Args:
            encode: turns titles into token lists, without the end token.
            end_token: is put after every title.

        Raises:
            UserError: a title has no tokens, or holds the end token.
        """
        tokens, lengths = [], []
        for start in range(0, len(self), ENCODED_AT_ONCE):
            encoded = encode(self.titles[start : start + ENCODED_AT_ONCE])
            lengths.append(np.array([len(title) + 1 for title in encoded], dtype=np.int64))
            closed = (token for title in encoded for token in (*title, end_token))
            tokens.append(np.fromiter(closed, dtype=np.int32, count=int(lengths[-1].sum())))
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        return TitleTrie.build(np.concatenate(tokens), offsets, end_token=end_token, popularity=self.popularity)

    def to_frame(self) -> pl.DataFrame:
        """The table that `save` writes: item_id, title, training_count, metadata."""
        frame = pl.DataFrame({"item_id": self.item_ids, "title": self.titles, COUNT: self.popularity})
        return frame if self.metadata is None else frame.hstack(self.metadata)

    def save(self, folder: Path) -> None:
        """Write `catalogue.parquet` into `folder`."""
        with whole_file(Path(folder) / FILE_NAME) as partial:
            self.to_frame().write_parquet(partial)

    @classmethod
    def load(cls, folder: Path) -> Catalogue:
        """Read what `save` wrote.

        Raises:
            UserError: the file is absent, is not Parquet, or is not a catalogue.
        """
        path = Path(folder) / FILE_NAME
        try:
            frame = pl.read_parquet(path, glob=False)
        except FileNotFoundError as error:
            raise UserError("no such file", where=path, mend="give a folder that catalign wrote") from error
        except (OSError, pl.exceptions.PolarsError) as error:
            raise UserError(f"cannot be read as Parquet ({error})", where=path) from error
        if COUNT not in frame.columns or not frame[COUNT].dtype.is_integer():
            raise UserError(f"is not a catalogue: it has no column of whole numbers {COUNT}", where=path)
        return cls.from_frame(frame.drop(COUNT), frame[COUNT].to_numpy())


def _check_items(items: pl.DataFrame) -> None:
    """Raise UserError unless every row has an id of its own and a title."""
    for column in ("item_id", "title"):
        if column not in items.columns or items[column].dtype != pl.String:
            raise UserError(f'no text column "{column}"', where="the catalogue", mend=f"columns: {items.columns}")
        absent = items[column].null_count()
        if absent:
            row = items[column].is_null().arg_max()
            raise UserError(f"{absent} without {column}, the first in row {row}", where="the catalogue")
    if not items.height:
        raise UserError("has no items", where="the catalogue")
    if COUNT in items.columns:
        raise UserError(f'a metadata column may not be named "{COUNT}"', where="the catalogue", mend="rename it")
    if items["item_id"].n_unique() < items.height:
        repeated = items["item_id"].filter(items["item_id"].is_duplicated())[0]
        raise UserError(f'the item id "{repeated}" occurs more than once', where="the catalogue")

"""The catalogue in service: versions that never change, and the one that is current.

A request takes the current version once and keeps it to its end. An update makes the next version beside it (titles
tokenised, tries built, moved to the device) and then puts it in place by one assignment, so no request sees half of
one. Updates that come while a version is being made are made into the next one together. Titles that were there keep
their tokens, so only new ones are tokenised.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.catalogue.catalogue import COUNT, Catalogue
from catalign.catalogue.filters import Filters, filter_key, items_passing
from catalign.data.cleaning import clean_titles
from catalign.decoding.prompt_states import PromptStates
from catalign.decoding.recommend import CatalogueSearch
from catalign.decoding.scores import ScoreMode
from catalign.errors import UserError
from catalign.prompting.prompter import encode_pieces
from catalign.serving.variants import Variant
from catalign.training.run import prompter_of

BoolArray: TypeAlias = npt.NDArray[np.bool_]
AVAILABLE = "catalign.available"  # a column beside those of the catalogue
FILTERS_KEPT = 64
TEXTS_KEPT = 4  # texts whose tokens are kept, for each item: what a title is in a history and as an answer, twice


@dataclass(frozen=True)
class NewItem:
    """An item to add.

    Attributes:
        item_id: must be new.
        title: cleaned as titles of data sets are.
        metadata: values of columns that the catalogue has; the others are empty.
        available: whether it may be recommended at once.
    """

    item_id: str
    title: str
    metadata: dict[str, Any] = field(default_factory=dict)
    available: bool = True


@dataclass(frozen=True)
class Update:
    """A change of the catalogue, made whole or not at all: retire, then add, then set availability.

    Attributes:
        retire: ids of items that leave the catalogue; a history can not name them any more.
        add: items that come; an id retired in the same update may come again.
        available: id to whether the item may be recommended; it stays in the catalogue either way.
    """

    retire: list[str] = field(default_factory=list)
    add: list[NewItem] = field(default_factory=list)
    available: dict[str, bool] = field(default_factory=dict)


class Version:
    """A catalogue as it was between two updates.

    Attributes:
        number: from 1, rising.
        catalogue: its items.
        available_I: which may be recommended.
        frame: items, counts, metadata and availability, as updates take them.
    """

    def __init__(
        self,
        number: int,
        catalogue: Catalogue,
        available_I: BoolArray,
        searches: dict[str, CatalogueSearch],
        frame: pl.DataFrame | None = None,
    ) -> None:
        self.number, self.catalogue, self.available_I = number, catalogue, available_I
        self.frame = catalogue.to_frame().with_columns(pl.Series(AVAILABLE, available_I)) if frame is None else frame
        self._whole = searches
        self._filters: OrderedDict[str, BoolArray] = OrderedDict()
        self._searches: OrderedDict[tuple[str, int, bool, str], CatalogueSearch] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def searches(self) -> dict[str, CatalogueSearch]:
        """For every variant the search in all items, whatever is available."""
        return self._whole

    def open_items(self, filters: Filters) -> BoolArray:
        """[items]; available and passing the filters.

        Raises:
            UserError: see `items_passing`.
        """
        key = filter_key(filters)
        with self._lock:
            mask = self._filters.get(key)
            if mask is None:
                mask = items_passing(self.catalogue.metadata, len(self.catalogue), filters) & self.available_I
                _remember(self._filters, key, mask)
        return mask

    def search(self, variant: str, *, beams: int, exclude_history: bool, filters: Filters) -> CatalogueSearch:
        """A search in the open items; the same object for the same settings, so that requests share a batch."""
        open_I = self.open_items(filters)
        key = (variant, beams, exclude_history, filter_key(filters))
        with self._lock:
            search = self._searches.get(key)
            if search is None:
                whole = self._whole[variant]
                search = copy(whole) if open_I.all() else whole.within(open_I)
                search.beams, search.exclude_history = beams, exclude_history
                _remember(self._searches, key, search)
        return search


def _remember(known: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    """Keep the last few; the oldest goes."""
    known[key] = value
    if len(known) > FILTERS_KEPT:
        known.popitem(last=False)


class LiveCatalogue:
    """The current version, and how the next one is made.

    Args:
        variants: the runs in service.
        batch_size: of their searches.
        score: of their searches.
        states: prompts of before for each variant, by its name; they outlive every version.

    Attributes:
        current: read it once per request.
    """

    def __init__(
        self, variants: Sequence[Variant], batch_size: int, states: dict[str, PromptStates], score: ScoreMode = "valid"
    ) -> None:
        self._variants, self._batch_size, self._states, self._score = variants, batch_size, states, score
        self._known: dict[str, dict[str, list[int]]] = {variant.name: {} for variant in variants}
        self._making = threading.Lock()  # one version is made at a time
        self._pending: list[_Pending] = []
        self._pending_lock = threading.Lock()
        catalogue = variants[0].run.catalogue
        searches = {variant.name: self._search(variant, variant.run.prompter) for variant in variants}
        self.current = Version(1, catalogue, np.ones(len(catalogue), dtype=np.bool_), searches)

    def update(self, update: Update) -> Version:
        """Make the next version and put it in place; waits for one that is being made.

        Returns:
            The version that holds this update, perhaps with others that came at the same time.

        Raises:
            UserError: the update cannot be made; nothing of it has been.
        """
        mine = _Pending(update)
        with self._pending_lock:
            self._pending.append(mine)
        with self._making:
            if mine.outcome is None:  # else whoever made the version before took it along
                with self._pending_lock:
                    together, self._pending = self._pending, []
                try:
                    self._make(together)
                except Exception as error:
                    for entry in together:
                        entry.outcome = entry.outcome or error
        assert mine.outcome is not None
        if isinstance(mine.outcome, Exception):
            raise mine.outcome
        return mine.outcome

    def _make(self, pending: "list[_Pending]") -> None:
        """One version of several updates; if they do not go together, one of each."""
        old = self.current
        frame, good = old.frame, []
        for entry in pending:
            try:
                frame = _applied(frame, entry.update)
                good.append(entry)
            except UserError as error:
                entry.outcome = error
        if not good:
            return
        try:
            version = self._next_version(old, frame, rebuild=any(e.update.add or e.update.retire for e in good))
        except UserError as error:
            if len(good) == 1:
                good[0].outcome = error
                return
            for entry in good:
                self._make([entry])
            return
        self.current = version
        for entry in good:
            entry.outcome = version

    def _next_version(self, old: Version, frame: pl.DataFrame, *, rebuild: bool) -> Version:
        """The version of a table of items; without new or retired ones the tries are those that there were."""
        available_I = frame[AVAILABLE].to_numpy()
        if not rebuild:
            return Version(old.number + 1, old.catalogue, available_I, old.searches, frame)
        items = frame.drop(AVAILABLE, COUNT)
        catalogue = Catalogue.from_frame(items, frame[COUNT].to_numpy())
        fresh = sorted(set(catalogue.titles) - set(old.catalogue.titles))
        searches = {}
        for variant in self._variants:
            run = variant.run
            _check_written(variant, fresh)
            known = self._known[variant.name]
            if len(known) > TEXTS_KEPT * len(catalogue):  # most of them are of items that left
                known.clear()
            prompter = prompter_of(run.recipe, run.model, catalogue, run.prompter.template, known)
            searches[variant.name] = self._search(variant, prompter)
        return Version(old.number + 1, catalogue, available_I, searches, frame)

    def _search(self, variant: Variant, prompter: Any) -> CatalogueSearch:
        search = CatalogueSearch(
            variant.run.model, prompter, beams=1, score=self._score, batch_size=self._batch_size,
            states=self._states.get(variant.name),
        )  # fmt: skip
        # The trie moves to the device here, not in the thread that answers.
        return search.within(np.ones(prompter.trie.items, dtype=np.bool_))


@dataclass(eq=False)
class _Pending:
    """An update and what became of it."""

    update: Update
    outcome: Version | Exception | None = None


def _applied(frame: pl.DataFrame, update: Update) -> pl.DataFrame:
    """The table after one update.

    Raises:
        UserError: it names an item that is not there, adds one that is, or leaves none.
    """
    if update.retire:
        _check_known(frame, update.retire, "retire")
        frame = frame.filter(~pl.col("item_id").is_in(update.retire))
    if update.add:
        added = _rows(frame.schema, update.add)
        ids = pl.concat([frame["item_id"], added["item_id"]])
        twice = ids.filter(ids.is_duplicated())
        if len(twice):
            raise UserError(f'the id "{twice[0]}" is there already', where="add", mend="retire it in the same update")
        frame = pl.concat([frame, added])
    if frame.is_empty():
        raise UserError("no item would be left", where="retire")
    if update.available:
        _check_known(frame, list(update.available), "available")
        state = pl.col("item_id").replace_strict(update.available, default=pl.col(AVAILABLE), return_dtype=pl.Boolean)
        frame = frame.with_columns(state.alias(AVAILABLE))
    return frame


def _check_known(frame: pl.DataFrame, item_ids: Sequence[str], where: str) -> None:
    known = pl.Series(item_ids).is_in(frame["item_id"].implode())
    if not known.all():
        raise UserError(f'no item has the id "{item_ids[int((~known).arg_max() or 0)]}"', where=where)


def _rows(schema: pl.Schema, added: Sequence[NewItem]) -> pl.DataFrame:
    """New items as rows of the table, their titles cleaned."""
    metadata = [name for name in schema if name not in ("item_id", "title", COUNT, AVAILABLE)]
    columns: dict[str, Any] = {
        "item_id": [item.item_id for item in added],
        "title": clean_titles(pl.Series([item.title for item in added], dtype=pl.String)),
        COUNT: [0] * len(added),
        AVAILABLE: [item.available for item in added],
    }
    if columns["title"].null_count():
        empty = added[int(columns["title"].is_null().arg_max() or 0)]
        raise UserError("the title is empty", where=f'add, item "{empty.item_id}"', mend="give it a title")
    for item in added:
        unknown = item.metadata.keys() - set(metadata)
        if unknown:
            has = f"it has {', '.join(metadata)}" if metadata else "it has none"
            raise UserError(
                f'the catalogue has no column "{min(unknown)}"', where=f'add, item "{item.item_id}"', mend=has
            )
    for name in metadata:
        try:
            columns[name] = pl.Series(
                name, [item.metadata.get(name) for item in added], dtype=schema[name], strict=True
            )
        except (TypeError, OverflowError, ValueError, pl.exceptions.PolarsError) as error:
            raise UserError(f"does not fit a column of {schema[name]}", where=f'add, "{name}"') from error
    return pl.DataFrame({name: columns[name] for name in schema}, schema=schema)


def _check_written(variant: Variant, titles: list[str]) -> None:
    """Refuse new titles that the tokenizer cannot write."""
    unknown = variant.run.model.tokenizer.unk_token_id
    if unknown is None:
        return
    for title, tokens in zip(titles, encode_pieces(variant.run.model.tokenizer, titles), strict=True):
        if unknown in tokens:
            raise UserError(f'the tokenizer of {variant.name} cannot write "{title}"', where="add")

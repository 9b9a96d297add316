"""What the target of a window is preferred to: k negatives each, drawn with a seed.

A negative is a title. It stands for itself through the item that bears it (the most popular in training), so two
negatives of a window never share a title, and none shares one with the target or, unless it is given, with the history.

Legend: S windows, K negatives of a window, T titles, I items, M candidates drawn at once.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator
from rich.progress import Progress

from catalign.catalogue.trie import TitleTrie
from catalign.decoding.scores import ScoreMode
from catalign.decoding.search import search_titles
from catalign.decoding.trie_tensors import Exclusions, TrieTensors
from catalign.errors import UserError
from catalign.model.language_model import LanguageModel
from catalign.plugins import OutsideName, load

log = logging.getLogger(__name__)
Ints = npt.NDArray[np.int64]
BEAMS = 10  # narrowest search for hard negatives
SEARCHED_AT_ONCE = 32


class Negatives(BaseModel):
    """How negatives are chosen.

    Attributes:
        kind: `uniform` over the catalogue; `popular`, by training counts; `category`, uniform among the items of the
            target's category; `hard`, the model's own best wrong titles under constrained search; `given`, the first of
            the column `negatives` of the training windows; or the name of a `NegativeSampler` outside the package.
        count: k, negatives of each window.
        refresh_steps: hard: search anew every so many optimiser steps; absent, once before the first.
        category: category: the column of the items that names it.
        seed: of the draw; absent, the recipe's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["uniform", "popular", "category", "hard", "given"] | OutsideName = "uniform"
    count: int = Field(default=3, ge=1)
    refresh_steps: int | None = Field(default=None, ge=1)
    category: str | None = None
    seed: int | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.refresh_steps is not None and self.kind != "hard":
            raise ValueError(f"only hard negatives are refreshed, not {self.kind} ones")
        if (self.category is None) == (self.kind == "category"):
            raise ValueError(
                "negatives of a category need its column: pass --category"
                if self.category is None
                else f"a category column is given, but the negatives are {self.kind}: pass --negatives-from category"
            )
        return self


class NegativeSampler(Protocol):
    """Items to prefer the targets to, from outside the package. An example, the whole catalogue in random order:

        def shuffled(windows, items, count, seed):
            generator = np.random.default_rng(seed)
            return generator.permuted(np.tile(np.arange(len(items)), (len(windows), 1)), axis=1)

        catalign train --stage preference --negatives-from my_package.negatives:shuffled --from runs/msl --output runs/a

    Proposals that may not be negatives (the target, the history, a title for the second time) are passed over, so it
    is wise to propose a few more than asked for.
    """

    def __call__(self, windows: pl.DataFrame, items: pl.DataFrame, count: int, seed: int) -> npt.ArrayLike:
        """Propose negatives for all training windows at once, before the first step.

        Args:
            windows: a row for each of S windows: `window` (its number), `user_id`, `history` (list of item indices,
                oldest first), `target` (item index), `timestamp`.
            items: a row for each item, whose number is the item index: `item_id`, `title`, metadata.
            count: K, negatives that each window needs.
            seed: of whatever is drawn.

        Returns:
            [S, at least K] integers, item indices, the most wanted first.
        """


@dataclass(frozen=True)
class Excluded:
    """Titles that may not be negatives: those of the history and of the target.

    Attributes:
        window_X: the window of each pair of a window and such a title, ascending.
        title_X: the title, ascending within a window; no pair stands twice.
        windows: S.
    """

    window_X: Ints
    title_X: Ints
    windows: int

    @classmethod
    def of(cls, trie: TitleTrie, histories: Sequence[npt.NDArray[np.integer]], target_S: Ints) -> "Excluded":
        """The titles of histories and targets."""
        length_S = np.fromiter(map(len, histories), dtype=np.int64, count=len(histories))
        item = np.concatenate([target_S, *histories]).astype(np.int64)
        window = np.concatenate([np.arange(len(target_S)), np.repeat(np.arange(len(histories)), length_S)])
        key_X = np.unique(window * trie.titles + trie.item_title[item].astype(np.int64))
        return cls(key_X // trie.titles, key_X % trie.titles, len(target_S))


@dataclass(frozen=True)
class Pools:
    """Sets of titles to draw from, each title with a weight.

    Attributes:
        start_Q: where each pool starts in the other arrays, and the end of the last.
        title_X: the titles, ascending within a pool.
        total_X: running sum of the weights over all pools.
    """

    start_Q: Ints
    title_X: Ints
    total_X: npt.NDArray[np.float64]

    @classmethod
    def of(cls, trie: TitleTrie, pool_I: Ints, weight_I: npt.NDArray[np.floating]) -> "Pools":
        """One pool for each number in `pool_I`; the weight of a title is that of its items. Below 0: in no pool."""
        kept_I = (pool_I >= 0) & (weight_I > 0)
        pools = int(pool_I.max(initial=0)) + 1
        key, where = np.unique(pool_I[kept_I] * trie.titles + trie.item_title[kept_I], return_inverse=True)
        weight_X = np.bincount(where, weights=weight_I[kept_I], minlength=len(key))
        start_Q = np.searchsorted(key, np.arange(pools + 1) * trie.titles)
        return cls(start_Q, key % trie.titles, np.cumsum(weight_X))

    def allowed(self, pool_S: Ints, excluded: Excluded, titles: int) -> Ints:
        """How many titles of its pool each window may draw; [S]."""
        pool_X = np.repeat(np.arange(len(self.start_Q) - 1), np.diff(self.start_Q))
        inside = _among(pool_X * titles + self.title_X, pool_S[excluded.window_X] * titles + excluded.title_X)
        taken_S = np.bincount(excluded.window_X[inside], minlength=excluded.windows)
        size_S: Ints = np.diff(self.start_Q)[pool_S]
        return size_S - taken_S

    def draw(self, generator: np.random.Generator, pool_S: Ints, count: int) -> Ints:
        """`count` titles from each window's pool, independently; [S, count]."""
        before_Q = np.r_[0.0, self.total_X][self.start_Q]
        low_S, high_S = before_Q[pool_S, None], before_Q[pool_S + 1, None]
        value = low_S + generator.random((len(pool_S), count)) * (high_S - low_S)
        place = np.searchsorted(self.total_X, value, "right")
        # A product rounded up must not fall into the next pool.
        drawn: Ints = self.title_X[np.minimum(place, self.start_Q[pool_S + 1, None] - 1)]
        return drawn


def drawn_negatives(
    settings: Negatives,
    trie: TitleTrie,
    items: pl.DataFrame,
    training_counts_I: Ints,
    histories: Sequence[npt.NDArray[np.integer]],
    target_S: Ints,
    seed: int,
) -> Ints:
    """Uniform, popular or same-category negatives; [S, K] item indices.

    Args:
        settings: kind and count.
        trie: of the titles.
        items: the dataset's items, for the category.
        training_counts_I: how often each item occurs in training.
        histories: item indices, oldest first.
        target_S: the items that followed.
        seed: of the draw.

    Raises:
        UserError: k is larger than the catalogue allows, or the category column is absent or holds lists.
    """
    generator = np.random.default_rng(seed)
    excluded = Excluded.of(trie, histories, target_S)
    one_pool_I = np.zeros(trie.items, dtype=np.int64)
    weight_I = training_counts_I.astype(np.float64) if settings.kind == "popular" else np.ones(trie.items)
    everything = Pools.of(trie, one_pool_I, weight_I)
    pool_S = np.zeros(len(target_S), dtype=np.int64)
    check_allowed(everything.allowed(pool_S, excluded, trie.titles), settings)
    if settings.kind != "category":
        return _items_of(trie, _distinct(generator, everything, pool_S, excluded, trie.titles, settings.count))

    pool_I = _categories(items, str(settings.category))
    own = Pools.of(trie, pool_I, weight_I)
    known_S = pool_I[target_S] >= 0
    enough_S = known_S & (own.allowed(np.where(known_S, pool_I[target_S], 0), excluded, trie.titles) >= settings.count)
    if not enough_S.all():
        log.warning(
            "%d of %d windows draw from the whole catalogue: the target's category has fewer than %d other titles",
            int((~enough_S).sum()), len(enough_S), settings.count,
        )  # fmt: skip
    title_SK = np.zeros((len(target_S), settings.count), dtype=np.int64)
    for chosen_S, pools, pool in ((enough_S, own, pool_I[target_S]), (~enough_S, everything, pool_S)):
        part = _only(excluded, chosen_S)
        title_SK[chosen_S] = _distinct(generator, pools, pool[chosen_S], part, trie.titles, settings.count)
    return _items_of(trie, title_SK)


def hard_negatives(
    model: LanguageModel,
    trie: TitleTrie,
    prompts: Sequence[npt.NDArray[np.int32]],
    histories: Sequence[npt.NDArray[np.integer]],
    target_S: Ints,
    count: int,
    score: ScoreMode,
    progress: Progress | None = None,
) -> Ints:
    """The titles that the model itself would recommend, but for the target and the history, best first; [S, K] items.

    Args:
        model: in evaluation mode.
        trie: of the titles.
        prompts: of the windows.
        histories: item indices, oldest first.
        target_S: the items that followed.
        count: k; `check_allowed` has been asked.
        score: of the search.
        progress: shows how far the search is.
    """
    task = progress.add_task("hard negatives", total=len(prompts), note="") if progress else None
    tensors = TrieTensors.of(trie, model.device)
    excluded = Excluded.of(trie, histories, target_S)
    bounds = np.searchsorted(excluded.window_X, np.arange(len(prompts) + 1))
    title_SK = np.zeros((len(prompts), count), dtype=np.int64)
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    for start in range(0, len(order), SEARCHED_AT_ONCE):
        numbers = order[start : start + SEARCHED_AT_ONCE]
        titles = [excluded.title_X[bounds[number] : bounds[number + 1]] for number in numbers]
        closed = [np.flatnonzero(np.isin(trie.item_title, chosen)) for chosen in titles]
        found = search_titles(
            model,
            tensors,
            [prompts[number] for number in numbers],
            beams=max(count, BEAMS),
            score=score,
            exclusions=Exclusions(trie, closed, tensors),
        )
        title_SK[numbers] = found.title_BK[:, :count].cpu().numpy()
        if progress is not None and task is not None:
            progress.advance(task, len(numbers))
    return _items_of(trie, title_SK)


def given_negatives(windows: pl.DataFrame, trie: TitleTrie, count: int, where: object) -> Ints:
    """The first k of the column `negatives` of each window; [S, K].

    Args:
        windows: with `window`, their row numbers, `target`, and `negatives`.
        trie: of the titles.
        count: k.
        where: the file, for messages.

    Raises:
        UserError: no such column, too few in a window, one outside the catalogue, one that is the target or shares its
            title, or a title twice.
    """
    if "negatives" not in windows.columns:
        raise UserError("the windows have no column negatives", where=where, mend="draw them: --negatives-from uniform")
    kind = windows["negatives"].dtype
    if not (isinstance(kind, pl.List) and kind.inner.is_integer()):
        raise UserError(f"the column negatives holds {kind}", where=where, mend="it should hold lists of item indices")
    number_S = windows["window"].to_numpy()

    def refuse(wrong_S: Any, what: str, mend: str | None = None) -> None:
        if wrong_S.any():
            raise UserError(what, where=f"{where}, window {number_S[int(wrong_S.argmax())]}", mend=mend)

    short_S = windows["negatives"].list.len().fill_null(0).to_numpy() < count
    refuse(short_S, f"has fewer negatives than the {count} asked for", "ask for fewer with --negatives")
    first = windows["negatives"].list.head(count).explode(empty_as_null=False)
    item_SK = first.cast(pl.Int64).fill_null(-1).to_numpy().reshape(-1, count)
    inside_SK = (item_SK >= 0) & (item_SK < trie.items)
    refuse(~inside_SK.all(axis=1), f"a negative is not among the {trie.items:,} items of the catalogue")
    title_SK = trie.item_title[item_SK]
    same_SK = title_SK == trie.item_title[windows["target"].to_numpy().astype(np.int64)][:, None]
    refuse(same_SK.any(axis=1), "a negative is the target, or shares its title")
    sorted_SK = np.sort(title_SK, axis=1)
    refuse((sorted_SK[:, 1:] == sorted_SK[:, :-1]).any(axis=1), "two negatives share a title")
    return item_SK


def proposed_negatives(
    name: str,
    trie: TitleTrie,
    windows: pl.DataFrame,
    items: pl.DataFrame,
    histories: Sequence[npt.NDArray[np.integer]],
    count: int,
    seed: int,
) -> Ints:
    """The first k allowed items that a `NegativeSampler` proposes for each window; [S, K].

    Args:
        name: of the sampler.
        trie: of the titles.
        windows: see `NegativeSampler`.
        items: see there.
        histories: item indices of the windows, oldest first.
        count: k.
        seed: of the draw.

    Raises:
        UserError: there is no such sampler, its proposals are no [S, k] item indices, or too few of them are allowed.
    """
    sampler: NegativeSampler = load(name, NegativeSampler, where="negatives")
    item_SM = np.asarray(sampler(windows, items, count, seed))
    where = f"negatives {name}"
    if item_SM.ndim != 2 or len(item_SM) != len(windows) or item_SM.dtype.kind not in "iu":
        mend = f"integers of shape [{len(windows)}, at least {count}] are expected"
        raise UserError(f"gives {list(item_SM.shape)} {item_SM.dtype}", where=where, mend=mend)
    item_SM = item_SM.astype(np.int64)
    if ((item_SM < 0) | (item_SM >= trie.items)).any():
        raise UserError(f"proposes what is not among the {trie.items:,} items of the catalogue", where=where)
    excluded = Excluded.of(trie, histories, windows["target"].to_numpy().astype(np.int64))
    title_SM = trie.item_title[item_SM].astype(np.int64)
    row_S1 = np.arange(len(windows))[:, None] * trie.titles
    allowed_SM = ~_among(excluded.window_X * trie.titles + excluded.title_X, row_S1 + title_SM) & _first_of_row(
        title_SM
    )
    few_S = allowed_SM.sum(axis=1) < count
    if few_S.any():
        window = windows["window"][int(few_S.argmax())]
        what = f"proposes fewer than {count} other titles for training window {window}, target and history left out"
        raise UserError(what, where=where, mend="ask for fewer with --negatives, or propose more")
    order_SK = np.argsort(~allowed_SM, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(item_SM, order_SK, 1)


def check_allowed(allowed_S: Ints, settings: Negatives) -> None:
    """Refuse more negatives than the catalogue allows a window.

    Raises:
        UserError: with the fewest that a window has.
    """
    if len(allowed_S) and (fewest := int(allowed_S.min())) < settings.count:
        among = " that occur in training" if settings.kind == "popular" else ""
        raise UserError(
            f"{settings.count} negatives asked for, but for some training window only {fewest} titles{among} are "
            "neither in the history nor the target",
            where="--negatives",
            mend="ask for fewer",
        )


def count_allowed(trie: TitleTrie, histories: Sequence[npt.NDArray[np.integer]], target_S: Ints) -> Ints:
    """How many titles of the catalogue are neither in the history nor the target of each window; [S]."""
    return trie.titles - np.bincount(Excluded.of(trie, histories, target_S).window_X, minlength=len(target_S))


def _distinct(
    generator: np.random.Generator, pools: Pools, pool_S: Ints, excluded: Excluded, titles: int, count: int
) -> Ints:
    """Draw until every window has `count` different titles that are not excluded; [S, K].

    What is drawn twice or excluded is drawn again, which is drawing without replacement among the others.
    """
    closed = excluded.window_X * titles + excluded.title_X
    title_SK = np.full((len(pool_S), count), -1, dtype=np.int64)
    open_S, more = np.arange(len(pool_S)), 2 * count + 8
    while len(open_S):
        drawn = np.concatenate([title_SK[open_S], pools.draw(generator, pool_S[open_S], more)], axis=1)
        kept = (drawn >= 0) & ~_among(closed, open_S[:, None] * titles + drawn) & _first_of_row(drawn)
        front = np.argsort(~kept, axis=1, kind="stable")[:, :count]
        title_SK[open_S] = np.where(np.take_along_axis(kept, front, 1), np.take_along_axis(drawn, front, 1), -1)
        open_S, more = open_S[title_SK[open_S, -1] < 0], 2 * more
    return title_SK


def _among(ascending: Ints, keys: Ints) -> npt.NDArray[np.bool_]:
    """Whether each key stands in an ascending array."""
    padded = np.r_[ascending, np.iinfo(np.int64).max]  # so that a place after the end can be read
    found: npt.NDArray[np.bool_] = padded[np.searchsorted(ascending, keys)] == keys
    return found


def _first_of_row(values: Ints) -> npt.NDArray[np.bool_]:
    """Where a value occurs for the first time in its row."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, 1)
    new = np.ones(values.shape, dtype=np.bool_)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty_like(new)
    np.put_along_axis(first, order, new, 1)
    return first


def _only(excluded: Excluded, chosen_S: npt.NDArray[np.bool_]) -> Excluded:
    """The pairs of some windows, which are numbered anew."""
    kept = chosen_S[excluded.window_X]
    renumbered_S = np.cumsum(chosen_S) - 1
    return Excluded(renumbered_S[excluded.window_X[kept]], excluded.title_X[kept], int(chosen_S.sum()))


def _categories(items: pl.DataFrame, column: str) -> Ints:
    """A number for each item's category, -1 where it has none; [I]."""
    metadata = [name for name in items.columns if name not in ("item_id", "title")]
    if column not in metadata:
        has = f"they have {', '.join(metadata)}" if metadata else "they have no further columns"
        raise UserError(f"the items have no column {column}", where="--category", mend=has)
    if items[column].dtype.is_nested():
        raise UserError(f"the column {column} holds lists", where="--category", mend="name one of single values")
    rank_I = items[column].rank("dense").cast(pl.Int64).fill_null(0).to_numpy()
    numbers: Ints = rank_I - 1
    return numbers


def _items_of(trie: TitleTrie, title_SK: Ints) -> Ints:
    """The item that stands for each title: the most popular in training."""
    return trie.title_items[trie.title_items_start[title_SK]].astype(np.int64)

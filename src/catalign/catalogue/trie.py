"""The token trie of a catalogue's titles, as flat arrays.

Nodes are numbered breadth first: the root is node 0, the children of a node are contiguous and sorted by token, and the
edge into node n is "edge n - 1". Everything follows from two arrays, `child_start` and `token`; the others are kept
because training and decoding gather from them.

Two items whose titles have the same tokens share a leaf: a *title* below is a distinct token sequence, numbered in the
order of its leaf; an *item* is a row of the catalogue.
"""

from __future__ import annotations

import dataclasses
import itertools
import zipfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalign.errors import UserError
from catalign.files import whole_file

Int32Array: TypeAlias = NDArray[np.int32]
Int64Array: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

FILE_NAME = "trie.npz"
SAVED = {  # what the other arrays follow from
    "child_start": np.int64,
    "token": np.int32,
    "title_items_start": np.int64,
    "title_items": np.int32,
    "end_token": np.int64,
}
ROOT = 0


@dataclasses.dataclass(frozen=True)
class TrieStatistics:
    """What a trie looks like, in numbers.

    Attributes:
        items: rows of the catalogue.
        titles: distinct token sequences.
        shared_leaves: titles that belong to more than one item.
        nodes: nodes, the root among them.
        alphabet: different tokens in use.
        mean_length: mean tokens of a title, end token included.
        mean_decided_after: mean leading tokens after which one title remains.
        first_choices: tokens that a title may begin with.
        forced_share: share of the title positions with exactly one valid token.
    """

    items: int
    titles: int
    shared_leaves: int
    nodes: int
    alphabet: int
    mean_length: float
    mean_decided_after: float
    first_choices: int
    forced_share: float


@dataclasses.dataclass(frozen=True, eq=False)
class TitleTrie:
    """Every title of a catalogue as a path from the root to a leaf; each path ends with the end token.

    Attributes:
        end_token: the token that closes every title.
        child_start: [nodes + 1]; the children of node n are the nodes child_start[n] .. child_start[n + 1] - 1.
        token: [nodes]; token on the edge into the node, -1 at the root.
        parent: [nodes]; -1 at the root.
        depth: [nodes]; tokens from the root.
        alphabet: [symbols]; the tokens in use, ascending.
        symbol: [nodes]; index of `token` in `alphabet`, -1 at the root.
        leaf_title: [nodes]; the title that ends here, -1 at inner nodes.
        title_leaf: [titles]; the node where a title ends, ascending.
        title_items_start: [titles + 1]; where the items of a title start in `title_items`.
        title_items: [items]; of items that share a title the most popular in training first, ties by index.
        item_title: [items]; the title of an item.
        path_start: [titles + 1]; where the path of a title starts in `path_node`.
        path_node: the nodes of the paths, first token to end token; the tokens are token[path_node].
        items_below: [nodes]; items whose title goes through the node.
    """

    end_token: int
    child_start: Int64Array
    token: Int32Array
    parent: Int32Array
    depth: Int32Array
    alphabet: Int32Array
    symbol: Int32Array
    leaf_title: Int32Array
    title_leaf: Int32Array
    title_items_start: Int64Array
    title_items: Int32Array
    item_title: Int32Array
    path_start: Int64Array
    path_node: Int32Array
    items_below: Int64Array

    @classmethod
    def build(
        cls, tokens: ArrayLike, offsets: ArrayLike, *, end_token: int, popularity: ArrayLike | None = None
    ) -> TitleTrie:
        """Build the trie of a catalogue, level by level.

        Args:
            tokens: [sum of lengths]; the titles' tokens one after the other, each title closed by `end_token`.
            offsets: [items + 1]; the title of item i is tokens[offsets[i] : offsets[i + 1]].
            end_token: closes every title and occurs nowhere else.
            popularity: [items]; training counts, which order the items of one title; by index alone if absent.

        Raises:
            UserError: no items, an empty title, a title without the end token at its end or with one inside.
        """
        flat = np.asarray(tokens, dtype=np.int32)
        bounds = np.asarray(offsets, dtype=np.int64)
        _check_titles(flat, bounds, end_token)
        child_start, token, item_leaf = _build_levels(flat, bounds)
        title_leaf, item_title = np.unique(item_leaf, return_inverse=True)
        items = np.arange(len(item_title))
        counts = np.zeros(len(items), dtype=np.int64) if popularity is None else np.asarray(popularity, dtype=np.int64)
        title_items = np.lexsort((items, -counts, item_title)).astype(np.int32)
        title_items_start = _offsets(np.bincount(item_title, minlength=len(title_leaf)))
        return cls._assemble(child_start, token, title_items_start, title_items, end_token)

    @classmethod
    def from_lists(
        cls, titles: Sequence[Sequence[int]], *, end_token: int, popularity: ArrayLike | None = None
    ) -> TitleTrie:
        """Build from one list of tokens per item, each closed by `end_token`; see `build`."""
        offsets = _offsets(np.fromiter(map(len, titles), dtype=np.int64, count=len(titles)))
        tokens = np.fromiter(itertools.chain.from_iterable(titles), dtype=np.int32, count=int(offsets[-1]))
        return cls.build(tokens, offsets, end_token=end_token, popularity=popularity)

    @classmethod
    def _assemble(
        cls,
        child_start: Int64Array,
        token: Int32Array,
        title_items_start: Int64Array,
        title_items: Int32Array,
        end_token: int,
    ) -> TitleTrie:
        """Derive every other array from the ones that are saved."""
        children = np.diff(child_start)
        nodes = len(token)
        parent = np.full(nodes, -1, dtype=np.int32)
        parent[1:] = np.repeat(np.arange(nodes, dtype=np.int32), children)
        depth = np.empty(nodes, dtype=np.int32)
        for level, (first, end) in enumerate(_levels(child_start)):
            depth[first:end] = level
        alphabet = np.unique(token[1:])
        symbol = np.searchsorted(alphabet, token).astype(np.int32)
        symbol[ROOT] = -1
        title_leaf = np.flatnonzero(children == 0).astype(np.int32)
        leaf_title = np.full(nodes, -1, dtype=np.int32)
        leaf_title[title_leaf] = np.arange(len(title_leaf), dtype=np.int32)
        items_of_title = np.diff(title_items_start)
        item_title = np.empty(len(title_items), dtype=np.int32)
        item_title[title_items] = np.repeat(np.arange(len(title_leaf), dtype=np.int32), items_of_title)
        path_start = _offsets(depth[title_leaf])
        return cls(
            end_token=end_token,
            child_start=child_start,
            token=token,
            parent=parent,
            depth=depth,
            alphabet=alphabet,
            symbol=symbol,
            leaf_title=leaf_title,
            title_leaf=title_leaf,
            title_items_start=title_items_start,
            title_items=title_items,
            item_title=item_title,
            path_start=path_start,
            path_node=_walk_up(parent, title_leaf, path_start),
            items_below=_count_below(child_start, title_leaf, items_of_title),
        )

    @property
    def nodes(self) -> int:
        """Number of nodes, the root among them."""
        return len(self.token)

    @property
    def titles(self) -> int:
        """Number of distinct titles."""
        return len(self.title_leaf)

    @property
    def items(self) -> int:
        """Number of items."""
        return len(self.item_title)

    @cached_property
    def branching(self) -> BoolArray:
        """[nodes]; whether a node has more than one child: the only places where a title is decided."""
        return np.diff(self.child_start) > 1

    def children(self, node: int) -> Int64Array:
        """The child nodes of `node`, by ascending token."""
        return np.arange(self.child_start[node], self.child_start[node + 1])

    def items_of(self, title: int) -> Int32Array:
        """The items of a title, the most popular in training first."""
        return self.title_items[self.title_items_start[title] : self.title_items_start[title + 1]]

    def paths(self, items: ArrayLike) -> tuple[Int32Array, Int64Array]:
        """The paths of several items.

        Args:
            items: [n]; item indices, repeats allowed.

        Returns:
            The nodes [sum of lengths], first token to end token, and offsets [n + 1]: the path of the i-th item is
            nodes[offsets[i] : offsets[i + 1]].
        """
        title = self.item_title[np.asarray(items, dtype=np.int64)]
        start = self.path_start[title]
        offsets = _offsets(self.path_start[title + 1] - start)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))
        return self.path_node[np.repeat(start, np.diff(offsets)) + within], offsets

    def decided_after(self, items: ArrayLike) -> Int32Array:
        """[n]; the leading tokens after which exactly one title remains.

        It is the depth of the last node of the path whose parent branches: the whole length, end token included, where
        the title is a prefix of another; 0 in a catalogue of one title.
        """
        node = self.title_leaf[self.item_title[np.asarray(items, dtype=np.int64)]].astype(np.int64)
        forced = np.flatnonzero(~self.branching[self.parent[node]])
        while len(forced):
            node[forced] = self.parent[node[forced]]
            forced = forced[node[forced] != ROOT]
            forced = forced[~self.branching[self.parent[node[forced]]]]
        return self.depth[node]

    def restrict(self, allowed: ArrayLike) -> BoolArray:
        """[nodes]; the nodes with at least one allowed item below them (or at them).

        Args:
            allowed: [items]; a mask of items (in stock, not seen, of a category...).
        """
        return self.count_items(allowed) > 0

    def count_items(self, allowed: ArrayLike) -> Int64Array:
        """[nodes]; how many of the allowed items lie below each node (or at it); `allowed` as in `restrict`."""
        mask = np.asarray(allowed, dtype=np.bool_)
        allowed_of_title = np.bincount(self.item_title[mask], minlength=self.titles)
        return _count_below(self.child_start, self.title_leaf, allowed_of_title)

    def statistics(self) -> TrieStatistics:
        """Count what decides the cost of training and decoding; means are over distinct titles."""
        return TrieStatistics(
            items=self.items,
            titles=self.titles,
            shared_leaves=int((np.diff(self.title_items_start) > 1).sum()),
            nodes=self.nodes,
            alphabet=len(self.alphabet),
            mean_length=float(np.diff(self.path_start).mean()),
            mean_decided_after=float(self.decided_after(self.title_items[self.title_items_start[:-1]]).mean()),
            first_choices=len(self.children(ROOT)),
            forced_share=float(1 - self.branching[self.parent[self.path_node]].mean()),
        )

    def save(self, folder: Path) -> None:
        """Write `trie.npz` into `folder`: the arrays that the others follow from."""
        with whole_file(Path(folder) / FILE_NAME) as partial, partial.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                **{name: np.asarray(getattr(self, name), dtype) for name, dtype in SAVED.items()},
            )

    @classmethod
    def load(cls, folder: Path) -> TitleTrie:
        """Read what `save` wrote.

        Raises:
            UserError: the file is absent, damaged, or does not describe a trie.
        """
        path = Path(folder) / FILE_NAME
        mend = "build the trie again"
        try:
            with np.load(path, allow_pickle=False) as file:
                saved = {name: file[name] for name in SAVED}
        except FileNotFoundError as error:
            raise UserError("no such file", where=path, mend=mend) from error
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"is not a saved trie ({error})", where=path, mend=mend) from error
        fault = _find_fault(saved)
        if fault:
            raise UserError(f"is not a saved trie ({fault})", where=path, mend=mend)
        return cls._assemble(
            saved["child_start"],
            saved["token"],
            saved["title_items_start"],
            saved["title_items"],
            int(saved["end_token"]),
        )


def _offsets(lengths: ArrayLike) -> Int64Array:
    """[n + 1]; where each of n ragged rows starts, and the end of the last."""
    counts = np.asarray(lengths, dtype=np.int64)
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def _check_titles(tokens: Int32Array, offsets: Int64Array, end_token: int) -> None:
    """Raise UserError unless every title has a token and exactly one end token, at its end."""
    if len(offsets) < 2:
        raise UserError("the catalogue has no items", mend="give at least one title")
    lengths = np.diff(offsets)
    ends = tokens == end_token
    empty = np.flatnonzero(lengths == 0)
    if not len(empty):
        empty = np.flatnonzero((lengths == 1) & ends[offsets[:-1]])
    if len(empty):
        raise UserError(
            "the title is empty" + _and_others(empty), where=f"item {empty[0]}", mend="give it a title or leave it out"
        )
    if not ends[offsets[1:] - 1].all():
        unclosed = np.argmin(ends[offsets[1:] - 1])
        raise UserError(f"the title does not end with the end token {end_token}", where=f"item {unclosed}")
    if int(ends.sum()) > len(lengths):
        inside = np.flatnonzero(np.add.reduceat(ends, offsets[:-1], dtype=np.int64) > 1)
        raise UserError(
            f"the title holds the end token {end_token} before its end" + _and_others(inside),
            where=f"item {inside[0]}",
            mend="take the end token's text out of the title",
        )
    if int(tokens.min()) < 0:
        raise UserError("a token below 0", where=f"item {np.searchsorted(offsets, np.argmin(tokens), 'right') - 1}")


def _and_others(found: NDArray[np.intp]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


def _build_levels(tokens: Int32Array, offsets: Int64Array) -> tuple[Int64Array, Int32Array, Int64Array]:
    """Number the nodes breadth first; return child_start, token and the leaf of every item.

    On each level the titles that go on are grouped by (node, next token) in one 64-bit key; the sorted distinct keys
    are the nodes of the next level, in the order we want.
    """
    lengths = np.diff(offsets)
    item_node = np.zeros(len(lengths), dtype=np.int64)
    active = np.arange(len(lengths))
    level_tokens = [np.array([-1], dtype=np.int32)]
    level_children: list[Int64Array] = []
    first = 0  # first node of the level the active titles stand on
    depth = 0
    while len(active):
        key = (item_node[active] - first) << 32 | tokens[offsets[active] + depth]
        distinct, child = np.unique(key, return_inverse=True)
        width = len(level_tokens[-1])
        level_children.append(np.bincount(distinct >> 32, minlength=width))
        level_tokens.append((distinct & 0xFFFFFFFF).astype(np.int32))
        first += width
        depth += 1
        item_node[active] = first + child
        active = active[lengths[active] > depth]
    level_children.append(np.zeros(len(level_tokens[-1]), dtype=np.int64))
    child_start = _offsets(np.concatenate(level_children)) + 1
    return child_start, np.concatenate(level_tokens), item_node


def _levels(child_start: Int64Array) -> Iterator[tuple[int, int]]:
    """The first node and the end of every level, from the root down."""
    first, end = ROOT, ROOT + 1
    while first < end:
        yield first, end
        first, end = int(child_start[first]), int(child_start[end])


def _walk_up(parent: Int32Array, title_leaf: Int32Array, path_start: Int64Array) -> Int32Array:
    """The nodes of every title's path, first token to end token, found from the leaf up."""
    path_node = np.empty(path_start[-1], dtype=np.int32)
    node = title_leaf
    position = path_start[1:] - 1
    while len(node):
        path_node[position] = node
        node = parent[node]
        below_root = node != ROOT
        node, position = node[below_root], position[below_root] - 1
    return path_node


def _count_below(child_start: Int64Array, title_leaf: Int32Array, items_of_title: ArrayLike) -> Int64Array:
    """[nodes]; items below every node, summed level by level from the deepest."""
    below = np.zeros(len(child_start) - 1, dtype=np.int64)
    below[title_leaf] = items_of_title
    for first, end in reversed(list(_levels(child_start))):
        start = child_start[first : end + 1]
        running = _offsets(below[start[0] : start[-1]])[start - start[0]]
        below[first:end] += np.diff(running)
    return below


def _find_fault(saved: dict[str, NDArray[Any]]) -> str | None:
    """Say what keeps the saved arrays from describing a trie, or None; nothing is derived before this passes."""
    for name, dtype in SAVED.items():
        if saved[name].dtype != dtype or saved[name].ndim != (name != "end_token"):
            return f"{name} has the wrong type or shape"
    child_start, token, title_items_start, title_items, end_token = (saved[name] for name in SAVED)
    nodes = len(token)
    if nodes < 2 or len(child_start) != nodes + 1 or child_start[0] != 1 or child_start[-1] != nodes:
        return "child_start does not fit the nodes"
    if (np.diff(child_start) < 0).any() or (child_start[:-1] <= np.arange(nodes)).any():
        return "child_start does not number the nodes breadth first"
    leaf = np.diff(child_start) == 0
    if ((token == end_token) != leaf).any():
        return "the end token is not on the leaves alone"
    ascending = np.diff(token[1:]) > 0
    new_family = np.zeros(nodes - 1, dtype=np.bool_)
    new_family[child_start[:-1][~leaf] - 1] = True
    if not (ascending | new_family[1:]).all() or (token[1:] < 0).any():
        return "children are not sorted by token"
    if len(title_items_start) != leaf.sum() + 1 or title_items_start[0] != 0 or (np.diff(title_items_start) < 1).any():
        return "title_items_start does not fit the leaves"
    if title_items_start[-1] != len(title_items) or (np.sort(title_items) != np.arange(len(title_items))).any():
        return "title_items is not a permutation of the items"
    return None

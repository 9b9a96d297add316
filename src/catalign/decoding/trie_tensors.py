"""The trie on the model's device, with what the search looks up beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from catalign.catalogue.trie import TitleTrie

IntArray = npt.NDArray[np.integer]


@dataclass(frozen=True)
class TrieTensors:
    """Flat arrays of a trie as tensors (see `TitleTrie`), and two more.

    Attributes:
        run_end: [nodes]; where the forced run from a node ends: the first node below it (or itself) that branches or
            ends a title.
        title_below: [nodes]; one title whose path goes through the node; along a forced run it gives the run's tokens.
        items_below: [nodes]; items below each node that the catalogue-wide filter allows.
    """

    child_start: torch.Tensor
    token: torch.Tensor
    symbol: torch.Tensor
    depth: torch.Tensor
    leaf_title: torch.Tensor
    path_start: torch.Tensor
    path_node: torch.Tensor
    run_end: torch.Tensor
    title_below: torch.Tensor
    items_below: torch.Tensor
    alphabet: torch.Tensor

    @classmethod
    def of(cls, trie: TitleTrie, device: torch.device, allowed: npt.NDArray[np.bool_] | None = None) -> "TrieTensors":
        """Move a trie to a device; `allowed` [items] restricts the search to some items of the catalogue."""
        below = trie.items_below if allowed is None else trie.count_items(allowed)

        def tensor(array: IntArray) -> torch.Tensor:
            return torch.from_numpy(array.astype(np.int64)).to(device)

        return cls(
            child_start=tensor(trie.child_start),
            token=tensor(trie.token),
            symbol=tensor(trie.symbol),
            depth=tensor(trie.depth),
            leaf_title=tensor(trie.leaf_title),
            path_start=tensor(trie.path_start),
            path_node=tensor(trie.path_node),
            run_end=tensor(run_ends(trie)),
            title_below=tensor(titles_below(trie)),
            items_below=tensor(below),
            alphabet=tensor(trie.alphabet),
        )

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.token)

    def within(self, trie: TitleTrie, allowed: npt.NDArray[np.bool_]) -> "TrieTensors":
        """The same trie under another filter; everything else is shared."""
        below = trie.count_items(allowed).astype(np.int64)
        return replace(self, items_below=torch.from_numpy(below).to(self.token.device))


def run_ends(trie: TitleTrie) -> IntArray:
    """[nodes]; follow single children to the end, doubling the stride each time."""
    end = np.arange(trie.nodes)
    forced = np.diff(trie.child_start) == 1
    end[forced] = trie.child_start[:-1][forced]
    while True:
        further = end[end]
        if np.array_equal(further, end):
            return end
        end = further


def titles_below(trie: TitleTrie) -> IntArray:
    """[nodes]; the title of the first leaf below each node, found by following first children."""
    first = np.arange(trie.nodes)
    inner = np.diff(trie.child_start) > 0
    first[inner] = trie.child_start[:-1][inner]
    while True:
        further = first[first]
        if np.array_equal(further, first):
            return trie.leaf_title[first]
        first = further


class Exclusions:
    """Items that must not be recommended to one user each, as counts on trie nodes.

    A node is open to a user while an allowed item that is not excluded remains below it. Only the nodes on the paths of
    excluded items are stored.

    Args:
        trie: the trie.
        excluded: for each user of the batch the items to leave out.
        tensors: the trie on the device, its catalogue-wide filter applied.
        allowed: the catalogue-wide filter, [items], if there is one.
    """

    def __init__(
        self,
        trie: TitleTrie,
        excluded: Sequence[IntArray],
        tensors: TrieTensors,
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self._nodes = trie.nodes
        self._below = tensors.items_below
        sets = [np.unique(np.asarray(items, dtype=np.int64)) for items in excluded]
        if allowed is not None:
            sets = [items[allowed[items]] for items in sets]
        distinct, counts = _paths_of(trie, sets)
        self._key = torch.from_numpy(distinct).to(self._below.device)
        self._removed = torch.from_numpy(counts).to(self._below.device)

    def open(self, user_E: torch.Tensor, node_E: torch.Tensor) -> torch.Tensor:
        """Whether something may still be recommended below each node; shape [E]."""
        key_E = user_E * self._nodes + node_E
        found_E = torch.searchsorted(self._key, key_E)
        removed_E = torch.where(self._key[found_E] == key_E, self._removed[found_E], 0)
        return self._below[node_E] > removed_E


class Inclusions:
    """The only items that may be recommended to one user each: a node is open to a user while one of them is below it.

    Args:
        trie: the trie.
        included: for each user of the batch the items to search, each once.
        device: where the search runs.
    """

    def __init__(self, trie: TitleTrie, included: Sequence[IntArray], device: torch.device) -> None:
        self._nodes = trie.nodes
        self._key = torch.from_numpy(_paths_of(trie, included)[0]).to(device)

    def open(self, user_E: torch.Tensor, node_E: torch.Tensor) -> torch.Tensor:
        """Whether something may be recommended below each node; shape [E]."""
        key_E = user_E * self._nodes + node_E
        return self._key[torch.searchsorted(self._key, key_E)] == key_E


def _paths_of(trie: TitleTrie, sets: Sequence[IntArray]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The nodes on the paths of each user's items as keys (user times nodes, plus node), ascending, and their counts.

    A last key larger than any, of count 0, keeps a look-up inside the arrays.
    """
    user = np.repeat(np.arange(len(sets)), [len(items) for items in sets])
    items = np.concatenate(sets).astype(np.int64) if sets else np.zeros(0, dtype=np.int64)
    node, offsets = trie.paths(items)
    distinct, counts = np.unique(np.repeat(user, np.diff(offsets)) * trie.nodes + node, return_counts=True)
    return np.r_[distinct, np.iinfo(np.int64).max], np.r_[counts, 0]

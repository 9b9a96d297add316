"""Which tokens of a title are predicted, and what each is compared with.

Legend: S targets, P scored positions, E pairs of a scored position and a token valid there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from catalign.catalogue.trie import TitleTrie

Scores = Literal["vocabulary", "valid"]


@dataclass(frozen=True)
class Positions:
    """The scored positions of a list of targets.

    Attributes:
        window_P: the window each position belongs to.
        depth_P: tokens of the answer before the one predicted.
        gold_P: the gold token id (vocabulary), or the index into E of the gold child (valid).
        position_E: the position of each pair; empty for vocabulary scores.
        symbol_E: the row of the compact head of each pair.
        first_P: whether it is the window's first branching position.
        all_positions: target positions, forced ones included.
    """

    window_P: npt.NDArray[np.int64]
    depth_P: npt.NDArray[np.int64]
    gold_P: npt.NDArray[np.int64]
    position_E: npt.NDArray[np.int64]
    symbol_E: npt.NDArray[np.int64]
    first_P: npt.NDArray[np.bool_]
    all_positions: int


def scored_positions(trie: TitleTrie, target_S: npt.NDArray[np.int64], scores: Scores) -> Positions:
    """Find the positions of the targets' titles that carry loss.

    Under `vocabulary` every token of a title is predicted; under `valid` only those at a branching node, because the
    others contribute exactly 0 to loss and gradient.
    """
    node, offsets = trie.paths(target_S)
    lengths = np.diff(offsets)
    window = np.repeat(np.arange(len(target_S)), lengths)
    depth = np.arange(len(node)) - np.repeat(offsets[:-1], lengths)
    none = np.zeros(0, dtype=np.int64)
    if scores == "vocabulary":
        first = depth == 0
        return Positions(window, depth, trie.token[node].astype(np.int64), none, none, first, len(node))

    parent = trie.parent[node].astype(np.int64)
    scored = trie.branching[parent]
    node, window, depth, parent = node[scored], window[scored], depth[scored], parent[scored]
    first = np.r_[True, window[1:] != window[:-1]][: len(window)]
    start = trie.child_start[parent]
    children = trie.child_start[parent + 1] - start
    offset_P = np.r_[0, np.cumsum(children)[:-1]][: len(children)]
    position_E = np.repeat(np.arange(len(node)), children)
    child_E = np.arange(len(position_E)) + np.repeat(start - offset_P, children)
    return Positions(
        window_P=window,
        depth_P=depth,
        gold_P=offset_P + node - start,
        position_E=position_E,
        symbol_E=trie.symbol[child_E].astype(np.int64),
        first_P=first,
        all_positions=int(lengths.sum()),
    )


def needed_sequences(
    trie: TitleTrie,
    prompts: Sequence[npt.NDArray[np.int32]],
    target_S: npt.NDArray[np.int64],
    positions: Positions,
) -> list[npt.NDArray[np.int32]]:
    """Each prompt with the tokens of its target that a scored position needs; what comes after them is never read.

    Args:
        trie: the trie of the titles.
        prompts: S token arrays; the same array may stand for several targets.
        target_S: the items.
        positions: `scored_positions` of these items.
    """
    needed_S = np.zeros(len(target_S), dtype=np.int64)
    np.maximum.at(needed_S, positions.window_P, positions.depth_P)
    node, offsets = trie.paths(target_S)
    token = trie.token[node]
    return [
        np.concatenate([prompt, token[start : start + needed]])
        for prompt, start, needed in zip(prompts, offsets[:-1], needed_S, strict=True)
    ]


def text_positions(answers: Sequence[npt.NDArray[np.int32]]) -> Positions:
    """Positions of answers that need not be titles: every token is predicted and compared with the vocabulary.

    Args:
        answers: S token arrays, the end token among them, none empty.
    """
    lengths_S = np.fromiter(map(len, answers), dtype=np.int64, count=len(answers))
    window = np.repeat(np.arange(len(answers)), lengths_S)
    depth = np.arange(len(window)) - np.repeat(np.cumsum(lengths_S) - lengths_S, lengths_S)
    gold = np.concatenate([np.zeros(0, dtype=np.int64), *answers]).astype(np.int64)
    none = np.zeros(0, dtype=np.int64)
    return Positions(window, depth, gold, none, none, depth == 0, len(gold))

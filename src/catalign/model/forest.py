"""The prefix forest: many token sequences, their common prefixes stored and computed once.

Legend: S sequences, T length of the longest, R rows, N nodes of the longest row.

Sequences are sorted, so that each one shares its longest prefix with its neighbour; what it adds are the nodes after
that prefix. Numbered in this order the nodes of a row stand in depth-first order, and one integer per node tells the
whole attention pattern: with `end[j]` the number after the last node below j,

    j is an ancestor of i (or i itself)   <=>   j <= i < end[j].

A row is closed when the next sequence would take it over the token budget; the next one then starts with a whole
sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Forest:
    """Rows of merged sequences, padded on the right.

    Attributes:
        token_RN: token ids; padding holds token 0.
        depth_RN: position of the node in its sequence (0 for a first token).
        end_RN: number after the last node below this one; padding nodes are their own ancestors only. None where every
            row is one sequence, for which ordinary causal attention is enough.
        row_S: row that holds each sequence, in the order the sequences were given.
        node_ST: node number of every token of every sequence in its row, -1 after the sequence's end.
        tokens_in: tokens of all sequences before merging.
        tokens_out: nodes of all rows, padding not counted.
    """

    token_RN: torch.Tensor
    depth_RN: torch.Tensor
    end_RN: torch.Tensor | None
    row_S: IntArray
    node_ST: IntArray
    tokens_in: int
    tokens_out: int

    @property
    def pairs(self) -> int:
        """Pairs of a token and one that it may attend to (itself included); padding not counted."""
        if self.end_RN is not None:  # as many as a token's depth, and itself; padding has depth 0
            return int(self.depth_RN.sum()) + self.tokens_out
        length_S = (self.node_ST >= 0).sum(axis=1)
        return int((length_S * (length_S + 1) // 2).sum())

    def flat_nodes(self, sequence_P: IntArray, position_P: IntArray) -> IntArray:
        """Index into the flattened [R * N] nodes of token `position_P` of sequence `sequence_P`; shape [P]."""
        return self.row_S[sequence_P] * self.token_RN.shape[1] + self.node_ST[sequence_P, position_P]


def pack_forest(sequences: Sequence[npt.NDArray[np.integer]], budget: int) -> Forest:
    """Merge sequences into rows of at most `budget` nodes (a single longer sequence gets a row of its own length).

    Args:
        sequences: S arrays of token ids (>= 0), none empty.
        budget: most nodes in a row. Attention inside a row is dense, so its cost grows with the square of this.

    Returns:
        The forest; the same sequences give the same forest, whatever was packed before.
    """
    length_S, token_ST = _pad(sequences)
    order_S = _lexicographic_order(token_ST)
    length_S, token_ST = length_S[order_S], token_ST[order_S]
    shared_S = _shared_with_previous(token_ST, length_S)
    row_S = _fill_rows(length_S, shared_S, budget)
    first_S = np.r_[True, row_S[1:] != row_S[:-1]]
    shared_S[first_S] = 0

    column_T = np.arange(token_ST.shape[1])
    new_ST = (column_T >= shared_S[:, None]) & (column_T < length_S[:, None])
    added_S = length_S - shared_S
    total_S = np.cumsum(added_S)
    start_S = total_S - added_S
    start_S = start_S - start_S[first_S][row_S]  # first new node of each sequence, counted within its row

    node_ST = _node_numbers(new_ST, start_S, shared_S)
    node_ST[column_T >= length_S[:, None]] = -1
    end_ST = _subtree_ends(shared_S, start_S, first_S, start_S + added_S, token_ST.shape[1])

    rows, width = int(row_S[-1]) + 1, int(np.bincount(row_S, weights=added_S).max())
    token_RN = np.zeros((rows, width), dtype=np.int64)
    depth_RN = np.zeros((rows, width), dtype=np.int64)
    end_RN = np.tile(np.arange(1, width + 1), (rows, 1))
    sequence_n, position_n = np.nonzero(new_ST)
    row_n, node_n = row_S[sequence_n], node_ST[sequence_n, position_n]
    token_RN[row_n, node_n] = token_ST[sequence_n, position_n]
    depth_RN[row_n, node_n] = position_n
    end_RN[row_n, node_n] = end_ST[sequence_n, position_n]

    back_S = np.empty_like(order_S)
    back_S[order_S] = np.arange(len(order_S))
    return Forest(
        token_RN=torch.from_numpy(token_RN),
        depth_RN=torch.from_numpy(depth_RN),
        end_RN=torch.from_numpy(end_RN),
        row_S=row_S[back_S],
        node_ST=node_ST[back_S],
        tokens_in=int(length_S.sum()),
        tokens_out=int(added_S.sum()),
    )


def pack_rows(sequences: Sequence[npt.NDArray[np.integer]]) -> Forest:
    """Give every sequence a row of its own: nothing is shared, for architectures where sharing is not exact."""
    length_S, token_ST = _pad(sequences)
    column_T = np.arange(token_ST.shape[1])
    inside_ST = column_T < length_S[:, None]
    return Forest(
        token_RN=torch.from_numpy(np.where(inside_ST, token_ST, 0)),
        depth_RN=torch.from_numpy(np.tile(column_T, (len(length_S), 1))),
        end_RN=None,
        row_S=np.arange(len(length_S)),
        node_ST=np.where(inside_ST, column_T, -1),
        tokens_in=int(length_S.sum()),
        tokens_out=int(length_S.sum()),
    )


def ancestor_mask(end_RN: torch.Tensor) -> torch.Tensor:
    """Boolean attention mask [R, 1, N, N]: entry (i, j) says whether node i may attend to node j."""
    node_N = torch.arange(end_RN.shape[1], device=end_RN.device)
    visible = (node_N[None, None, :] <= node_N[None, :, None]) & (node_N[None, :, None] < end_RN[:, None, :])
    return visible[:, None]


def _pad(sequences: Sequence[npt.NDArray[np.integer]]) -> tuple[IntArray, IntArray]:
    """Lengths [S] and tokens [S, T], filled up with -1."""
    length_S = np.fromiter((len(sequence) for sequence in sequences), dtype=np.int64, count=len(sequences))
    if len(sequences) == 0 or length_S.min() == 0:
        raise ValueError("a forest needs at least one sequence, and no empty one")
    inside_ST = np.arange(length_S.max()) < length_S[:, None]
    token_ST = np.full(inside_ST.shape, -1, dtype=np.int64)
    token_ST[inside_ST] = np.concatenate(sequences)
    return length_S, token_ST


def _lexicographic_order(token_ST: IntArray) -> IntArray:
    """Order of the rows of a matrix: big-endian bytes compare as the tokens do (padding, 0 after the shift, first)."""
    bytes_S = np.ascontiguousarray((token_ST + 1).astype(">u4")).view(f"V{4 * token_ST.shape[1]}").ravel()
    return np.argsort(bytes_S, kind="stable")


def _shared_with_previous(token_ST: IntArray, length_S: IntArray) -> IntArray:
    """Length of the common prefix with the sequence before; 0 for the first."""
    differs_ST = token_ST[1:] != token_ST[:-1]
    shared_S = np.zeros(len(token_ST), dtype=np.int64)
    shared_S[1:] = np.where(differs_ST.any(axis=1), differs_ST.argmax(axis=1), length_S[1:])
    return np.minimum(shared_S, length_S)


def _fill_rows(length_S: IntArray, shared_S: IntArray, budget: int) -> IntArray:
    """Row of each sorted sequence: as many neighbours as the budget takes, then a new row."""
    total_S = np.cumsum(length_S - shared_S)
    row_S = np.zeros(len(length_S), dtype=np.int64)
    start, row = 0, 0
    while start < len(length_S):
        most = max(budget - length_S[start], 0) + total_S[start]  # what adds nothing is always taken in
        stop = max(int(np.searchsorted(total_S, most, side="right")), start + 1)
        row_S[start:stop] = row
        start, row = stop, row + 1
    return row_S


def _node_numbers(new_ST: npt.NDArray[np.bool_], start_S: IntArray, shared_S: IntArray) -> IntArray:
    """Node of every token: its own number where it is new, the number it was given above where it is shared."""
    sequence_S1 = np.arange(len(start_S))[:, None]
    owner_ST = np.maximum.accumulate(np.where(new_ST, sequence_S1, 0), axis=0)
    return (start_S - shared_S)[owner_ST] + np.arange(new_ST.shape[1])


def _subtree_ends(
    shared_S: IntArray, start_S: IntArray, first_S: npt.NDArray[np.bool_], stop_S: IntArray, columns: int
) -> IntArray:
    """Number after the last node below token t of sequence s: where the first later sequence of the row leaves at or
    before t, or the end of the row. Shape [S, T], meaningful for new nodes."""
    leaves_ST = shared_S[:, None] <= np.arange(columns)
    where_ST = np.where(leaves_ST, start_S[:, None], np.iinfo(np.int64).max)
    # A row's first sequence shares nothing: in its place stands the stop of the row before, which bounds all of it.
    where_ST[np.nonzero(first_S)[0][1:]] = stop_S[np.nonzero(first_S)[0][1:] - 1][:, None]
    end_ST = np.full_like(where_ST, stop_S[-1])
    end_ST[:-1] = where_ST[1:]
    # The nearest later sequence that leaves, looking from below: numbers only fall back at the start of a row.
    return _fill_upwards(end_ST, first_S)


def _fill_upwards(end_ST: IntArray, first_S: npt.NDArray[np.bool_]) -> IntArray:
    """Replace the "not here" marks by the value of the nearest later sequence that has one."""
    known_ST = end_ST != np.iinfo(np.int64).max
    sequence_S1 = np.arange(len(first_S))[:, None]
    source_ST = np.where(known_ST, sequence_S1, len(first_S) - 1)
    source_ST = np.minimum.accumulate(source_ST[::-1], axis=0)[::-1]
    return np.take_along_axis(end_ST, source_ST, axis=0)

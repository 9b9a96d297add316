"""MSL: the softmax over the tokens that the catalogue allows (papers: MSL, arXiv 2504.04178).

Legend: P = scored target positions of a batch; E = all (position, valid child) pairs, position after position;
H = width; A = rows of the head (the compact alphabet of the titles, or the whole vocabulary); U = those a batch uses.
"""

from typing import Literal

import torch
from torch import Tensor

from catalign.objectives.segments import at_least_float32, segment_logsumexp

Denominator = Literal["branching", "all"]
MANY_CHILDREN = 32  # more than this: by product, else pair by pair; any value gives the same logits


def valid_logits(
    hidden_PH: Tensor, head_AH: Tensor, position_E: Tensor, symbol_E: Tensor, bias_A: Tensor | None = None
) -> Tensor:
    """Return the logits of exactly the valid pairs, without logits of the vocabulary.

    The head's rows that the batch uses are gathered once. Positions with many valid children (the root, above all)
    share most of them, so they take one matrix product over the children of any of them, and the pairs are picked from
    it; the others take one inner product per pair. `docs/results/head.md` has the measurements behind this.

    Args:
        hidden_PH: hidden states at the scored positions.
        head_AH: rows of the output head, of the same type as `hidden_PH` unless under autocast.
        position_E: int64, the row of `hidden_PH` of each pair.
        symbol_E: int64, the row of `head_AH` of each pair.
        bias_A: the head's bias, if it has one.

    Returns:
        [E], in the type of a matrix product of the two.
    """
    symbol_U, column_E = _renumber(symbol_E, len(head_AH))
    head_UH = head_AH.index_select(0, symbol_U)
    wide_P = torch.bincount(position_E, minlength=len(hidden_PH)) > MANY_CHILDREN
    wide_E = wide_P.index_select(0, position_E)
    wide, narrow = wide_E.nonzero().squeeze(1), (~wide_E).nonzero().squeeze(1)
    by_product = _logits_by_product(hidden_PH, head_UH, position_E[wide], column_E[wide])
    by_pair = _logits_by_pair(hidden_PH, head_UH, position_E[narrow], column_E[narrow])
    logits_E = by_product.new_zeros(len(position_E)).index_copy(0, wide, by_product).index_copy(0, narrow, by_pair)
    return logits_E if bias_A is None else logits_E + bias_A.index_select(0, symbol_E)


def _logits_by_product(hidden_PH: Tensor, head_UH: Tensor, position_E: Tensor, column_E: Tensor) -> Tensor:
    """Multiply the positions that occur by the columns that occur; the product is not kept for the backward pass."""
    row, row_E = _renumber(position_E, len(hidden_PH))
    column, column_E = _renumber(column_E, len(head_UH))
    logits = torch.nn.functional.linear(hidden_PH.index_select(0, row), head_UH.index_select(0, column))
    return logits.flatten().index_select(0, row_E * len(column) + column_E)


def _logits_by_pair(hidden_PH: Tensor, head_UH: Tensor, position_E: Tensor, column_E: Tensor) -> Tensor:
    """Multiply row by row, which keeps [E, H] twice."""
    left_EH, right_EH = hidden_PH.index_select(0, position_E), head_UH.index_select(0, column_E)
    return torch.bmm(left_EH.unsqueeze(1), right_EH.unsqueeze(2)).flatten()


def _renumber(index_E: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the numbers below `size` that occur, ascending, and for each index its place among them."""
    occurs = torch.zeros(size, dtype=torch.bool, device=index_E.device).index_fill(0, index_E, True)
    return occurs.nonzero().squeeze(1), (occurs.cumsum(0) - 1).index_select(0, index_E)


def masked_softmax_losses(
    valid_logits_E: Tensor, position_E: Tensor, gold_P: Tensor, temperature: float | Tensor = 1.0
) -> Tensor:
    """Return -log softmax(z / temperature)[gold] over the valid tokens of each position.

    Written as log(sum over valid v of exp((z_v - z_gold) / temperature)): never negative, and exactly 0 with gradient
    exactly 0 where gold is the only valid token. Such positions may therefore be left out; `reduce_losses` counts them.

    Args:
        valid_logits_E: logits of the valid pairs; half precision is widened to float32.
        position_E: int64, the position of each pair, in [0, P).
        gold_P: int64, the index into E of the gold token of each position.
        temperature: tau > 0; carries no gradient.

    Returns:
        [P], float32 or float64.
    """
    logits_E = at_least_float32(valid_logits_E)
    margin_E = logits_E - logits_E.index_select(0, gold_P).index_select(0, position_E)
    return segment_logsumexp(margin_E / temperature, position_E, len(gold_P))


def reduce_losses(losses_P: Tensor, denominator: Denominator, positions: int) -> tuple[Tensor, int]:
    """Return the sum of the losses and the count to divide by.

    Sum and count stay apart, so that a trainer can divide by the count of all micro-batches and processes.

    Args:
        losses_P: losses of the branching positions (those with more than one valid token).
        denominator: "branching" divides by these positions (the authors' adaptive script), "all" by all target
            positions (their fixed-temperature script).
        positions: number of target positions in the batch, single-child ones included.
    """
    count = {"branching": len(losses_P), "all": positions}[denominator]
    return losses_P.sum(), count

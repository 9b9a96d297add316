"""BEAR: weigh every token by how far it stands above the edge of the beam (arXiv 2601.22925), an option of MSL.

A beam search of width B can only keep a title if each of its tokens is among the B best of its step. With q_B the B-th
largest probability of a valid token, the loss L_t of a position is multiplied by

    w_t = 1 + lambda * sigmoid((log p_gold - log q_B) / xi),

which carries no gradient. This is the formula of the released code; its gradient is that of the regulariser
lambda * xi * log sigmoid((log q_B - log p_gold) / xi) beside L_t with q_B held fixed (our algebra), a smooth measure
of what the beam prunes. We had the code at hand and not the paper, so no equation numbers stand here.

Two deviations from the released code. It divides by the sum of the weights of a micro-batch; we divide as MSL does, so
that the size of a micro-batch changes nothing. And where fewer than B tokens are valid it takes the least probable of
them for q_B; there nothing can be pruned, so we add no term.

Legend: P = scored positions of a batch; E = all (position, valid child) pairs.
"""

import torch
from torch import Tensor

from catalign.objectives.segments import at_least_float32


@torch.no_grad()
def beam_margins(
    valid_logits_E: Tensor, position_E: Tensor, gold_P: Tensor, beams: int, temperature: float | Tensor = 1.0
) -> Tensor:
    """log p_gold - log q_B of every position: below 0 where a beam search of this width loses the token.

    Both are probabilities of one softmax, so the margin is a difference of logits over the temperature.

    Args:
        valid_logits_E: logits of the valid pairs; half precision is widened to float32.
        position_E: int64, the position of each pair, in [0, P).
        gold_P: int64, the index into E of the gold token of each position.
        beams: B, at least 1.
        temperature: tau of the softmax, above 0.

    Returns:
        [P], float32 or float64, without gradient; inf where fewer than B tokens are valid.

    Raises:
        ValueError: beams below 1.
    """
    if beams < 1:
        raise ValueError(f"beams must be at least 1, not {beams}")
    logits_E = at_least_float32(valid_logits_E)
    children_P = torch.bincount(position_E, minlength=len(gold_P))
    wide_P = children_P >= beams
    wide_E = wide_P.index_select(0, position_E)
    logits, position = logits_E[wide_E], position_E[wide_E]
    order = logits.argsort(descending=True)
    order = order[position[order].argsort(stable=True)]  # by position, the best of each first
    end_W = children_P[wide_P].cumsum(0)
    edge_W = logits[order[end_W - children_P[wide_P] + beams - 1]]
    margin_P = logits_E.new_full((len(gold_P),), torch.inf)
    margin_P[wide_P] = (logits_E[gold_P[wide_P]] - edge_W) / temperature
    return margin_P


def beam_weights(margin_P: Tensor, weight: float, temperature: float = 1.0) -> Tensor:
    """w_t = 1 + weight * sigmoid(margin / temperature) of every position; 1 where nothing can be pruned. [P].

    Args:
        margin_P: from `beam_margins`.
        weight: lambda, at least 0.
        temperature: xi, how sharp the edge is; above 0.

    Raises:
        ValueError: a weight below 0, or a temperature not above 0.
    """
    if weight < 0 or temperature <= 0:
        raise ValueError(f"weight must be at least 0 and temperature above 0, not {weight} and {temperature}")
    return torch.where(margin_P.isfinite(), 1 + weight * torch.sigmoid(margin_P / temperature), 1.0)

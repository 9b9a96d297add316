"""LML: the softmax over the whole vocabulary, at response positions only.

Legend: P = scored target positions of a batch; H = width; V = vocabulary.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear_cross_entropy

from catalign.objectives.segments import at_least_float32

LOGITS_AT_ONCE = 2**24  # logits of one chunk: 64 MB in float32


def language_losses(
    hidden_PH: Tensor,
    head_VH: Tensor,
    gold_P: Tensor,
    temperature: float | Tensor = 1.0,
    bias_V: Tensor | None = None,
) -> Tensor:
    """Return -log softmax(z / temperature)[gold] over the vocabulary, without logits [P, V] of a large batch.

    `torch.nn.functional.linear_cross_entropy` takes positions in chunks and computes each chunk's logits again in the
    backward pass. Its own choice of chunk goes down to single rows at vocabulary 128,256, 13 times slower than the
    chunk taken here; a batch that is one chunk takes the plain form, which is the fastest. The temperature divides the
    hidden states (and the bias), which is the same as dividing the logits.

    Args:
        hidden_PH: hidden states at the positions that predict a response token.
        head_VH: the output head; taken in the type of `hidden_PH`.
        gold_P: int64 token ids.
        temperature: tau > 0; carries no gradient.
        bias_V: the head's bias, if it has one.

    Returns:
        [P], float32, or float64 for float64 input. With half-precision hidden states each loss carries their rounding.
    """
    rows = max(LOGITS_AT_ONCE // len(head_VH), 1)
    chunks = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=rows, chunking_method=None)
    losses_P = linear_cross_entropy(
        (hidden_PH / temperature).to(hidden_PH.dtype),
        head_VH.to(hidden_PH.dtype),
        gold_P,
        linear_bias=None if bias_V is None else (bias_V / temperature).to(hidden_PH.dtype),
        reduction="none",
        options=chunks if len(hidden_PH) > rows else None,
    )
    return at_least_float32(losses_P)

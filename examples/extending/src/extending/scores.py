"""A decoder's score: the softmax of the valid tokens at temperature 2, so that one unlikely token sinks no title.

    catalign evaluate runs/msl --score extending.scores:flat

Legend: P = branching positions; E = all (position, valid token) pairs.
"""

from torch import Tensor

from catalign.decoding.scores import valid_increments

TEMPERATURE = 2.0


def flat(logits_E: Tensor, position_E: Tensor, positions: int) -> Tensor:
    """Log-probability of each valid token at temperature 2; [E], at most 0."""
    return valid_increments(logits_E / TEMPERATURE, position_E, positions)

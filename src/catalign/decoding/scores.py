"""How a search scores the tokens of a title: two ways of our own, and those from outside the package.

Legend: P = branching positions (nodes of the trie with more than one child, each behind a prompt); E = all (position,
valid token) pairs.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor

from catalign.errors import UserError
from catalign.objectives import segment_logsumexp
from catalign.plugins import OutsideName, load

ScoreMode = Literal["valid", "full"] | OutsideName
"""`valid`: log-probabilities of the softmax over the tokens that continue a title; `full`: over the whole vocabulary;
else the name of an `Increments`."""


class Increments(Protocol):
    """What each token adds to the score of a title that goes on with it.

    `valid_increments` is one. Another, twice as flat:

        def flat(logits_E, position_E, positions):
            return valid_increments(logits_E / 2, position_E, positions)

        catalign evaluate runs/msl --score my_package.scores:flat

    The score of a title is the sum over its branching positions, in the search as in the ranking of candidates. Tokens
    without an alternative add nothing. No increment may be above 0: the search stops when no open beam can pass the
    worst title that it keeps, and relies on that scores only fall.
    """

    def __call__(self, logits_E: Tensor, position_E: Tensor, positions: int) -> Tensor:
        """Return the increment of every pair.

        Args:
            logits_E: logits of the valid pairs, float32.
            position_E: int64, the position of each pair, in [0, P), ascending.
            positions: P.

        Returns:
            [E], of a floating type, at most 0.
        """


def valid_increments(logits_E: Tensor, position_E: Tensor, positions: int) -> Tensor:
    """Log-probability of each valid token among those of its position; [E]."""
    return logits_E - segment_logsumexp(logits_E, position_E, positions)[position_E]


def increments_named(name: str) -> Increments:
    """The score of this name, `valid` or one from outside whose answers are checked.

    Raises:
        UserError: there is none, or it does not fit the protocol.
    """
    if name == "valid":
        return valid_increments
    increments: Increments = load(name, Increments, where="score")

    def checked(logits_E: Tensor, position_E: Tensor, positions: int) -> Tensor:
        found_E = increments(logits_E, position_E, positions)
        if not isinstance(found_E, Tensor) or found_E.shape != logits_E.shape or not found_E.is_floating_point():
            said = f"{list(found_E.shape)} {found_E.dtype}" if isinstance(found_E, Tensor) else str(type(found_E))
            raise UserError(f"gives {said}", where=f"score {name}", mend=f"[{len(logits_E)}] increments are expected")
        if not bool((found_E <= 0).all()):
            mend = "the search relies on that scores only fall"
            raise UserError("gives an increment above 0, or none", where=f"score {name}", mend=mend)
        alone_P = torch.bincount(position_E, minlength=positions) == 1  # the root may have one child
        return found_E.masked_fill(alone_P[position_E], 0)

    return checked

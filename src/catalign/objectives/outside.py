"""What an objective from outside the package looks like, and how it is found.

Legend: P = scored positions of a batch; E = all (position, valid token) pairs.
"""

from typing import Protocol

import torch
from torch import Tensor

from catalign.errors import UserError
from catalign.plugins import load


class TokenLosses(Protocol):
    """The loss of every scored position, from the logits of the tokens that continue a title there.

    `masked_softmax_losses` is one. Another:

        def squared(valid_logits_E, position_E, gold_P, temperature=1.0):
            losses_P = masked_softmax_losses(valid_logits_E, position_E, gold_P, temperature)
            return losses_P * (1 - torch.exp(-losses_P)) ** 2

        catalign train --objective my_package.losses:squared --dataset ds --model lm --output runs/squared

    It stands where MSL's formula stands: temperature, denominator, the adaptive temperature and BEAR's weights go with
    it, and the sum over positions is divided by their number.
    """

    def __call__(
        self, valid_logits_E: Tensor, position_E: Tensor, gold_P: Tensor, temperature: float | Tensor = 1.0
    ) -> Tensor:
        """Return the loss of every position.

        Args:
            valid_logits_E: logits of the valid pairs, float32, with gradient.
            position_E: int64, the position of each pair, in [0, P), ascending.
            gold_P: int64, the index into E of the gold token of each position.
            temperature: tau of the recipe, above 0.

        Returns:
            [P], of a floating type, with gradient.
        """


def losses_named(name: str) -> TokenLosses:
    """The objective of this name, whose answers are checked.

    Raises:
        UserError: there is none, or it does not fit the protocol.
    """
    losses: TokenLosses = load(name, TokenLosses, where="objective")

    def checked(
        valid_logits_E: Tensor, position_E: Tensor, gold_P: Tensor, temperature: float | Tensor = 1.0
    ) -> Tensor:
        losses_P = losses(valid_logits_E, position_E, gold_P, temperature)
        if not isinstance(losses_P, Tensor) or losses_P.shape != gold_P.shape or not losses_P.is_floating_point():
            said = f"{list(losses_P.shape)} {losses_P.dtype}" if isinstance(losses_P, Tensor) else str(type(losses_P))
            raise UserError(f"gives {said}", where=f"objective {name}", mend=f"[{len(gold_P)}] losses are expected")
        if torch.is_grad_enabled() and valid_logits_E.requires_grad and not losses_P.requires_grad:
            raise UserError("its losses have no gradient", where=f"objective {name}", mend="leave out detach and item")
        return losses_P

    return checked

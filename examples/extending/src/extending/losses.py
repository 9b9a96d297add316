"""An objective: MSL that cares less about tokens it already knows (the focal loss, Lin et al., arXiv 1708.02002).

    catalign train --objective extending.losses:focal --dataset ds --model lm --output runs/focal

Legend: P = scored positions; E = all (position, valid token) pairs.
"""

import torch
from torch import Tensor

from catalign.objectives import masked_softmax_losses


def focal(
    valid_logits_E: Tensor, position_E: Tensor, gold_P: Tensor, temperature: float | Tensor = 1.0, gamma: float = 2.0
) -> Tensor:
    """-(1 - p)^gamma log p of the gold token among the valid ones; [P]. With gamma 0 it is MSL."""
    losses_P = masked_softmax_losses(valid_logits_E, position_E, gold_P, temperature)
    return (1 - torch.exp(-losses_P)) ** gamma * losses_P

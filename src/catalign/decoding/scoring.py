"""From hidden states to the losses that training minimises and ranking sums: the model's head beside the formulas.

Legend: P scored positions, E pairs of a scored position and a valid token, H width, V vocabulary, A alphabet.
"""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from catalign.decoding.scores import ScoreMode, increments_named
from catalign.model.language_model import LanguageModel
from catalign.objectives import language_losses, masked_softmax_losses, valid_logits
from catalign.objectives.language import LOGITS_AT_ONCE


def vocabulary_losses(
    model: LanguageModel, hidden_PH: torch.Tensor, gold_P: torch.Tensor, temperature: float | torch.Tensor = 1.0
) -> torch.Tensor:
    """-log p of the gold tokens under the whole vocabulary (LML); shape [P].

    Under autocast too the logits are those of the head's own type: torch would take half precision for a few positions
    and float32 for many, and a preference compares log-probabilities that come from both.

    Capped logits are made a few rows at a time, and again in the backward pass.
    """
    head_VH, bias_V = model.head_VH, model.head_bias_V
    hidden_PH = hidden_PH.to(torch.promote_types(hidden_PH.dtype, head_VH.dtype))
    with torch.autocast(hidden_PH.device.type, enabled=False):
        if not model.caps_logits:
            return language_losses(hidden_PH, head_VH, gold_P, temperature, bias_V)
        rows = max(LOGITS_AT_ONCE // len(head_VH), 1)
        parts = zip(torch.split(hidden_PH, rows), torch.split(gold_P, rows), strict=True)

        def losses(hidden_RH: torch.Tensor, gold_R: torch.Tensor) -> torch.Tensor:
            logits_RV = nn.functional.linear(hidden_RH, head_VH.to(hidden_RH.dtype), bias_V)
            logits_RV = model.finish_logits(logits_RV.float())
            return nn.functional.cross_entropy(logits_RV / temperature, gold_R, reduction="none")

        return torch.cat([checkpoint(losses, hidden, gold, use_reentrant=False) for hidden, gold in parts])


def child_logits(
    model: LanguageModel,
    alphabet_A: torch.Tensor,
    hidden_PH: torch.Tensor,
    position_E: torch.Tensor,
    symbol_E: torch.Tensor,
) -> torch.Tensor:
    """Logits [E] of the valid tokens, in float32 whatever the trunk computes in; `symbol_E` indexes the alphabet."""
    with torch.autocast(hidden_PH.device.type, enabled=False):
        bias_V = model.head_bias_V
        bias_A = None if bias_V is None else bias_V[alphabet_A].float()
        head_AH = model.head_VH[alphabet_A].float()
        return model.finish_logits(valid_logits(hidden_PH.float(), head_AH, position_E, symbol_E, bias_A))


def token_losses(
    model: LanguageModel,
    alphabet_A: torch.Tensor,
    hidden_PH: torch.Tensor,
    gold_P: torch.Tensor,
    position_E: torch.Tensor,
    symbol_E: torch.Tensor,
    score: ScoreMode,
) -> torch.Tensor:
    """-log p of the gold tokens as a search scores them, at temperature 1; of an outside score -increments. [P]."""
    if score == "full":
        return vocabulary_losses(model, hidden_PH, gold_P)
    logits_E = child_logits(model, alphabet_A, hidden_PH, position_E, symbol_E)
    if score == "valid":
        return masked_softmax_losses(logits_E, position_E, gold_P)
    return -increments_named(score)(logits_E, position_E, len(gold_P))[gold_P]

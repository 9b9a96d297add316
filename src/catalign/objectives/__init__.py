"""Losses as pure functions of tensors, one formula in one place."""

from catalign.objectives.bear import beam_margins, beam_weights
from catalign.objectives.curriculum import self_distilled_weight
from catalign.objectives.language import language_losses
from catalign.objectives.masked import Denominator, masked_softmax_losses, reduce_losses, valid_logits
from catalign.objectives.preference import (
    Preference,
    margins,
    mean_of_examples,
    positive_losses,
    preference_losses,
)
from catalign.objectives.segments import segment_logsumexp
from catalign.objectives.temperature import AdaptiveTemperature, adaptive_temperature

__all__ = [
    "AdaptiveTemperature",
    "Denominator",
    "Preference",
    "adaptive_temperature",
    "beam_margins",
    "beam_weights",
    "language_losses",
    "margins",
    "masked_softmax_losses",
    "mean_of_examples",
    "positive_losses",
    "preference_losses",
    "reduce_losses",
    "segment_logsumexp",
    "self_distilled_weight",
    "valid_logits",
]

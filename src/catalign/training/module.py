"""The loss of a batch, computed inside one module's forward pass, so that every wrapper around it sees the gradient.

Legend: R rows, N nodes, P scored positions, E pairs of a scored position and a valid token, A alphabet, H width.
"""

from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from transformers import TrainerCallback

from catalign.catalogue.trie import TitleTrie
from catalign.decoding.scoring import child_logits, vocabulary_losses
from catalign.model.language_model import LanguageModel
from catalign.objectives.bear import beam_margins, beam_weights
from catalign.objectives.masked import Denominator, masked_softmax_losses, reduce_losses
from catalign.objectives.outside import losses_named
from catalign.objectives.temperature import AdaptiveTemperature
from catalign.plugins import OutsideName, is_outside
from catalign.prompting.positions import Scores
from catalign.training.callbacks import KeptTokens, TemperatureStep


class Objective(BaseModel):
    """What is minimised.

    Attributes:
        name: `lml`, the softmax over the vocabulary; `msl`, over the tokens that continue a title; or the name of a
            function from outside the package that stands in place of MSL's formula, see `objectives.outside`.
        temperature: tau; or `adaptive` (msl only), moved by ATS from `first_temperature` on.
        denominator: msl: average over `branching` positions (the authors' adaptive script) or `all` target positions
            (their fixed-temperature script). lml always averages over all.
        first_temperature: ATS: where the temperature starts.
        eta: ATS: the probability of the gold token aimed at on the first branching position.
        momentum: ATS: share of the new temperature in the moving average.
        bear_weight: BEAR (msl only): lambda, by how much more a token weighs that a beam search keeps; 0 is without.
        bear_beams: BEAR: width of that search.
        bear_temperature: BEAR: xi, how sharp the edge of the beam is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["lml", "msl"] | OutsideName = "msl"
    temperature: float | Literal["adaptive"] = Field(default=1.0)
    denominator: Denominator = "branching"
    first_temperature: float = Field(default=1.5, gt=0)
    eta: float = Field(default=0.25, gt=0, lt=1)
    momentum: float = Field(default=0.05, gt=0, le=1)
    bear_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    bear_beams: int = Field(default=10, ge=1)
    bear_temperature: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> "Objective":
        if self.temperature == "adaptive":
            if self.name == "lml":
                raise ValueError("the adaptive temperature belongs to msl")
        elif self.temperature <= 0:
            raise ValueError("the temperature must be above 0")
        if self.bear_weight and self.name == "lml":
            raise ValueError("the bear weight belongs to msl")
        return self

    @property
    def scores(self) -> Scores:
        """Which tokens the gold token is compared with."""
        return "vocabulary" if self.name == "lml" else "valid"

    @property
    def label(self) -> str:
        """Short name for tables: lml, msl, msl+ats, msl+bear, one's own, with the temperature where it is not 1."""
        adaptive = self.temperature == "adaptive"
        name = self.name.rpartition(":")[2] + "+ats" * adaptive + "+bear" * bool(self.bear_weight)
        return name if adaptive or self.temperature == 1 else f"{name} tau={self.temperature:g}"


class LossModule(nn.Module):
    """A language model and a loss, as the trainer sees them.

    `forward` returns the batch's sum of losses divided by `num_items_in_batch`, what `count_items` counts in the whole
    step (all micro-batches of all processes), so that the size of a micro-batch does not change the gradient.
    """

    accepts_loss_kwargs = True  # the Trainer hands num_items_in_batch to forward

    def __init__(self, model: LanguageModel, trie: TitleTrie) -> None:
        super().__init__()
        self.model = model
        self.alphabet_A: torch.Tensor
        self.register_buffer("alphabet_A", torch.from_numpy(trie.alphabet.astype(np.int64)), persistent=False)

    @property
    def config(self) -> object:
        """The Hugging Face configuration, where the Trainer looks for it."""
        return self.model.base.config

    def count_items(self, batch: dict[str, torch.Tensor]) -> int | torch.Tensor:
        """What a batch adds to the denominator of a step's loss; of several losses a tensor, one entry each."""
        raise NotImplementedError

    def callbacks(self) -> list[TrainerCallback]:
        """What the loss wants to be told of the training."""
        return []


class TrainingModule(LossModule):
    """A language model and the loss it is trained with: LML, MSL or one's own, averaged over scored positions."""

    def __init__(self, model: LanguageModel, objective: Objective, trie: TitleTrie) -> None:
        super().__init__(model, trie)
        self.objective = objective
        self.adaptive = (
            AdaptiveTemperature(objective.first_temperature, objective.eta, objective.momentum)
            if objective.temperature == "adaptive"
            else None
        )
        self.kept = KeptTokens() if objective.bear_weight else None
        self._masked = losses_named(objective.name) if is_outside(objective.name) else masked_softmax_losses

    def callbacks(self) -> list[TrainerCallback]:
        """The adaptive temperature moves with the steps; with BEAR it is logged what a beam search would keep."""
        temperature = [] if self.adaptive is None else [TemperatureStep(self.adaptive)]
        return [*temperature, *([] if self.kept is None else [self.kept])]

    def count_items(self, batch: dict[str, torch.Tensor]) -> int | torch.Tensor:
        """Scored positions of a batch, as the objective's denominator counts them."""
        if self.objective.denominator == "branching" or self.objective.name == "lml":
            return len(batch["node_P"])
        return int(batch["all_positions"])

    def forward(
        self, *, num_items_in_batch: torch.Tensor | int | None = None, **batch: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return {"loss": the loss}; the arguments are those of `BatchMaker`."""
        losses_P = self.token_losses(**batch)
        denominator = "branching" if self.objective.name == "lml" else self.objective.denominator
        total, count = reduce_losses(losses_P, denominator, int(batch["all_positions"]))
        loss = total / max(int(num_items_in_batch if num_items_in_batch is not None else count), 1)
        return {"loss": self.scaled(loss)}

    def token_losses(
        self,
        *,
        token_RN: torch.Tensor,
        depth_RN: torch.Tensor,
        node_P: torch.Tensor,
        gold_P: torch.Tensor,
        position_E: torch.Tensor,
        symbol_E: torch.Tensor,
        first_P: torch.Tensor,
        end_RN: torch.Tensor | None = None,
        **_: torch.Tensor,
    ) -> torch.Tensor:
        """-log p of the gold token at every scored position, times its BEAR weight; [P], float32. ATS looks on."""
        hidden_PH = self.model.hidden_states(token_RN, depth_RN, end_RN, node_P)
        if self.objective.name == "lml":
            return vocabulary_losses(self.model, hidden_PH, gold_P, self._temperature())
        return self._masked_losses(hidden_PH, gold_P, position_E, symbol_E, first_P)

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss as it is minimised: under ATS times the temperature, so that it does not weigh less for it."""
        return loss * self.adaptive.temperature if self.adaptive is not None else loss

    def _temperature(self) -> float | torch.Tensor:
        if self.adaptive is not None:
            return self.adaptive.temperature
        return float(self.objective.temperature)

    def _masked_losses(
        self,
        hidden_PH: torch.Tensor,
        gold_P: torch.Tensor,
        position_E: torch.Tensor,
        symbol_E: torch.Tensor,
        first_P: torch.Tensor,
    ) -> torch.Tensor:
        """MSL, or what stands in its place, at every branching position; the logits in float32 always."""
        logits_E = child_logits(self.model, self.alphabet_A, hidden_PH, position_E, symbol_E)
        if self.adaptive is not None and self.training:
            chosen_E = first_P[position_E]
            renumbered_E = chosen_E.cumsum(0) - 1
            self.adaptive.observe(logits_E[chosen_E], renumbered_E[gold_P[first_P]])
        losses_P = self._masked(logits_E, position_E, gold_P, self._temperature())
        if self.kept is None:
            return losses_P
        margin_P = beam_margins(logits_E, position_E, gold_P, self.objective.bear_beams, self._temperature())
        self.kept.observe(margin_P)
        return losses_P * beam_weights(margin_P, self.objective.bear_weight, self.objective.bear_temperature)

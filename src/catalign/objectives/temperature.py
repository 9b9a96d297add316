"""ATS: the temperature of MSL that follows the model (papers: MSL, Adaptive Temperature Strategy).

Legend: E = (position, valid token) pairs; P = positions.
"""

import logging
import math

import torch
from torch import Tensor

from catalign.objectives.segments import at_least_float32

logger = logging.getLogger(__name__)


def adaptive_temperature(
    gold_mean: float,
    valid_mean: float,
    valid_variance: float,
    valid_count: float,
    eta: float = 0.25,
    low: float = 1.5,
    high: float = 5.0,
) -> float | None:
    """Return tau*, the temperature at which gold is expected to have probability `eta` among the valid tokens.

    With D = gold_mean - valid_mean and C = log(valid_count * eta):
    tau* = (D + sqrt(max(D^2 - 2 C valid_variance, 0))) / (2 C), clamped to [low, high].

    Args:
        gold_mean: mean logit of the gold tokens.
        valid_mean: mean logit of all valid tokens, gold included.
        valid_variance: their variance, with n - 1 as in the released code.
        valid_count: N, valid tokens at a position.
        eta: probability aimed at.
        low: smallest temperature.
        high: largest temperature.

    Returns:
        tau*, or None where N * eta <= 1: there C <= 0 and no positive temperature makes gold as improbable as `eta`.
    """
    if valid_count * eta <= 1:
        return None
    margin = gold_mean - valid_mean
    log_ratio = math.log(valid_count * eta)
    root = math.sqrt(max(margin**2 - 2 * log_ratio * valid_variance, 0.0))
    return min(max((margin + root) / (2 * log_ratio), low), high)


class AdaptiveTemperature(torch.nn.Module):
    """The moving temperature of one training run.

    `observe` is called for every micro-batch, `step` once per optimiser step. The loss of a batch is
    `temperature * mean(masked_softmax_losses(..., temperature))` over positions with more than one valid token.

    Deviation: the released code moves the temperature by the batch at hand and then uses it. Here a step uses the
    temperature that the step before it left, so that eight micro-batches of one and one of eight give equal losses.

    The buffer `temperature` is float32 (`.double()` makes it float64); do not cast it to half precision, where the
    small moves of the average would be lost.

    Args:
        first: temperature of the first step.
        eta: gold probability aimed at on the first branching position, in (0, 1).
        momentum: a, the share of tau* in the moving average.
        low: smallest tau*.
        high: largest tau*.
    """

    temperature: Tensor

    def __init__(
        self, first: float = 1.5, eta: float = 0.25, momentum: float = 0.05, low: float = 1.5, high: float = 5.0
    ) -> None:
        super().__init__()
        self.eta, self.momentum, self.low, self.high = eta, momentum, low, high
        self.register_buffer("temperature", torch.tensor(first, dtype=torch.float32))
        self._moments: list[Tensor] = []
        self._warned = False

    @torch.no_grad()
    def observe(self, valid_logits_E: Tensor, gold_P: Tensor) -> None:
        """Take in one micro-batch; the temperature stays as it is.

        Args:
            valid_logits_E: logits of the valid tokens at the first branching target position of each example.
            gold_P: int64, the index into E of each example's gold token.
        """
        if len(gold_P) == 0:
            return
        logits_E = at_least_float32(valid_logits_E)
        golds, valids = logits_E.new_tensor([len(gold_P), len(logits_E)])
        valid_mean = logits_E.mean()
        gold_mean = logits_E.index_select(0, gold_P).mean()
        self._moments.append(
            torch.stack([golds, gold_mean, valids, valid_mean, (logits_E - valid_mean).square().sum()])
        )

    def forget(self) -> None:
        """Drop what was observed since the last step, because it is computed anew."""
        self._moments.clear()

    @torch.no_grad()
    def step(self) -> None:
        """Move the average by what all micro-batches of all processes observed, and forget that.

        Where N * eta <= 1 the temperature stays where it is, and a log line says so once. N is the mean over the
        examples where they differ in it. Every process must call this, whether it observed anything or not.
        """
        golds, gold_mean, valids, valid_mean, squares = self._pooled().tolist()
        self._moments.clear()
        if golds == 0:
            return
        variance = squares / max(valids - 1, 1)
        target = adaptive_temperature(gold_mean, valid_mean, variance, valids / golds, self.eta, self.low, self.high)
        if target is not None:
            self.temperature.mul_(1 - self.momentum).add_(self.momentum * target)
        elif not self._warned:
            self._warned = True
            logger.warning(
                "adaptive temperature: %.1f valid tokens at the first branching position times eta %g is not above 1, "
                "so no temperature reaches eta; it stays at %.3f",
                valids / golds, self.eta, float(self.temperature),
            )  # fmt: skip

    def _pooled(self) -> Tensor:
        """Return the moments of everything observed since the last step, in every process."""
        empty = self.temperature.new_zeros(5)
        moments = _pool(torch.stack([empty, *(row.to(empty) for row in self._moments)]))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rows = [torch.empty_like(moments) for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather(rows, moments)
            moments = _pool(torch.stack(rows))
        return moments


def _pool(moments: Tensor) -> Tensor:
    """Merge rows of (golds, their mean, valids, their mean, squared deviations) into one (Chan et al., 1979).

    Means and squared deviations are merged instead of sums of squares, which would cancel for logits far from 0.
    """
    golds, gold_means, valids, valid_means, squares = moments.unbind(1)
    gold_total, valid_total = golds.sum(), valids.sum()
    gold_mean = (golds * gold_means).sum() / gold_total.clamp(min=1)
    valid_mean = (valids * valid_means).sum() / valid_total.clamp(min=1)
    spread = squares.sum() + (valids * (valid_means - valid_mean).square()).sum()
    return torch.stack([gold_total, gold_mean, valid_total, valid_mean, spread])

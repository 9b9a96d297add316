"""One positive title against k negatives: DMPO (arXiv 2405.16127) and its family.

With r(y) = log pi(y | x) - log pi_ref(y | x), summed over the tokens of a title, and margins
m_i = beta * (r(y_w) - r(y_i)), the losses of one example are ordered,

    dmpo = softplus(-mean_i m_i)  <=  pairs = mean_i softplus(-m_i)  <=  sdpo = log(1 + sum_i exp(-m_i))
         <=  pair sum = sum_i softplus(-m_i),

and all are DPO at k = 1. The number of negatives may differ among examples.

Legend: B examples, N negatives of all examples, one example after the other.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from catalign.objectives.segments import at_least_float32, segment_logsumexp

Preference = Literal["dmpo", "pairs", "sdpo", "pair-sum"]


def margins(log_ratio_positive_B: Tensor, log_ratio_negative_N: Tensor, example_N: Tensor, beta: float) -> Tensor:
    """m_i = beta * (r(y_w) - r(y_i)) of every negative; shape [N], float32 or float64.

    Args:
        log_ratio_positive_B: r(y_w); log-probabilities themselves where there is no reference.
        log_ratio_negative_N: r(y_i).
        example_N: int64, the example of each negative.
        beta: strength of the preference, above 0.

    Raises:
        ValueError: an example without negatives, or beta not above 0.
    """
    if beta <= 0:
        raise ValueError(f"beta must be above 0, not {beta}")
    if not bool((torch.bincount(example_N, minlength=len(log_ratio_positive_B)) > 0).all()):
        raise ValueError("every example needs at least one negative")
    positive_B, negative_N = at_least_float32(log_ratio_positive_B), at_least_float32(log_ratio_negative_N)
    return beta * (positive_B[example_N] - negative_N)


def preference_losses(margin_N: Tensor, example_N: Tensor, examples: int, kind: Preference) -> Tensor:
    """The loss of every example; shape [B].

    - `dmpo`: softplus(-mean_i m_i), the formula of the DMPO paper: the mean stands inside the sigmoid;
    - `pairs`: mean_i softplus(-m_i), DPO averaged over pairs;
    - `sdpo`: log(1 + sum_i exp(-m_i)), S-DPO, with the maximum taken out of the sum;
    - `pair-sum`: sum_i softplus(-m_i).

    Args:
        margin_N: from `margins`.
        example_N: int64, ascending, the example of each negative.
        examples: B.
        kind: which loss.
    """
    if kind == "dmpo":
        return softplus(-_mean(margin_N, example_N, examples))
    if kind == "pairs":
        return _mean(softplus(-margin_N), example_N, examples)
    if kind == "sdpo":
        return softplus(segment_logsumexp(-margin_N, example_N, examples))
    return margin_N.new_zeros(examples).index_add(0, example_N, softplus(-margin_N))


def released_dmpo_losses(
    log_positive_B: Tensor, log_negative_N: Tensor, example_N: Tensor, positive_tokens_B: Tensor, beta: float
) -> Tensor:
    """What the released DMPO script minimises; shape [B].

    Its reference cancels and each negative is a row of its own, so it is `pairs` on log-probabilities without a
    reference plus the mean negative log-likelihood of the positive's tokens (the loss of CPO).

    Args:
        log_positive_B: log pi(y_w | x), summed over tokens.
        log_negative_N: log pi(y_i | x).
        example_N: int64, ascending, the example of each negative.
        positive_tokens_B: tokens of each positive.
        beta: 0.1 in the script.
    """
    margin_N = margins(log_positive_B, log_negative_N, example_N, beta)
    pairs_B = preference_losses(margin_N, example_N, len(log_positive_B), "pairs")
    return pairs_B - at_least_float32(log_positive_B) / positive_tokens_B


def _mean(values_N: Tensor, example_N: Tensor, examples: int) -> Tensor:
    """Mean over the negatives of each example."""
    count_B = torch.bincount(example_N, minlength=examples)
    return values_N.new_zeros(examples).index_add(0, example_N, values_N) / count_B

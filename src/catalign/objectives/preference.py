"""One positive title against k negatives: DMPO (arXiv 2405.16127) and its family.

With r(y) = log pi(y | x) - log pi_ref(y | x), summed over the tokens of a title, and margins
m_i = beta * (r(y_w) - r(y_i)), the losses of one example are ordered,

    dmpo = softplus(-mean_i m_i)  <=  pairs = mean_i softplus(-m_i)  <=  sdpo = log(1 + sum_i exp(-m_i))
         <=  pair sum = sum_i softplus(-m_i),

and all are DPO at k = 1. The number of negatives may differ among examples. Every negative names its own positive:
where an example has one positive for all its negatives, it stands here once for each of them.

Legend: B examples, N negatives of all examples, one example after the other.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from catalign.objectives.segments import at_least_float32, segment_logsumexp

Preference = Literal["dmpo", "pairs", "sdpo", "pair-sum"]


def margins(log_ratio_positive_N: Tensor, log_ratio_negative_N: Tensor, beta: float) -> Tensor:
    """m_i = beta * (r(y_w) - r(y_i)) of every negative; shape [N], float32 or float64.

    Args:
        log_ratio_positive_N: r(y_w) of the positive that each negative is compared with; log-probabilities themselves
            where there is no reference.
        log_ratio_negative_N: r(y_i).
        beta: strength of the preference, above 0.

    Raises:
        ValueError: beta not above 0.
    """
    if beta <= 0:
        raise ValueError(f"beta must be above 0, not {beta}")
    return beta * (at_least_float32(log_ratio_positive_N) - at_least_float32(log_ratio_negative_N))


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

    Raises:
        ValueError: an example without negatives.
    """
    if kind == "dmpo":
        return softplus(-mean_of_examples(margin_N, example_N, examples))
    if kind == "pairs":
        return mean_of_examples(softplus(-margin_N), example_N, examples)
    _count_negatives(example_N, examples)
    if kind == "sdpo":
        return softplus(segment_logsumexp(-margin_N, example_N, examples))
    return margin_N.new_zeros(examples).index_add(0, example_N, softplus(-margin_N))


def positive_losses(log_positive_N: Tensor, tokens_N: Tensor, example_N: Tensor, examples: int) -> Tensor:
    """Mean negative log-likelihood of a token of the positive; shape [B]. An SFT term beside the preference.

    With weight 1 beside `pairs` on log-probabilities without a reference it is what the released DMPO script minimises
    (the loss of CPO): its reference cancels, each negative is a row of its own, and this term is added.

    Args:
        log_positive_N: log pi(y_w | x), summed over tokens, of each negative's positive.
        tokens_N: tokens of these positives.
        example_N: int64, ascending, the example of each negative.
        examples: B.

    Raises:
        ValueError: an example without negatives.
    """
    return mean_of_examples(-at_least_float32(log_positive_N) / tokens_N, example_N, examples)


def mean_of_examples(values_N: Tensor, example_N: Tensor, examples: int) -> Tensor:
    """Mean over the negatives of each example; shape [B].

    Raises:
        ValueError: an example without negatives.
    """
    return values_N.new_zeros(examples).index_add(0, example_N, values_N) / _count_negatives(example_N, examples)


def _count_negatives(example_N: Tensor, examples: int) -> Tensor:
    """Negatives of each example; shape [B]."""
    count_B = torch.bincount(example_N, minlength=examples)
    if not bool((count_B > 0).all()):
        raise ValueError("every example needs at least one negative")
    return count_B

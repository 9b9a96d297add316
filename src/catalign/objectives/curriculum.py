"""How much of the self-distilled data an epoch takes: SOFT's self-adaptive curriculum (arXiv 2505.20771)."""

import math


def self_distilled_weight(distance: float, first_distance: float, alpha: float) -> float:
    """lambda_e = min(exp(alpha * (d_{e-1} / d_0 - 1)), 1), the weight of the self-distilled loss of SOFT.

    1 where the answers are as far from the truth as those of the untuned model (or farther); it falls as they come
    nearer. An alpha of 100 is nearly a hard switch, one of 0.1 nearly always self-distilled.

    Args:
        distance: d_{e-1}, mean distance between answers and true titles.
        first_distance: d_0, the same of the untuned model.
        alpha: steepness, above 0.

    Raises:
        ValueError: alpha not above 0, or a distance that is no number of at least 0. A first distance of 0 (the untuned
            model is always right) gives 0: there is nothing easier to learn from.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, not {alpha}")
    if not (distance >= 0 and first_distance >= 0 and math.isfinite(distance) and math.isfinite(first_distance)):
        raise ValueError(f"distances must be finite and at least 0, not {distance} and {first_distance}")
    if first_distance == 0:
        return 0.0
    return math.exp(min(alpha * (distance / first_distance - 1), 0.0))

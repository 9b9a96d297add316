"""Reductions over segments: runs of a flat array that belong to one position.

Legend: E = values of all segments, end to end.
"""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Return half-precision values as float32 and leave float32 and float64 as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def segment_logsumexp(values_E: Tensor, segment_E: Tensor, segments: int) -> Tensor:
    """Return log(sum(exp(values))) of every segment, stable for values of any size.

    Args:
        values_E: any floating type; half precision is widened to float32 first.
        segment_E: int64, the segment of each value, in [0, segments).
        segments: number of segments; one without values yields -inf.

    Returns:
        [segments], float32, or float64 for float64 input.
    """
    values_E = at_least_float32(values_E)
    with torch.no_grad():  # the maximum cancels, so it needs no gradient
        maximum = values_E.new_full((segments,), -torch.inf).scatter_reduce(0, segment_E, values_E, "amax")
        maximum = torch.where(maximum.isfinite(), maximum, 0)  # an empty segment, or one of -inf only
    exponential_E = torch.exp(values_E - maximum.index_select(0, segment_E))
    total = values_E.new_zeros(segments).index_add(0, segment_E, exponential_E)
    return total.log() + maximum

"""Does a probability mean what it says? Top-1 probabilities against how often the first title was the next one.

Shapes: W windows.

Source: expected calibration error, Naeini, Cooper and Hauskrecht (AAAI 2015) and Guo et al. (ICML 2017); bins of equal
numbers of windows as Nguyen and O'Connor (EMNLP 2015) take them, because top-1 probabilities over a catalogue are
small and bins of equal width would leave nearly all windows in the first.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Windows with like probabilities of the first title.

    Attributes:
        n: how many.
        probability: the mean of what was promised.
        hit_rate: the share where it was the next title.
        low: the smallest probability of the bin.
        high: the largest.
    """

    n: int
    probability: float
    hit_rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """How far the top-1 probabilities are from the shares of hits.

    Attributes:
        error: the expected calibration error, 0 is perfect.
        probability: mean top-1 probability; above `hit_rate` the row is too sure of itself.
        hit_rate: share of windows whose first title was the next one.
        bins: from small to large probabilities.
    """

    error: float
    probability: float
    hit_rate: float
    bins: list[ReliabilityBin]


def calibration(probability_W: Floats, hit_W: Bools, *, bins: int = BINS) -> Calibration:
    """Sort windows by probability, cut them into `bins` of equal numbers and compare promise and outcome.

    error = sum over bins of n / W * |hit rate - mean probability|

    >>> found = calibration(np.array([0.2, 0.9, 0.3, 0.8]), np.array([False, True, True, True]), bins=2)
    >>> [(part.n, round(part.probability, 2), part.hit_rate) for part in found.bins]
    [(2, 0.25, 0.5), (2, 0.85, 1.0)]
    >>> round(found.error, 2)  # (|0.5 - 0.25| + |1 - 0.85|) / 2
    0.2

    Args:
        probability_W: of the first title of each window, at least one window.
        hit_W: whether it was the next title.
        bins: how many; fewer where there are fewer windows.

    Raises:
        ValueError: no window, shapes that disagree, or a value that is no probability.
    """
    if probability_W.shape != hit_W.shape or probability_W.ndim != 1 or len(hit_W) == 0:
        raise ValueError(f"probability_W {probability_W.shape} and hit_W {hit_W.shape} do not belong together")
    if not (probability_W.min() >= 0 and probability_W.max() <= 1 + 1e-6):
        raise ValueError(f"probabilities from {probability_W.min()} to {probability_W.max()}")
    order_W = np.argsort(probability_W, kind="stable")
    parts = [
        ReliabilityBin(
            n=len(rows),
            probability=float(probability_W[rows].mean()),
            hit_rate=float(hit_W[rows].mean()),
            low=float(probability_W[rows[0]]),
            high=float(probability_W[rows[-1]]),
        )
        for rows in np.array_split(order_W, min(bins, len(order_W)))
    ]
    error = sum(part.n * abs(part.hit_rate - part.probability) for part in parts) / len(hit_W)
    return Calibration(error, float(probability_W.mean()), float(hit_W.mean()), parts)

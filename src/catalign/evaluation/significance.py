"""Are two rankings of the same windows different? Paired tests by user, and Holm's correction over a table.

The windows of one user are not independent, so users are what is drawn and what changes its sign.

Shapes: W windows, M differences tested at once, G groups (users), R resamples, B sign vectors of one chunk.

Sources: paired bootstrap, Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapters 13 and 16;
sign-flip permutation, Fisher's randomisation as Smucker, Allan and Carterette (CIKM 2007) take it to rankings; Holm,
*Scandinavian Journal of Statistics* 6 (1979).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catalign.evaluation.intervals import bootstrap_means, group_sums

Floats = npt.NDArray[np.float64]

FLIPS = 10_000
POWER_FACTOR = 1.959964 + 0.841621  # normal quantiles: 5 % two-sided, seen with a probability of 80 %
_CHUNK_CELLS = 4_000_000  # signs held at once
_EQUAL = 1 - 1e-9  # sums in another order differ in their last digits


@dataclass(frozen=True)
class PairedTest:
    """What is known about a mean difference between two rows.

    Attributes:
        mean: over the windows.
        low: of the 95 % bootstrap interval over users.
        high: likewise.
        p_bootstrap: two-sided; twice the share of resamples on the other side of 0.
        p_permutation: two-sided; the share of sign flips with a mean at least as far from 0.
        detectable: the difference that so many windows would show with a probability of 80 %, at the 5 % level.
    """

    mean: float
    low: float
    high: float
    p_bootstrap: float
    p_permutation: float
    detectable: float


def paired_tests(difference_WM: Floats, groups_W: npt.NDArray[Any], *, seed: int = 0) -> list[PairedTest]:
    """Test whether the mean of each column is 0.

    Args:
        difference_WM: a metric of one row minus that of another, window by window; W >= 1.
        groups_W: user ids.
        seed: of the draws.

    Raises:
        ValueError: no window, or shapes that disagree.
    """
    mean_RM = bootstrap_means(difference_WM, groups_W, seed=seed)
    interval_M2 = np.quantile(mean_RM, [0.025, 0.975], axis=0).T
    columns = zip(
        difference_WM.mean(axis=0),
        interval_M2,
        _bootstrap_p(mean_RM),
        sign_flip_p(difference_WM, groups_W, seed=seed),
        POWER_FACTOR * standard_errors(difference_WM, groups_W),
        strict=True,
    )
    return [PairedTest(float(mean), *map(float, ends), *map(float, rest)) for mean, ends, *rest in columns]


def sign_flip_p(
    difference_WM: Floats, groups_W: npt.NDArray[Any] | None, *, flips: int = FLIPS, seed: int = 0
) -> Floats:
    """Return the two-sided p of each column's mean under random signs of whole users, float64 [M].

    If two rows are alike, a user's difference could as well have the other sign. p = (1 + flips with |mean| at least as
    large) / (1 + flips), so it is never 0. Users without any difference play no part and are left out.

    >>> round(float(sign_flip_p(np.ones((4, 1)), None)[0]), 1)  # all four signs alike: 2 of the 16 ways
    0.1
    """
    sums_GM, _ = group_sums(difference_WM, groups_W)
    sums_GM = sums_GM[(sums_GM != 0).any(axis=1)]
    if len(sums_GM) == 0:
        return np.ones(difference_WM.shape[1])
    reached_M = np.abs(sums_GM.sum(axis=0)) * _EQUAL
    generator = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // len(sums_GM))
    above_M = np.zeros(sums_GM.shape[1])
    for start in range(0, flips, chunk):
        rows = min(chunk, flips - start)
        sign_BG = 2.0 * generator.integers(0, 2, size=(rows, len(sums_GM)), dtype=np.int8) - 1
        above_M += (np.abs(sign_BG @ sums_GM) >= reached_M).sum(axis=0)
    return (1 + above_M) / (1 + flips)


def standard_errors(difference_WM: Floats, groups_W: npt.NDArray[Any] | None) -> Floats:
    """Return the standard error of each column's mean where whole users are drawn, float64 [M]; 0 for one user.

    Of users with sums s_g and n_g windows: sqrt(G / (G - 1) * sum of (s_g - mean * n_g)^2) / W.

    >>> standard_errors(np.array([[0.0], [1.0], [0.0], [1.0]]), np.array([1, 1, 2, 2])).tolist()  # users alike
    [0.0]
    """
    sums_GM, sizes_G = group_sums(difference_WM, groups_W)
    groups = len(sizes_G)
    if groups == 1:
        return np.zeros(difference_WM.shape[1])
    rest_GM = sums_GM - difference_WM.mean(axis=0) * sizes_G[:, None]
    error_M: Floats = np.sqrt(groups / (groups - 1) * (rest_GM**2).sum(axis=0)) / len(difference_WM)
    return error_M


def holm(p_N: npt.ArrayLike) -> Floats:
    """Return p-values corrected for the number of tests, float64 [N]: the chance of any false claim stays at the level.

    Of N p-values the smallest is multiplied by N, the next by N - 1, and so on; none falls below one before it.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    value_N = np.asarray(p_N, dtype=np.float64)
    order_N = np.argsort(value_N, kind="stable")
    stepped_N = np.maximum.accumulate(value_N[order_N] * np.arange(len(value_N), 0, -1))
    corrected_N = np.empty_like(value_N)
    corrected_N[order_N] = np.minimum(stepped_N, 1.0)
    return corrected_N


def _bootstrap_p(mean_RM: Floats) -> Floats:
    """Twice the share of resamples on the rarer side of 0, at most 1, never 0."""
    rarer_M = np.minimum((mean_RM <= 0).sum(axis=0), (mean_RM >= 0).sum(axis=0))
    p_M: Floats = np.minimum(2 * (1 + rarer_M) / (1 + len(mean_RM)), 1.0)
    return p_M

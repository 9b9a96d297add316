"""95 % percentile bootstrap intervals of means over windows.

Shapes: W windows, M metrics, G groups (users), R resamples, B resamples of one chunk.

Source: Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapter 13.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 2_000
_CHUNK_CELLS = 2_000_000  # drawn indices held at once (16 MB)


def bootstrap_interval(
    values_WM: Floats,
    groups_W: npt.NDArray[Any] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Floats:
    """Return the bootstrap interval of the mean of each column, float64 [M, 2] (low, high).

    Without groups every window is drawn by itself. With groups (user ids of any dtype that sorts) whole groups are
    drawn, because the windows of one user are not independent; a resample's mean is then its sum of values over its
    number of windows.

    A column that is constant has an interval of no width: the bootstrap cannot see what was never observed, so [0, 0]
    from few windows means "no hit among these", not "no hit is possible".

    Args:
        values_WM: one row per window, one column per metric, W >= 1.
        groups_W: the group of each window.
        seed: of the random draws; the same seed gives the same interval.
        resamples: number of resamples.
        level: coverage aimed at.

    Raises:
        ValueError: no window, or shapes that disagree.
    """
    mean_RM = bootstrap_means(values_WM, groups_W, seed=seed, resamples=resamples)
    tail = (1 - level) / 2
    return np.quantile(mean_RM, [tail, 1 - tail], axis=0).T


def bootstrap_means(
    values_WM: Floats, groups_W: npt.NDArray[Any] | None = None, *, seed: int = 0, resamples: int = RESAMPLES
) -> Floats:
    """Return the mean of each column in every resample, float64 [R, M]; see `bootstrap_interval`.

    All columns of a resample are means over the same windows, so differences of columns are paired.

    Raises:
        ValueError: no window, or shapes that disagree.
    """
    if values_WM.ndim != 2 or len(values_WM) == 0:
        raise ValueError(f"values_WM must be [W, M] with at least one window, got shape {values_WM.shape}")
    sums_GM, sizes_G = group_sums(values_WM, groups_W)
    groups = len(sizes_G)
    generator = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // groups)
    means = []
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn_BG = generator.integers(groups, size=(rows, groups)) + groups * np.arange(rows)[:, None]
        times_BG = np.bincount(drawn_BG.ravel(), minlength=rows * groups).reshape(rows, groups).astype(np.float64)
        means.append(times_BG @ sums_GM / (times_BG @ sizes_G)[:, None])
    return np.concatenate(means)


def group_sums(values_WM: Floats, groups_W: npt.NDArray[Any] | None) -> tuple[Floats, Floats]:
    """Return the sum of the values of each group [G, M] and the number of its windows [G]."""
    if groups_W is None:
        return values_WM, np.ones(len(values_WM))
    if len(groups_W) != len(values_WM):
        raise ValueError(f"{len(groups_W)} groups for {len(values_WM)} windows")
    names_G, group_W = np.unique(groups_W, return_inverse=True)
    sums_MG = [np.bincount(group_W, weights=column, minlength=len(names_G)) for column in values_WM.T]
    return np.stack(sums_MG, axis=1), np.bincount(group_W).astype(np.float64)

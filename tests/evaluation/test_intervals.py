import numpy as np
import pytest

from catalign.evaluation.intervals import bootstrap_interval


def coverage(correlated: bool, by_user: bool) -> float:
    """Share of 200 simulated evaluations (60 users of 4 windows, true mean 0.3) whose interval holds the truth."""
    generator = np.random.default_rng(7)
    user_W = np.repeat(np.arange(60), 4)
    hits = 0
    for seed in range(200):
        draws = generator.random(60)[user_W] if correlated else generator.random(240)
        values_W1 = (draws < 0.3).astype(np.float64)[:, None]
        ((low, high),) = bootstrap_interval(values_W1, user_W if by_user else None, seed=seed, resamples=400)
        hits += int(low <= 0.3 <= high)
    return hits / 200


def test_covers_the_truth_about_as_often_as_promised() -> None:
    assert 0.89 <= coverage(correlated=False, by_user=False) <= 0.99
    assert 0.89 <= coverage(correlated=True, by_user=True) <= 0.99


def test_windows_of_a_user_are_not_independent() -> None:
    assert coverage(correlated=True, by_user=False) < 0.8


def test_width_of_a_share_is_that_of_the_normal_approximation() -> None:
    values_W1 = (np.arange(2_000) < 400).astype(np.float64)[:, None]  # share 0.2
    ((low, high),) = bootstrap_interval(values_W1)
    half = 1.96 * np.sqrt(0.2 * 0.8 / 2_000)
    assert (low, high) == pytest.approx((0.2 - half, 0.2 + half), abs=0.002)


def test_seed_decides_and_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    values_WM = np.random.default_rng(0).random((50, 3))
    first = bootstrap_interval(values_WM, seed=1)
    assert np.array_equal(first, bootstrap_interval(values_WM, seed=1))
    assert not np.array_equal(first, bootstrap_interval(values_WM, seed=2))
    monkeypatch.setattr("catalign.evaluation.intervals._CHUNK_CELLS", 170)
    assert bootstrap_interval(values_WM, seed=1) == pytest.approx(first, abs=1e-12)


def test_one_group_per_window_is_no_grouping() -> None:
    values_WM = np.random.default_rng(0).random((40, 2))
    names_W = np.array([f"user {row:02d}" for row in range(40)])
    assert bootstrap_interval(values_WM, names_W) == pytest.approx(bootstrap_interval(values_WM))


def test_refuses_what_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one window"):
        bootstrap_interval(np.empty((0, 2)))
    with pytest.raises(ValueError, match="3 groups for 2 windows"):
        bootstrap_interval(np.ones((2, 1)), np.array([1, 2, 3]))

"""Paired tests: against scipy, against their promises on simulated tables, and Holm by hand."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from catalign.evaluation import significance
from catalign.evaluation.significance import holm, paired_tests, sign_flip_p, standard_errors


def test_docstrings_compute_what_they_say() -> None:
    result = doctest.testmod(significance)
    assert result.attempted >= 3 and result.failed == 0


def test_the_sign_flip_agrees_with_scipy() -> None:
    """One window a user: the test of scipy over all 2 ** 12 signs."""
    difference_W = np.random.default_rng(0).normal(0.4, 1, size=12)
    exact = stats.permutation_test((difference_W,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(difference_W[:, None], None)[0] == pytest.approx(float(exact.pvalue), abs=0.02)


def test_users_flip_as_a_whole() -> None:
    """Forty windows of four users who each agree with themselves are four observations, not forty."""
    difference_W1 = np.ones((40, 1))
    user_W = np.repeat(["ann", "bob", "cat", "dan"], 10)
    assert sign_flip_p(difference_W1, user_W)[0] == pytest.approx(2 / 16, abs=0.02)
    assert sign_flip_p(difference_W1, None)[0] < 0.001


def test_rows_that_are_alike_do_not_differ() -> None:
    (test,) = paired_tests(np.zeros((20, 1)), np.arange(20) // 2)
    assert (test.mean, test.low, test.high, test.p_permutation, test.p_bootstrap) == (0, 0, 0, 1, 1)
    assert sign_flip_p(np.array([[0.1], [-0.1]]), None)[0] == 1.0


def test_p_values_keep_their_promise() -> None:
    """Where nothing differs, about one in twenty tests says so at the 5 % level; windows of a user are correlated."""
    generator = np.random.default_rng(3)
    user_W = np.repeat(np.arange(50), 4)
    false = np.zeros(2)
    for seed in range(60):
        difference_WM = generator.normal(size=(50, 5))[user_W] + generator.normal(size=(200, 5))
        tests = paired_tests(difference_WM, user_W, seed=seed)
        false += [sum(test.p_permutation < 0.05 for test in tests), sum(test.p_bootstrap < 0.05 for test in tests)]
    assert (false / 300 > 0.02).all() and (false / 300 < 0.1).all()


def test_the_detectable_difference_is_detected_four_times_in_five() -> None:
    generator = np.random.default_rng(5)
    user_W = np.repeat(np.arange(80), 3)
    noise_WM = generator.normal(size=(80, 200))[user_W] + generator.normal(size=(240, 200))
    detectable = np.mean([test.detectable for test in paired_tests(noise_WM, user_W)])
    seen = np.mean(sign_flip_p(noise_WM + detectable, user_W, flips=1000) < 0.05)
    assert 0.7 < seen < 0.9


def test_the_standard_error_is_that_of_the_user_means() -> None:
    difference_W1 = np.random.default_rng(1).normal(size=(60, 1))
    user_W = np.repeat(np.arange(20), 3)
    of_users = difference_W1.reshape(20, 3).mean(axis=1)
    assert standard_errors(difference_W1, user_W)[0] == pytest.approx(of_users.std(ddof=1) / np.sqrt(20))
    assert standard_errors(difference_W1, np.zeros(60)).tolist() == [0.0]


def test_the_interval_and_the_mean_are_of_the_difference() -> None:
    difference_WM = np.random.default_rng(2).normal([0.0, 3.0], 1, size=(100, 2))
    for test, column_W in zip(paired_tests(difference_WM, np.arange(100)), difference_WM.T, strict=True):
        assert test.mean == pytest.approx(column_W.mean())
        half = 1.96 * column_W.std() / 10
        assert (test.low, test.high) == pytest.approx((test.mean - half, test.mean + half), abs=0.05)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_by_its_definition(p_values: list[float]) -> None:
    """Step down by hand: the i-th smallest times (N - i), and at least what stands before it."""
    expected, least = [0.0] * len(p_values), 0.0
    for step, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, p_values[place] * (len(p_values) - step)))
        expected[place] = least
    assert holm(p_values).tolist() == pytest.approx(expected)


def test_holm_of_nothing() -> None:
    assert holm([]).tolist() == []

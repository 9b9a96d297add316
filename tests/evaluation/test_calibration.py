"""Calibration: a model that means what it says, one that is too sure, and the bins."""

import doctest

import numpy as np
import pytest

from catalign.evaluation import calibration as module
from catalign.evaluation.calibration import calibration


def test_docstrings_compute_what_they_say() -> None:
    result = doctest.testmod(module)
    assert result.attempted >= 3 and result.failed == 0


def test_who_means_what_he_says_has_hardly_an_error() -> None:
    generator = np.random.default_rng(0)
    probability_W = generator.beta(1, 8, size=40_000)
    hit_W = generator.random(40_000) < probability_W
    assert calibration(probability_W, hit_W).error < 0.01
    sure = calibration(np.sqrt(probability_W), hit_W)
    assert sure.error > 0.1 and sure.probability > sure.hit_rate
    assert sure.error == pytest.approx(sure.probability - sure.hit_rate, abs=1e-3)  # too sure in every bin


def test_bins_hold_equal_numbers_in_order() -> None:
    probability_W = np.random.default_rng(1).random(103)
    found = calibration(probability_W, probability_W > 0.5)
    assert sum(part.n for part in found.bins) == 103 and {part.n for part in found.bins} == {10, 11}
    assert all(low.high <= high.low for low, high in zip(found.bins, found.bins[1:], strict=False))
    assert len(calibration(probability_W[:3], np.ones(3, dtype=bool)).bins) == 3


def test_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match=r"probabilities from -1.0 to 0.5"):
        calibration(np.array([0.5, -1.0]), np.array([True, False]))
    with pytest.raises(ValueError, match="do not belong together"):
        calibration(np.array([]), np.array([], dtype=bool))

"""The curriculum's weight: reference values, its limits, what it refuses."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalign.objectives import self_distilled_weight
from conftest import SHARED

REFERENCE = SHARED / "vectors" / "reference.json"
distances = st.floats(0, 1e6)


@pytest.mark.realdata
@pytest.mark.skipif(not REFERENCE.is_file(), reason="no reference values beside the project")
def test_reference_values() -> None:
    cases = json.loads(REFERENCE.read_text())["curriculum"]
    assert len(cases) > 5
    for case in cases:
        weight = self_distilled_weight(case["d"], case["d0"], case["alpha"])
        assert math.isclose(weight, case["lambda"], rel_tol=1e-10), case


def test_arithmetic() -> None:
    assert self_distilled_weight(6.0, 12.0, 2.0) == math.exp(-1.0)
    assert self_distilled_weight(12.0, 12.0, 100.0) == 1.0
    assert self_distilled_weight(24.0, 12.0, 100.0) == 1.0  # farther than at first


@given(distance=distances, first=st.floats(1e-6, 1e6), alpha=st.floats(1e-3, 1e3))
def test_it_is_a_weight_and_falls_with_the_distance(distance: float, first: float, alpha: float) -> None:
    weight = self_distilled_weight(distance, first, alpha)
    assert 0 <= weight <= 1
    assert self_distilled_weight(distance / 2, first, alpha) <= weight


def test_an_untuned_model_that_is_always_right_leaves_the_real_data() -> None:
    assert self_distilled_weight(0.0, 0.0, 1.0) == 0.0


@pytest.mark.parametrize(
    ("distance", "first", "alpha"),
    [(1, 1, 0), (1, 1, -1), (1, 1, math.nan), (-1, 1, 1), (1, -1, 1), (math.nan, 1, 1), (1, math.inf, 1)],
)
def test_what_it_refuses(distance: float, first: float, alpha: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        self_distilled_weight(distance, first, alpha)

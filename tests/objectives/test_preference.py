"""The preference family: reference values, order, equality at k = 1, extremes, gradients."""

import itertools
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.objectives.preference import Preference, margins, preference_losses, released_dmpo_losses
from conftest import SHARED

REFERENCE = SHARED / "vectors" / "reference.json"
KINDS: tuple[Preference, ...] = ("dmpo", "pairs", "sdpo", "pair-sum")
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_file(), reason="the reference values beside the project are absent"
)


def reference(part: str) -> list[dict[str, Any]]:
    if not REFERENCE.is_file():
        return []
    values: list[dict[str, Any]] = json.loads(REFERENCE.read_text())[part]
    return values


def one_example(
    positive: float, negatives: list[float], beta: float, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    example_N = torch.zeros(len(negatives), dtype=torch.int64)
    return margins(torch.tensor([positive], dtype=dtype), torch.tensor(negatives, dtype=dtype), example_N, beta)


def losses_of(margin_N: torch.Tensor) -> dict[Preference, float]:
    example_N = torch.zeros(len(margin_N), dtype=torch.int64)
    return {kind: float(preference_losses(margin_N, example_N, 1, kind)) for kind in KINDS}


@needs_reference
@pytest.mark.realdata
@pytest.mark.parametrize("case", reference("preference"))
def test_reference_values(case: dict[str, Any]) -> None:
    found = losses_of(one_example(case["log_ratio_positive"], case["log_ratio_negatives"], case["beta"]))
    for kind in KINDS:
        assert found[kind] == pytest.approx(case[kind.replace("-", "_")], rel=1e-10, abs=1e-12)


@needs_reference
@pytest.mark.realdata
@pytest.mark.parametrize("case", reference("preference"))
def test_reference_gradient(case: dict[str, Any]) -> None:
    positive = torch.tensor([case["log_ratio_positive"]], dtype=torch.float64, requires_grad=True)
    negatives = torch.tensor(case["log_ratio_negatives"], dtype=torch.float64)
    example_N = torch.zeros(len(negatives), dtype=torch.int64)
    preference_losses(margins(positive, negatives, example_N, case["beta"]), example_N, 1, "dmpo").sum().backward()
    assert positive.grad is not None
    assert float(positive.grad) == pytest.approx(case["dmpo_gradient_wrt_positive"], rel=1e-10, abs=1e-12)


@needs_reference
@pytest.mark.realdata
@pytest.mark.parametrize("case", reference("dmpo_released"))
def test_reference_released(case: dict[str, Any]) -> None:
    negatives = torch.tensor(case["logp_negatives"], dtype=torch.float64)
    positive = torch.tensor([case["logp_positive"]], dtype=torch.float64)
    tokens, example_N = torch.tensor([case["positive_tokens"]]), torch.zeros(len(negatives), dtype=torch.int64)
    found = released_dmpo_losses(positive, negatives, example_N, tokens, case["beta"])
    assert float(found) == pytest.approx(case["dmpo_released"], rel=1e-10)


margin_lists = st.lists(st.floats(-50, 50), min_size=1, max_size=8)


@given(margin_lists)
def test_the_family_is_ordered(values: list[float]) -> None:
    found = losses_of(torch.tensor(values, dtype=torch.float64))
    ascending = [found[kind] for kind in KINDS]
    assert all(below <= above + 1e-9 for below, above in itertools.pairwise(ascending))


@given(st.floats(-50, 50))
def test_all_are_dpo_with_one_negative(margin: float) -> None:
    dpo = -float(torch.nn.functional.logsigmoid(torch.tensor(margin, dtype=torch.float64)))
    assert losses_of(torch.tensor([margin], dtype=torch.float64)) == pytest.approx(dict.fromkeys(KINDS, dpo))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_no_overflow_at_large_margins(kind: Preference, dtype: torch.dtype) -> None:
    for sign in (-1.0, 1.0):
        positive = torch.tensor([sign * 1e4], dtype=dtype, requires_grad=True)
        example_N = torch.zeros(3, dtype=torch.int64)
        margin_N = margins(positive, torch.zeros(3, dtype=dtype), example_N, beta=1.0)
        loss = preference_losses(margin_N, example_N, 1, kind)
        loss.sum().backward()
        assert loss.dtype == torch.float32 and bool(loss.isfinite().all())
        assert positive.grad is not None and bool(positive.grad.isfinite().all())


@settings(max_examples=30, deadline=None)
@given(st.lists(margin_lists, min_size=1, max_size=4))
def test_examples_of_different_k_are_independent(examples: list[list[float]]) -> None:
    flat = torch.tensor([value for values in examples for value in values], dtype=torch.float64)
    example_N = torch.tensor([number for number, values in enumerate(examples) for _ in values])
    for kind in KINDS:
        together = preference_losses(flat, example_N, len(examples), kind)
        alone = [losses_of(torch.tensor(values, dtype=torch.float64))[kind] for values in examples]
        assert together.tolist() == pytest.approx(alone)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_against_finite_differences(kind: Preference) -> None:
    generator = torch.Generator().manual_seed(0)
    positive = torch.randn(2, generator=generator, dtype=torch.float64, requires_grad=True)
    negative = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
    example_N = torch.tensor([0, 0, 1, 1, 1])
    assert torch.autograd.gradcheck(
        lambda p, n: preference_losses(margins(p, n, example_N, 0.7), example_N, 2, kind), (positive, negative)
    )


def test_no_negatives_and_no_beta_are_refused() -> None:
    positive = torch.zeros(2)
    with pytest.raises(ValueError, match="at least one negative"):
        margins(positive, torch.zeros(1), torch.tensor([0]), 0.1)
    with pytest.raises(ValueError, match="beta"):
        margins(positive, torch.zeros(2), torch.tensor([0, 1]), 0.0)

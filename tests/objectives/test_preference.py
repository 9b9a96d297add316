"""The preference family: reference values, order, equality at k = 1, extremes, gradients."""

import itertools
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.objectives import Preference, margins, positive_losses, preference_losses
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
    positive_N = torch.full((len(negatives),), positive, dtype=dtype)
    return margins(positive_N, torch.tensor(negatives, dtype=dtype), beta)


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
    margin_N = margins(positive[example_N], negatives, case["beta"])
    preference_losses(margin_N, example_N, 1, "dmpo").sum().backward()
    assert positive.grad is not None
    assert float(positive.grad) == pytest.approx(case["dmpo_gradient_wrt_positive"], rel=1e-10, abs=1e-12)


@needs_reference
@pytest.mark.realdata
@pytest.mark.parametrize("case", reference("dmpo_released"))
def test_reference_released(case: dict[str, Any]) -> None:
    negatives, beta = case["logp_negatives"], case["beta"]
    pairs = losses_of(one_example(case["logp_positive"], negatives, beta))["pairs"]
    example_N = torch.zeros(len(negatives), dtype=torch.int64)
    positive_N = torch.full((len(negatives),), case["logp_positive"], dtype=torch.float64)
    tokens_N = torch.full((len(negatives),), case["positive_tokens"])
    found = pairs + float(positive_losses(positive_N, tokens_N, example_N, 1))
    assert found == pytest.approx(case["dmpo_released"], rel=1e-10)


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
        margin_N = margins(positive[example_N], torch.zeros(3, dtype=dtype), beta=1.0)
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
        lambda p, n: preference_losses(margins(p[example_N], n, 0.7), example_N, 2, kind), (positive, negative)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_negative_may_have_a_positive_of_its_own(kind: Preference) -> None:
    """Two pairs with different positives are what one positive is with the negatives shifted by the difference."""
    own = margins(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 0.5]), 0.5)
    one = margins(torch.tensor([2.0, 2.0]), torch.tensor([1.0, -0.5]), 0.5)
    example_N = torch.zeros(2, dtype=torch.int64)
    losses = preference_losses(own, example_N, 1, kind)
    torch.testing.assert_close(losses, preference_losses(one, example_N, 1, kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_published_sigmoid_loss_with_one_negative(kind: Preference, dtype: torch.dtype) -> None:
    """TRL's `loss_type="sigmoid"`, written out: -log sigmoid(beta ((pi_w - pi_l) - (ref_w - ref_l)))."""
    generator = torch.Generator().manual_seed(1)
    pi_w, pi_l, ref_w, ref_l = (-20 * torch.rand(4, 50, generator=generator)).to(dtype)
    beta, example_N = 0.1, torch.arange(50)
    wide = [value.double() for value in (pi_w - ref_w, pi_l - ref_l)]
    expected = -torch.nn.functional.logsigmoid(beta * (wide[0] - wide[1]))
    found = preference_losses(margins(pi_w - ref_w, pi_l - ref_l, beta), example_N, 50, kind)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-7)
    if dtype == torch.float64:
        published = -torch.nn.functional.logsigmoid(beta * ((pi_w - pi_l) - (ref_w - ref_l)))
        torch.testing.assert_close(found, published, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_no_negatives_are_refused(kind: Preference) -> None:
    with pytest.raises(ValueError, match="at least one negative"):
        preference_losses(torch.zeros(1), torch.tensor([0]), 2, kind)
    with pytest.raises(ValueError, match="at least one negative"):
        positive_losses(torch.zeros(1), torch.ones(1), torch.tensor([1]), 2)


def test_no_beta_is_refused() -> None:
    with pytest.raises(ValueError, match="beta"):
        margins(torch.zeros(2), torch.zeros(2), 0.0)

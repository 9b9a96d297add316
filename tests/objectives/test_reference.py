"""The reference values beside the project, in float64."""

import json
from typing import Any

import pytest
import torch

from catalign.objectives import (
    AdaptiveTemperature,
    adaptive_temperature,
    language_losses,
    masked_softmax_losses,
    reduce_losses,
    valid_logits,
)
from conftest import SHARED

REFERENCE = SHARED / "vectors" / "reference.json"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not REFERENCE.exists(), reason="no shared/vectors beside the project"),
]
EXACT = {"rtol": 0.0, "atol": 1e-10}


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(REFERENCE.read_text())
    return values


def flat(case: dict[str, Any], keep: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Position, symbol and gold of the pairs at the kept positions, which count from 0 again."""
    valid = [case["valid_tokens"][position] for position in keep]
    position_E = torch.repeat_interleave(torch.arange(len(keep)), torch.tensor([len(tokens) for tokens in valid]))
    pairs = [(position, token) for position, tokens in enumerate(valid) for token in tokens]
    gold = [pairs.index((row, case["gold"][position])) for row, position in enumerate(keep)]
    return position_E, torch.tensor([token for _, token in pairs]), torch.tensor(gold)


def test_masked_softmax_losses_and_gradient(reference: dict[str, Any]) -> None:
    for case in reference["masked_softmax"]:
        logits = torch.tensor(case["logits"], dtype=torch.float64, requires_grad=True)
        every = list(range(len(case["gold"])))
        position_E, symbol_E, gold_P = flat(case, every)
        losses = masked_softmax_losses(logits[position_E, symbol_E], position_E, gold_P, case["tau"])
        torch.testing.assert_close(losses, torch.tensor(case["per_position"], dtype=torch.float64), **EXACT)
        (gradient,) = torch.autograd.grad(losses.mean(), logits)
        expected = torch.tensor(case["msl_gradient_of_mean_over_all"], dtype=torch.float64)
        torch.testing.assert_close(gradient, expected, **EXACT)


def test_masked_softmax_from_branching_positions_only(reference: dict[str, Any]) -> None:
    for case in reference["masked_softmax"]:
        branching = [position for position, tokens in enumerate(case["valid_tokens"]) if len(tokens) > 1]
        position_E, symbol_E, gold_P = flat(case, branching)
        # logits as hidden states against an identity head: the logits come back, and so does their gradient
        hidden = torch.tensor(case["logits"], dtype=torch.float64)[branching].requires_grad_()
        head = torch.eye(hidden.shape[1], dtype=torch.float64)
        logits_E = valid_logits(hidden, head, position_E, symbol_E)
        losses = masked_softmax_losses(logits_E, position_E, gold_P, case["tau"])
        total, count = reduce_losses(losses, "all", len(case["gold"]))
        assert total.item() / count == pytest.approx(case["msl_mean_over_all_positions"], rel=0, abs=1e-10)
        (gradient,) = torch.autograd.grad(total / count, hidden)
        expected = torch.tensor(case["msl_gradient_of_mean_over_all"], dtype=torch.float64)[branching]
        torch.testing.assert_close(gradient, expected, **EXACT)
        total, count = reduce_losses(losses, "branching", len(case["gold"]))
        assert total.item() / count == pytest.approx(case["msl_mean_over_branching_positions"], rel=0, abs=1e-10)


def test_language_losses(reference: dict[str, Any]) -> None:
    for case in reference["masked_softmax"]:
        logits = torch.tensor(case["logits"], dtype=torch.float64)
        head = torch.eye(logits.shape[1], dtype=torch.float64)
        losses = language_losses(logits, head, torch.tensor(case["gold"]), case["tau"])
        assert float(losses.mean()) == pytest.approx(case["lml_mean"], rel=0, abs=1e-10)


@pytest.mark.parametrize("micro_batch", [1, 2, 5])
def test_adaptive_temperature(reference: dict[str, Any], micro_batch: int) -> None:
    series = reference["adaptive_temperature"]
    low, high = series["clamp"]
    first = series["steps"][0]
    module = AdaptiveTemperature(series["start"], first["eta"], first["ema"], low, high).double()
    for step in series["steps"]:
        logits = torch.tensor(step["valid_logits"], dtype=torch.float64)
        examples, valid = logits.shape
        gold = torch.tensor(step["gold_column"])
        chosen = logits[torch.arange(examples), gold]
        moments = (float(chosen.mean()), float(logits.mean()), float(logits.var(correction=1)), valid)
        raw = adaptive_temperature(*moments, eta=step["eta"], low=0.0, high=float("inf"))
        assert raw == pytest.approx(step["tau_raw"], rel=0, abs=1e-10)
        clamped = adaptive_temperature(*moments, eta=step["eta"], low=low, high=high)
        assert clamped == pytest.approx(step["tau_clamped"], rel=0, abs=1e-10)
        for rows, golds in zip(logits.split(micro_batch), gold.split(micro_batch), strict=True):
            module.observe(rows.flatten(), torch.arange(len(golds)) * valid + golds)
        module.step()
        assert float(module.temperature) == pytest.approx(step["tau_after"], rel=0, abs=1e-10)

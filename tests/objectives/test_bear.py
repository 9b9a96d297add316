"""BEAR's weights against a padded brute force, and where they are 1."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.objectives import beam_margins, beam_weights, masked_softmax_losses

seeds = st.integers(0, 2**31)


def flat(seed: int, positions: int = 7, tokens: int = 12):
    """Logits of random valid tokens of each position, the gold one among them; and the same padded with -inf."""
    generator = torch.Generator().manual_seed(seed)
    logits_PV = torch.randn(positions, tokens, generator=generator, dtype=torch.float64) * 3
    valid_PV = torch.rand(positions, tokens, generator=generator) < torch.rand(positions, 1, generator=generator)
    token_P = torch.randint(tokens, (positions,), generator=generator)
    valid_PV[torch.arange(positions), token_P] = True
    position_E, symbol_E = valid_PV.nonzero(as_tuple=True)
    gold_P = torch.nonzero(symbol_E == token_P[position_E]).squeeze(1)
    return logits_PV, valid_PV, token_P, position_E, symbol_E, gold_P


def brute_force(logits_V: torch.Tensor, valid_V: torch.Tensor, token: int, beams: int, tau: float) -> float:
    """log p_gold - log q_B by sorting the probabilities of one position."""
    probabilities_V = (logits_V / tau).masked_fill(~valid_V, -math.inf).softmax(0)
    best = sorted((float(p) for p in probabilities_V[valid_V]), reverse=True)
    return math.log(float(probabilities_V[token])) - math.log(best[beams - 1]) if len(best) >= beams else math.inf


@settings(deadline=None)
@given(seeds, st.integers(1, 8), st.floats(0.5, 4), st.floats(0, 3), st.floats(0.2, 4))
def test_loss_and_gradient_are_those_of_a_padded_brute_force(
    seed: int, beams: int, tau: float, weight: float, softness: float
) -> None:
    logits, valid, token, position, symbol, gold = flat(seed)
    ours = logits.clone().requires_grad_()
    logits_E = ours[position, symbol]
    margins = beam_margins(logits_E, position, gold, beams, tau)
    losses = masked_softmax_losses(logits_E, position, gold, tau) * beam_weights(margins, weight, softness)

    theirs = logits.clone().requires_grad_()
    dense = torch.nn.functional.cross_entropy((theirs / tau).masked_fill(~valid, -math.inf), token, reduction="none")
    expected = [brute_force(logits[row], valid[row], int(token[row]), beams, tau) for row in range(len(token))]
    assert margins.tolist() == pytest.approx(expected, abs=1e-9)
    weights = [1.0 if math.isinf(m) else 1 + weight / (1 + math.exp(-m / softness)) for m in expected]
    dense = dense * torch.tensor(weights, dtype=torch.float64)

    torch.testing.assert_close(losses, dense)
    gradient = torch.autograd.grad(losses.sum(), ours)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(dense.sum(), theirs)[0])


def test_the_gradient_is_that_of_the_regulariser() -> None:
    """Where q_B is held fixed: L + lambda xi log sigmoid((log q_B - log p) / xi)."""
    logits, _, _, position, symbol, gold = flat(3)
    weight, softness, beams, tau = 0.7, 1.3, 3, 1.5
    edge = masked_softmax_losses(logits[position, symbol], position, gold, tau)  # -log p_gold
    margins = beam_margins(logits[position, symbol], position, gold, beams, tau)
    fixed = -edge - margins  # log q_B

    def regularised(logits_PV: torch.Tensor) -> torch.Tensor:
        loss = masked_softmax_losses(logits_PV[position, symbol], position, gold, tau)
        term = weight * softness * torch.nn.functional.logsigmoid((fixed + loss) / softness)
        return (loss + torch.where(margins.isfinite(), term, 0.0)).sum()

    assert margins.isfinite().any() and not margins.isfinite().all()
    leaf = logits.clone().requires_grad_()
    weighed = masked_softmax_losses(leaf[position, symbol], position, gold, tau) * beam_weights(
        margins, weight, softness
    )
    ours = torch.autograd.grad(weighed.sum(), leaf)[0]
    step = 1e-6
    for row, column in [(int(p), int(s)) for p, s in zip(position, symbol, strict=True)]:
        moved = torch.zeros_like(logits)
        moved[row, column] = step
        slope = float(regularised(logits + moved) - regularised(logits - moved)) / (2 * step)
        assert float(ours[row, column]) == pytest.approx(slope, abs=1e-7)


def test_a_token_at_the_edge_of_the_beam_has_margin_zero() -> None:
    logits = torch.tensor([3.0, 2.0, 1.0, 0.0, 5.0, 5.0])
    position, gold = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([1, 5])
    assert beam_margins(logits, position, gold, 2).tolist() == [0.0, 0.0]
    assert beam_margins(logits, position, gold, 1).tolist() == [-1.0, 0.0]
    assert beam_margins(logits, position, gold, 4, temperature=2.0).tolist() == [1.0, math.inf]


def test_the_order_of_the_pairs_does_not_matter() -> None:
    logits, _, _, position, symbol, gold = flat(5)
    logits = logits[position, symbol]
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(0))
    place = order.argsort()
    mixed = beam_margins(logits[order], position[order], place[gold], 3)
    torch.testing.assert_close(mixed, beam_margins(logits, position, gold, 3))


def test_fewer_tokens_than_beams_are_left_alone() -> None:
    margins = beam_margins(torch.randn(5), torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 3]), 4)
    assert margins.tolist() == [math.inf, math.inf]
    assert beam_weights(margins, 5.0).tolist() == [1.0, 1.0]


def test_no_weight_and_no_position() -> None:
    margins = torch.tensor([-2.0, 0.0, 30.0])
    assert beam_weights(margins, 0.0).tolist() == [1, 1, 1]
    assert beam_weights(margins, 0.5, 1e-3).tolist() == pytest.approx([1, 1.25, 1.5])
    none = torch.zeros(0, dtype=torch.long)
    assert len(beam_weights(beam_margins(torch.zeros(0), none, none, 3), 1.0)) == 0


def test_half_precision_is_widened() -> None:
    logits = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    assert beam_margins(logits, torch.tensor([0, 0]), torch.tensor([0]), 1).dtype == torch.float32


@pytest.mark.parametrize(("beams", "weight", "softness"), [(0, 1.0, 1.0), (1, -0.1, 1.0), (1, 1.0, 0.0)])
def test_values_that_mean_nothing_are_refused(beams: int, weight: float, softness: float) -> None:
    one = torch.zeros(1, dtype=torch.long)
    with pytest.raises(ValueError, match="must be at least"):
        beam_weights(beam_margins(torch.zeros(1), one, one, beams), weight, softness)

"""Properties of the masked and the full softmax."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.objectives import language as language_module
from catalign.objectives import (
    language_losses,
    masked_softmax_losses,
    reduce_losses,
    segment_logsumexp,
    valid_logits,
)
from catalign.objectives import masked as masked_module

seeds = st.integers(0, 2**31)
temperatures = st.floats(0.25, 8)


def batch(seed: int, positions: int = 6, width: int = 5, rows: int = 11, *, full: bool = False):
    """Hidden states, head, and per position a random set of valid symbols (all of them when full) with a gold one."""
    generator = torch.Generator().manual_seed(seed)
    hidden_PH = torch.randn(positions, width, generator=generator, dtype=torch.float64) * 2
    head_AH = torch.randn(rows, width, generator=generator, dtype=torch.float64) * 2
    gold_symbol_P = torch.randint(rows, (positions,), generator=generator)
    valid_PA = torch.rand(positions, rows, generator=generator) < (2 if full else 0.4)
    valid_PA[torch.arange(positions), gold_symbol_P] = True
    position_E, symbol_E = valid_PA.nonzero(as_tuple=True)
    gold_P = torch.nonzero(symbol_E == gold_symbol_P[position_E]).squeeze(1)
    return hidden_PH, head_AH, position_E, symbol_E, gold_P, gold_symbol_P, valid_PA


@settings(deadline=None)
@given(seeds, temperatures)
def test_masked_losses_equal_a_dense_masked_softmax(seed: int, temperature: float) -> None:
    hidden, head, position, symbol, gold, gold_symbol, valid = batch(seed)
    bias = torch.linspace(-1, 1, len(head), dtype=torch.float64)
    hidden.requires_grad_(), head.requires_grad_(), bias.requires_grad_()
    losses = masked_softmax_losses(valid_logits(hidden, head, position, symbol, bias), position, gold, temperature)
    dense = (hidden @ head.T + bias).div(temperature).masked_fill(~valid, -torch.inf)
    expected = torch.nn.functional.cross_entropy(dense, gold_symbol, reduction="none")
    torch.testing.assert_close(losses, expected)
    weight = torch.arange(1.0, len(losses) + 1, dtype=torch.float64)
    ours = torch.autograd.grad((losses * weight).sum(), (hidden, head, bias))
    theirs = torch.autograd.grad((expected * weight).sum(), (hidden, head, bias))
    torch.testing.assert_close(ours, theirs)


def test_wide_and_narrow_positions_take_the_same_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head, position, symbol, _, _, _ = batch(11, positions=20, rows=30)
    leaves = [hidden.requires_grad_(), head.requires_grad_()]
    weight = torch.linspace(-1, 1, len(symbol), dtype=torch.float64)
    expected = (hidden @ head.T)[position, symbol]
    expected_gradients = torch.autograd.grad((expected * weight).sum(), leaves)
    children = torch.bincount(position)
    for many in (0, int(children.median()), int(children.max())):  # all by product, mixed, all by pair
        monkeypatch.setattr(masked_module, "MANY_CHILDREN", many)
        logits = valid_logits(hidden, head, position, symbol)
        torch.testing.assert_close(logits, expected)
        torch.testing.assert_close(torch.autograd.grad((logits * weight).sum(), leaves), expected_gradients)


def test_valid_logits_under_autocast() -> None:
    hidden, head, position, symbol, _, _, _ = batch(12, positions=20, rows=60)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = valid_logits(hidden.float(), head.float(), position, symbol)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.double(), (hidden @ head.T)[position, symbol], rtol=0.05, atol=0.2)


@settings(deadline=None)
@given(seeds, temperatures)
def test_language_loss_is_never_below_masked_loss(seed: int, temperature: float) -> None:
    hidden, head, position, symbol, gold, gold_symbol, _ = batch(seed)
    masked = masked_softmax_losses(valid_logits(hidden, head, position, symbol), position, gold, temperature)
    language = language_losses(hidden, head, gold_symbol, temperature)
    assert (language >= masked - 1e-12).all()
    assert (masked >= 0).all()


@settings(deadline=None)
@given(seeds, temperatures)
def test_losses_agree_when_every_token_is_valid(seed: int, temperature: float) -> None:
    hidden, head, position, symbol, gold, gold_symbol, _ = batch(seed, full=True)
    masked = masked_softmax_losses(valid_logits(hidden, head, position, symbol), position, gold, temperature)
    torch.testing.assert_close(masked, language_losses(hidden, head, gold_symbol, temperature))


@settings(deadline=None)
@given(seeds, temperatures, st.floats(-100, 100))
def test_losses_do_not_change_when_logits_shift(seed: int, temperature: float, shift: float) -> None:
    hidden, head, position, symbol, gold, _, _ = batch(seed)
    logits = valid_logits(hidden, head, position, symbol)
    shifted = logits + shift * torch.arange(len(gold))[position]  # another shift at every position
    torch.testing.assert_close(
        masked_softmax_losses(shifted, position, gold, temperature),
        masked_softmax_losses(logits, position, gold, temperature),
    )


@settings(deadline=None)
@given(seeds, temperatures)
def test_gradient_sums_to_zero_at_every_position(seed: int, temperature: float) -> None:
    hidden, head, position, symbol, gold, _, _ = batch(seed)
    logits = valid_logits(hidden, head, position, symbol).requires_grad_()
    losses = masked_softmax_losses(logits, position, gold, temperature)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    sums = torch.zeros(len(gold), dtype=torch.float64).index_add(0, position, gradient)
    torch.testing.assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-12)


def test_gradients_pass_gradcheck() -> None:
    hidden, head, position, symbol, gold, gold_symbol, _ = batch(3)
    hidden.requires_grad_(), head.requires_grad_()

    def masked(hidden: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        return masked_softmax_losses(valid_logits(hidden, head, position, symbol), position, gold, 1.7)

    assert torch.autograd.gradcheck(masked, (hidden, head))
    assert torch.autograd.gradcheck(lambda h, w: language_losses(h, w, gold_symbol, 1.7), (hidden, head))


def test_probabilities_over_a_trie_sum_to_one() -> None:
    titles = [(3, 1), (3, 4, 1), (3, 4, 5, 1), (2, 2, 1), (2, 5, 3, 1), (5, 1)]
    logits = {}  # one row of logits per prefix
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for title in titles:
        log_probability = 0.0
        for step, token in enumerate(title):
            prefix = title[:step]
            children = sorted({other[step] for other in titles if other[:step] == prefix})
            row = logits.setdefault(prefix, torch.randn(6, generator=generator, dtype=torch.float64) * 3)
            loss = masked_softmax_losses(
                row[children], torch.zeros(len(children), dtype=torch.long), torch.tensor([children.index(token)])
            )
            log_probability -= float(loss)
        total += math.exp(log_probability)
    assert total == pytest.approx(1, abs=1e-12)


def test_single_child_is_exactly_zero() -> None:
    logits = torch.tensor([1e4, -3.0, 7.0], requires_grad=True)
    losses = masked_softmax_losses(logits, torch.tensor([0, 1, 1]), torch.tensor([0, 2]), 1.5)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert losses[0] == 0 and gradient[0] == 0
    assert losses[1] > 0 and gradient[1] > 0 > gradient[2]


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([1e4, -1e4, 9.99e3, -1e4, -1e4], requires_grad=True)
    position = torch.tensor([0, 0, 0, 1, 1])
    losses = masked_softmax_losses(logits, position, torch.tensor([1, 3]))
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    torch.testing.assert_close(losses, torch.tensor([2e4 + math.log1p(math.exp(-10)), math.log(2)]))
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    hidden, head, position, symbol, gold, gold_symbol, _ = batch(5, positions=40, rows=30)
    low_hidden, low_head = hidden.to(dtype), head.to(dtype)
    low = masked_softmax_losses(valid_logits(low_hidden, low_head, position, symbol), position, gold, 2.0)
    high = masked_softmax_losses(valid_logits(hidden, head, position, symbol), position, gold, 2.0)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), high, rtol=0.05, atol=0.1)
    language = language_losses(low_hidden, low_head, gold_symbol, torch.tensor(2.0))
    assert language.dtype == torch.float32
    torch.testing.assert_close(language.double(), language_losses(hidden, head, gold_symbol, 2.0), rtol=0.05, atol=0.1)


def test_language_losses_in_chunks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head, _, _, _, gold_symbol, _ = batch(7)
    bias = torch.linspace(-1, 1, len(head), dtype=torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (hidden, head, bias)]
    weight = torch.arange(1.0, len(gold_symbol) + 1, dtype=torch.float64)

    def losses_and_gradients() -> tuple[torch.Tensor, ...]:
        losses = language_losses(hidden, head, gold_symbol, 1.7, bias)
        return losses, *torch.autograd.grad((losses * weight).sum(), leaves)

    whole = losses_and_gradients()
    monkeypatch.setattr(language_module, "LOGITS_AT_ONCE", 2 * len(head))
    torch.testing.assert_close(losses_and_gradients(), whole)


def test_segment_logsumexp_of_an_empty_segment() -> None:
    values = torch.tensor([1.0, 2.0, -torch.inf])
    result = segment_logsumexp(values, torch.tensor([0, 0, 2]), 4)
    torch.testing.assert_close(result, torch.tensor([math.log(math.e + math.e**2), *[-torch.inf] * 3]))


def test_reduce_losses() -> None:
    losses = torch.tensor([1.0, 2.0, 6.0])
    assert reduce_losses(losses, "branching", 12) == (9.0, 3)
    assert reduce_losses(losses, "all", 12) == (9.0, 12)
    with pytest.raises(KeyError):
        reduce_losses(losses, "every", 12)  # type: ignore[arg-type]


def test_a_batch_without_branching_positions() -> None:
    hidden, head = torch.randn(0, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    losses = masked_softmax_losses(valid_logits(hidden, head, none, none), none, none)
    total, count = reduce_losses(losses, "all", 3)
    total.backward()
    assert (total.item(), count) == (0.0, 3)
    assert head.grad is not None and not head.grad.any()

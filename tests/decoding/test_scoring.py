"""Losses under the whole vocabulary do not depend on autocast, nor on how many positions meet."""

import pytest
import torch

from catalign.decoding import scoring
from catalign.objectives import language
from tiny import VOCABULARY, tiny_model


@pytest.mark.parametrize("architecture", ["llama", "phi", "gemma2"])  # plain, with a bias, capped
@pytest.mark.parametrize("half", [False, True], ids=["float32 hidden states", "bfloat16 hidden states"])
def test_autocast_leaves_the_logits_alone(architecture: str, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(architecture)
    generator = torch.Generator().manual_seed(0)
    hidden_PH = torch.randn(12, model.head_VH.shape[1], generator=generator)
    hidden_PH = (hidden_PH.bfloat16() if half else hidden_PH).requires_grad_()
    gold_P = torch.randint(VOCABULARY, (12,), generator=generator)

    def found(losses_P: torch.Tensor) -> list[torch.Tensor]:
        assert losses_P.dtype == torch.float32
        return [losses_P.detach(), *torch.autograd.grad(losses_P.sum(), (hidden_PH, model.head_VH))]

    expected = found(scoring.vocabulary_losses(model, hidden_PH.float(), gold_P))
    for rows in (12, 5):  # all at once, and in parts
        for module in (language, scoring):
            monkeypatch.setattr(module, "LOGITS_AT_ONCE", rows * VOCABULARY)
        with torch.autocast("cpu", torch.bfloat16):
            losses_P = scoring.vocabulary_losses(model, hidden_PH, gold_P)
        for one, other in zip(found(losses_P), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)

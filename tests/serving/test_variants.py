"""Runs side by side: shares, who gets which, merged adapters."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel

from catalign.errors import UserError
from catalign.model.loading import Lora, add_lora
from catalign.serving.variants import Variant, _parse, choose_variant, merge_adapter
from tiny import tiny_model


def variants(*shares: float) -> list[Variant]:
    return [Variant(str(number), share, None) for number, share in enumerate(shares)]  # type: ignore[arg-type]


@given(st.text(), st.lists(st.floats(0.01, 1), min_size=1, max_size=4))
def test_the_same_key_gets_the_same_variant(key: str, weights: list[float]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    assert choose_variant(variants(*shares), key).name == choose_variant(variants(*shares), key).name


def test_variants_are_asked_by_their_shares() -> None:
    chosen = [choose_variant(variants(0.1, 0.6, 0.3), f"user {number}").name for number in range(5000)]
    counts = np.bincount(list(map(int, chosen)), minlength=3) / 5000
    np.testing.assert_allclose(counts, [0.1, 0.6, 0.3], atol=0.03)


@pytest.mark.parametrize(
    ("text", "folder", "weight"),
    [("runs/msl", "runs/msl", 1), ("runs/msl:0.9", "runs/msl", 0.9), ("runs/msl:2", "runs/msl", 2),
     ("C:runs", "C:runs", 1), ("runs/a:b", "runs/a:b", 1)],
)  # fmt: skip
def test_a_weight_stands_behind_the_last_colon(text: str, folder: str, weight: float) -> None:
    assert _parse(text) == (Path(folder), weight)


def test_a_folder_may_end_like_a_weight(tmp_path: Path) -> None:
    (tmp_path / "run:3").mkdir()
    assert _parse(str(tmp_path / "run:3")) == (tmp_path / "run:3", 1)


@pytest.mark.parametrize("text", ["a:0", "a:-1", "a:inf", "a:nan"])
def test_a_weight_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="not above 0"):
        _parse(text)


def test_an_adapter_is_merged_without_changing_the_answers() -> None:
    model = add_lora(tiny_model("llama"), Lora(rank=4, target_modules=("q_proj", "v_proj")), seed=0)
    with torch.no_grad():
        for name, weight in model.causal.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(1))
    model.eval()
    token = torch.tensor([[0, 5, 6, 7]])
    before = model.rows_hidden(token)
    merged = merge_adapter(model)
    torch.testing.assert_close(merged.rows_hidden(token), before, atol=1e-4, rtol=1e-4)
    assert isinstance(merged.causal, PeftModel)
    assert all(
        layer.merged for layer in merged.causal.modules() if hasattr(layer, "merged") and hasattr(layer, "lora_A")
    )


def test_a_model_without_adapter_stays_as_it_is() -> None:
    model = tiny_model()
    assert merge_adapter(model) is model

"""The language model taken apart: decoder, head and what follows the head make the whole model's logits."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    BertConfig,
    BertLMHeadModel,
    CohereConfig,
    CohereForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PreTrainedModel,
)

from catalign.errors import UserError
from catalign.model.language_model import LanguageModel
from tiny import ARCHITECTURES, END, tiny_causal, tiny_model, word_tokenizer

TOKENS = torch.tensor([[0, 5, 9, 7, 20, 4]])


@torch.no_grad()
def parts_and_whole(model: LanguageModel) -> tuple[torch.Tensor, torch.Tensor]:
    depth = torch.arange(TOKENS.shape[1])
    hidden_PH = model.hidden_states(TOKENS, depth[None], None, depth)
    logits_PV = torch.nn.functional.linear(hidden_PH, model.head_VH, model.head_bias_V)
    return model.finish_logits(logits_PV), model.base(input_ids=TOKENS).logits[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parts_make_the_whole(architecture: str) -> None:
    parts, whole = parts_and_whole(tiny_model(architecture))
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "phi"])
def test_an_adapter_around_it_changes_nothing_here(architecture: str) -> None:
    causal = tiny_causal(architecture)
    adapted = get_peft_model(causal, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    model = LanguageModel(adapted, word_tokenizer()).eval()
    parts, whole = parts_and_whole(model)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)
    plain, _ = parts_and_whole(tiny_model(architecture))
    assert (parts - plain).abs().max() > 1e-3  # the adapter is in the forward pass
    assert model.base is causal


def test_what_it_knows_of_the_model() -> None:
    model = tiny_model("llama")
    assert (model.end_token, model.context, model.device.type) == (END, 64, "cpu")
    assert model.head_bias_V is None
    assert tiny_model("phi").head_bias_V is not None
    assert tiny_model("gpt2").context == 64
    assert tiny_model("gemma3").context == 24  # its sliding window


def test_no_end_token() -> None:
    tokenizer = word_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no end token"):
        LanguageModel(tiny_causal(), tokenizer)


def test_an_adapted_head_is_refused() -> None:
    adapted = get_peft_model(tiny_causal("qwen2"), LoraConfig(target_modules=["q_proj", "lm_head"]))
    with pytest.raises(UserError, match="head"):
        LanguageModel(adapted, word_tokenizer())


def strange_models() -> list[PreTrainedModel]:
    sizes = {
        "vocab_size": 24,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    return [
        CohereForCausalLM(CohereConfig(**sizes, logit_scale=0.25, pad_token_id=0)),
        GraniteForCausalLM(GraniteConfig(**sizes, logits_scaling=4.0, pad_token_id=0)),
        BertLMHeadModel(BertConfig(**sizes, is_decoder=True, pad_token_id=0)),
    ]


@pytest.mark.parametrize("causal", strange_models(), ids=lambda causal: type(causal).__name__)
def test_what_cannot_be_taken_apart_is_refused(causal: PreTrainedModel) -> None:
    """A scale on the logits, a layer before the head."""
    with pytest.raises(UserError, match=f"{type(causal).__name__} computes its logits in a way"):
        LanguageModel(causal.eval(), word_tokenizer()).check_parts()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_can_be_taken_apart_passes(architecture: str, dtype: torch.dtype) -> None:
    tiny_model(architecture).to(dtype).check_parts()


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_attention_mask_in_bfloat16(architecture: str) -> None:
    model = tiny_model(architecture).to(torch.bfloat16)
    end_RN = torch.tensor([[3, 2, 3, 4]])  # a root with two branches, and padding
    hidden = model.hidden_states(torch.tensor([[5, 6, 7, 0]]), torch.tensor([[0, 1, 1, 0]]), end_RN, torch.arange(4))
    assert hidden.dtype == torch.bfloat16 and hidden.isfinite().all()
    alone = model.hidden_states(torch.tensor([[5, 7]]), torch.tensor([[0, 1]]), None, torch.tensor([1]))
    torch.testing.assert_close(hidden[2], alone[0], rtol=0.05, atol=0.05)

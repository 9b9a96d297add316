"""The frozen reference of a preference stage beside the weights that train, and what identifies it.

There is no second model in memory. Where an adapter trains on from an adapter, the first one stays beside it under
another name; where a new adapter trains on full weights, the reference is the model without it. Where all weights
train, they are the reference until the first step. Of a projector of item embeddings a copy is kept.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from catalign.errors import UserError
from catalign.model.language_model import LanguageModel
from catalign.model.loading import TRAINED

REFERENCE = "reference"


def train_on(model: LanguageModel, folder: Path) -> None:
    """Let the adapter of a loaded run train, and keep a frozen copy of it as the reference.

    Args:
        model: what `load_trained` made of the folder.
        folder: with the adapter.
    """
    assert isinstance(model.causal, PeftModel)
    model.causal.load_adapter(str(folder), adapter_name=REFERENCE)
    model.causal.set_adapter(TRAINED)  # trainable, and the other one is not


@contextmanager
def reference_weights(model: LanguageModel) -> Iterator[None]:
    """Let the reference answer inside the block; where all weights train, only before the first step."""
    causal, items = model.causal, model.item_embedding
    with nullcontext() if items is None else items.reference():
        if not isinstance(causal, PeftModel):
            yield
        elif REFERENCE in causal.peft_config:
            causal.set_adapter(REFERENCE, inference_mode=True)
            try:
                yield
            finally:
                causal.set_adapter(TRAINED)
        else:
            with causal.disable_adapter():
                yield


def model_digest(model: LanguageModel) -> str:
    """SHA-256 of the model's weights without any adapter: the same whether one is on it or not."""
    weights = {
        name.replace(".base_layer.", "."): weight
        for name, weight in model.base.state_dict().items()
        if ".lora_" not in name
    }
    return _digest(weights)


def adapter_digest(model: LanguageModel) -> str | None:
    """SHA-256 of the weights of the reference adapter; None where the reference is the model itself."""
    if not isinstance(model.causal, PeftModel) or REFERENCE not in model.causal.peft_config:
        return None
    return _digest(get_peft_model_state_dict(model.causal, adapter_name=REFERENCE))


def items_digest(model: LanguageModel) -> str | None:
    """SHA-256 of the item embeddings and of the reference's projector; None where there are none."""
    if model.item_embedding is None:
        return None
    with model.item_embedding.reference():
        weights = model.item_embedding.projector.state_dict()
    return _digest({"vector_IW": model.item_embedding.vector_IW, **weights})


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the vocabulary and of the tokens that begin and end a text."""
    vocabulary = sorted(tokenizer.get_vocab().items())
    text = json.dumps([vocabulary, tokenizer.bos_token_id, tokenizer.eos_token_id], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_tokenizer(model: LanguageModel, folder: Path) -> None:
    """Refuse a run whose base model has another tokenizer by now than the run was trained with.

    Raises:
        UserError: it has.
    """
    saved = AutoTokenizer.from_pretrained(folder)
    if tokenizer_digest(saved) != tokenizer_digest(model.tokenizer):
        raise UserError(
            "this run was trained with another tokenizer than its model has now",
            where=folder,
            mend=f"train it again on {model.base.name_or_path}",
        )


def _digest(weights: dict[str, torch.Tensor]) -> str:
    """SHA-256 of names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

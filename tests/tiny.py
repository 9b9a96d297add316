"""Small things to test with: random models of many architectures, a word tokenizer, and plain slow ways to score.

The words of the tokenizer are w3, w4, ...: word `wN` is token N, so that titles can be written as tokens or as text.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from catalign.catalogue.catalogue import Catalogue
from catalign.catalogue.trie import TitleTrie
from catalign.model.item_embedding import ItemVectors
from catalign.model.language_model import LanguageModel
from catalign.model.loading import add_item_embedding

VOCABULARY = 24
BEGIN, END, PADDING = 0, 1, 2
FIRST_WORD = 3

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    "pad_token_id": PADDING,
}
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2}

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**GROUPED),
    "qwen3": lambda: Qwen3Config(**GROUPED, head_dim=8),
    "mistral": lambda: MistralConfig(**GROUPED, sliding_window=None),
    "gemma": lambda: GemmaConfig(**GROUPED, head_dim=8),
    # A window longer than any sequence of the tests and shorter than their rows; a cap low enough to be felt.
    "gemma2": lambda: Gemma2Config(**GROUPED, head_dim=8, sliding_window=24, final_logit_softcapping=2.0),
    "gemma3": lambda: Gemma3TextConfig(
        **GROUPED, head_dim=8, sliding_window=24, layer_types=["sliding_attention", "full_attention"]
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=4, n_positions=64, bos_token_id=BEGIN, eos_token_id=END
    ),
    "opt": lambda: OPTConfig(
        **{**SIZES, "ffn_dim": 32, "intermediate_size": None, "word_embed_proj_dim": 8, "dropout": 0.0}
    ),
    "phi": lambda: PhiConfig(**GROUPED),  # the head has a bias
    "gpt-neox": lambda: GPTNeoXConfig(**SIZES),
}
ARCHITECTURES = tuple(CONFIGS)

UNSHARED: dict[str, Callable[[], PreTrainedConfig]] = {
    # A recurrent one, and one whose positions do not come from the position ids.
    "mamba": lambda: MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2),
    "bloom": lambda: BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=1, n_head=4),
}


def word_tokenizer(*, begin: bool = True, words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words between spaces: w3, w4, ... and further `words` after them."""
    names = ["<begin>", "<end>", "<padding>", *(f"w{number}" for number in range(FIRST_WORD, VOCABULARY)), *words]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": "<end>", "pad_token": "<padding>"} | ({"bos_token": "<begin>"} if begin else {})
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def tiny_causal(architecture: str = "llama", seed: int = 0) -> PreTrainedModel:
    """A model whose every weight is random and large enough to matter (norms and biases too), dropout off."""
    config = (CONFIGS | UNSHARED)[architecture]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        causal: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
        with torch.no_grad():
            for weight in causal.parameters():
                weight.add_(0.3 * torch.randn_like(weight))
    return causal.eval()


def tiny_model(architecture: str = "llama", seed: int = 0) -> LanguageModel:
    """`tiny_causal` with the word tokenizer."""
    return LanguageModel(tiny_causal(architecture, seed), word_tokenizer()).eval()


def tiny_vectors(items: Sequence[int], width: int = 5, seed: int = 0) -> ItemVectors:
    """Random embeddings of these items of a `tiny_catalogue`."""
    vector_IW = np.random.default_rng(seed).normal(size=(len(items), width)).astype(np.float32)
    return ItemVectors([f"id{item}" for item in items], vector_IW)


def model_with_items(items: Sequence[int], architecture: str = "llama", seed: int = 0) -> LanguageModel:
    """`tiny_model` with embeddings of some items; the projector's weights are large enough to matter."""
    model = tiny_model(architecture, seed)
    add_item_embedding(model, tiny_vectors(items), seed)
    assert model.item_embedding is not None
    with torch.no_grad():
        for weight in model.item_embedding.parameters():
            weight.mul_(3)
    return model


def text_of(tokens: Sequence[int]) -> str:
    """The title of these tokens."""
    return " ".join(f"w{token}" for token in tokens)


def tiny_catalogue(titles: Sequence[Sequence[int]], popularity: Sequence[int] | None = None) -> Catalogue:
    """A catalogue of titles given as tokens, without the end token."""
    return Catalogue.from_lists([f"id{row}" for row in range(len(titles))], map(text_of, titles), popularity)


def tiny_trie(titles: Sequence[Sequence[int]]) -> TitleTrie:
    """The trie of titles given as tokens, without the end token."""
    return TitleTrie.from_lists([[*title, END] for title in titles], end_token=END)


def children_of(titles: Sequence[Sequence[int]], prefix: Sequence[int]) -> list[int]:
    """The tokens that continue `prefix` towards some closed title, ascending; found by reading all titles."""
    closed = [(*title, END) for title in titles]
    return sorted({title[len(prefix)] for title in closed if title[: len(prefix)] == tuple(prefix) != title})


@torch.no_grad()
def title_scores(
    causal: Any, prompt: Sequence[int], titles: Sequence[Sequence[int]], score: str
) -> npt.NDArray[np.float64]:
    """log P(title and end | prompt) of every title, from the whole model's logits of one plain sequence per title."""
    closed = [(*title, END) for title in titles]
    longest = max(map(len, closed))
    token_ST = torch.tensor([[*prompt, *title, *[0] * (longest - len(title))] for title in closed])
    log_ST = causal(input_ids=token_ST).logits.double()
    scores = []
    for row, title in enumerate(closed):
        total = 0.0
        for depth, token in enumerate(title):
            logit_V = log_ST[row, len(prompt) - 1 + depth]
            against = logit_V[children_of(titles, title[:depth])] if score == "valid" else logit_V
            total += float(logit_V[token] - against.logsumexp(0))
        scores.append(total)
    return np.array(scores)

"""The model and the shop of `benchmarks.gpu`: the shape of Llama-3.2-1B with random weights, titles and users drawn."""

from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.setting import LOGIT_SCALE, SEED, Setting
from catalign.catalogue.catalogue import Catalogue
from catalign.catalogue.trie import TitleTrie
from catalign.model.language_model import LanguageModel
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import INSTRUCTION
from catalign.training.batches import Windows

CHOICES = (48, 12, 6, 4, 3, 2)  # most different words at the first places of a title; behind them one


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        vocabulary, width, inner_width, layers, heads, key_heads: of the Llama.
        alphabet: different tokens in titles.
        items, users: of the drawn shop.
        windows: of a training step.
        examples, negatives: of a step of DMPO.
        searches: users of a search.
        checked: windows, examples or users of the comparison in float32.
        rows: of the published flow that go through the model at once, if they fit.
        seconds: of a part, the comparison included.
        rounds: most rounds of a part.
    """

    vocabulary: int
    width: int
    inner_width: int
    layers: int
    heads: int
    key_heads: int
    alphabet: int
    items: int
    users: int
    windows: int
    examples: int
    negatives: int
    searches: int
    checked: int
    rows: int
    seconds: float
    rounds: int


FULL = Sizes(
    vocabulary=128_256, width=2_048, inner_width=8_192, layers=16, heads=32, key_heads=8, alphabet=8_000,
    items=10_000, users=300, windows=128, examples=8, negatives=7, searches=16, checked=4, rows=32,
    seconds=105.0, rounds=30,
)  # fmt: skip
QUICK = Sizes(
    vocabulary=600, width=32, inner_width=64, layers=2, heads=4, key_heads=2, alphabet=300,
    items=300, users=12, windows=6, examples=2, negatives=2, searches=3, checked=2, rows=4,
    seconds=3.0, rounds=1,
)  # fmt: skip


def draw_titles(sizes: Sizes, generator: np.random.Generator) -> list[str]:
    """Titles of words of one token each; the choices at each place, and where they lead, are as in shops."""
    length_S = np.minimum(4 + generator.poisson(4, sizes.items), 14)
    width_T = np.array([*CHOICES, *[1] * (14 - len(CHOICES))])
    choice_ST = (width_T * generator.random((sizes.items, len(width_T))) ** 2).astype(np.int64)  # few are frequent
    key_S, key_ST = np.zeros(sizes.items, dtype=np.int64), np.empty_like(choice_ST)
    for place in range(len(width_T)):  # what a word is depends on all before it
        key_S = (key_S * 1_000_003 + choice_ST[:, place] + 7 * place + 1) % (2**31 - 1)
        key_ST[:, place] = key_S
    alphabet_A = generator.choice(np.arange(4, sizes.vocabulary), sizes.alphabet, replace=False)
    token_ST = alphabet_A[key_ST % sizes.alphabet]
    return [" ".join(f"w{token}" for token in row[:length]) for row, length in zip(token_ST, length_S, strict=True)]


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Word `wN` is token N; any other word, and each mark, is token 3."""
    names = ["<begin>", "<end>", "<padding>", *(f"w{number}" for number in range(3, vocabulary))]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"bos_token": names[0], "eos_token": names[1], "pad_token": names[2]}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)  # type: ignore[no-untyped-call]


def draw_windows(sizes: Sizes, users: int, generator: np.random.Generator) -> Windows:
    """Windows of users with 6 to 16 items each, histories of at most ten."""
    user_S, histories, target_S, seen_S = [], [], [], []
    for user in range(users):
        visits = int(generator.integers(6, 17))
        items = (sizes.items * generator.random(visits) ** 2).astype(np.uint32)
        for seen in range(1, visits):
            user_S.append(user)
            histories.append(items[max(seen - 10, 0) : seen])
            target_S.append(int(items[seen]))
            seen_S.append(seen)
    return Windows(np.array(user_S), histories, np.array(target_S), np.array(seen_S))


def make_setting(sizes: Sizes, device: torch.device) -> Setting:
    """The shop, and a model on the device whose weights are drawn there."""
    generator = np.random.default_rng(SEED)
    catalogue = Catalogue.from_lists(map(str, range(sizes.items)), draw_titles(sizes, generator))
    tokenizer = word_tokenizer(sizes.vocabulary)
    config = LlamaConfig(
        vocab_size=sizes.vocabulary, hidden_size=sizes.width, intermediate_size=sizes.inner_width,
        num_hidden_layers=sizes.layers, num_attention_heads=sizes.heads, num_key_value_heads=sizes.key_heads,
        max_position_embeddings=8_192, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        bos_token_id=0, eos_token_id=1, pad_token_id=2, dtype=torch.float32,
    )  # fmt: skip
    torch.manual_seed(SEED)
    with device:
        causal = LlamaForCausalLM(config)
    with torch.no_grad():
        causal.model.norm.weight.mul_(LOGIT_SCALE)
    model = LanguageModel(causal, tokenizer).eval()
    prompter = Prompter(catalogue, tokenizer, INSTRUCTION, context=model.context)
    train, test = draw_windows(sizes, sizes.users, generator), draw_windows(sizes, sizes.users, generator)
    return Setting(model, prompter, train, test)


def trie_shape(trie: TitleTrie) -> dict[str, float]:
    """What the ratios depend on: children at the first decision, and decisions of a title."""
    children = np.diff(trie.child_start)
    node, start = trie.paths(np.arange(trie.items))
    decisions = np.add.reduceat(children[trie.parent[node]] > 1, start[:-1], dtype=np.int64)
    first = 0
    while children[first] == 1:
        first = int(trie.child_start[first])
    return {
        "children_at_first_decision": int(children[first]),
        "mean_decisions": round(float(decisions.mean()), 2),
        "alphabet": len(trie.alphabet),
    }

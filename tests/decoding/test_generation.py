"""Free generation against `generate` of transformers, token for token."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.decoding.generation import NO_TOKEN, GeneratedTexts, generate_texts
from catalign.errors import UserError
from catalign.model.language_model import LanguageModel
from tiny import ARCHITECTURES, END, PADDING, UNSHARED, VOCABULARY, tiny_model

PROMPTS = [[0, 4, 5, 6], [0, 9], [0, 4, 5, 7, 12, 20, 21, 3], [0, 4, 5, 6], [0, 4, 5, 6, 8]]
Texts = list[list[tuple[list[int], float]]]

prompts = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model("llama")


def ours(
    model: LanguageModel, prompts: Sequence[Sequence[int]], beams: int, most_tokens: int, length_penalty: float = 1.0
) -> Texts:
    arrays = [np.array(prompt, dtype=np.int32) for prompt in prompts]
    found = generate_texts(model, arrays, beams=beams, most_tokens=most_tokens, length_penalty=length_penalty)
    texts = [[row[row != NO_TOKEN].tolist() for row in rows] for rows in found.token_BWL]
    return [list(zip(*pair, strict=True)) for pair in zip(texts, found.score_BW.tolist(), strict=True)]


def theirs(
    model: LanguageModel, prompt: Sequence[int], beams: int, most_tokens: int, length_penalty: float = 1.0
) -> list[list[int]]:
    """The texts by transformers, one prompt at a time, cut behind their end token."""
    output = model.base.generate(  # type: ignore[operator]
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=most_tokens,
        length_penalty=length_penalty,
        do_sample=False,
        eos_token_id=END,
        pad_token_id=PADDING,
    )
    answers = [row[len(prompt) :] for row in output.tolist()]
    return [answer[: answer.index(END) + 1] if END in answer else answer for answer in answers]


def log_probability(model: LanguageModel, prompt: Sequence[int], text: Sequence[int]) -> float:
    """By the whole model's logits of the plain sequence."""
    with torch.no_grad():
        log_TV = model.causal(input_ids=torch.tensor([[*prompt, *text]])).logits[0].double().log_softmax(-1)
    return sum(float(log_TV[len(prompt) - 1 + place, token]) for place, token in enumerate(text))


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *UNSHARED])
def test_the_texts_of_generate(architecture: str, beams: int) -> None:
    other = tiny_model(architecture, seed=5)
    other.check_parts()
    assert other.shares_prefixes == (architecture in ARCHITECTURES)
    for prompt, found in zip(PROMPTS, ours(other, PROMPTS, beams, 9), strict=True):
        assert [text for text, _ in found] == theirs(other, prompt, beams, 9)
        for text, score in found:
            assert score == pytest.approx(log_probability(other, prompt, text), abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    prompts=prompts,
    beams=st.integers(1, 5),
    most_tokens=st.integers(1, 14),
    length_penalty=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    seed=st.integers(0, 5),
)
def test_the_texts_of_generate_in_any_batch(
    prompts: list[list[int]], beams: int, most_tokens: int, length_penalty: float, seed: int
) -> None:
    """Ends come early and late, users end at different times, prompts share beginnings or are the same."""
    model = tiny_model("llama", seed)
    with torch.no_grad():
        model.base.lm_head.weight[END] *= 3  # type: ignore[union-attr, operator]  # so that texts do end
    for prompt, found in zip(prompts, ours(model, prompts, beams, most_tokens, length_penalty), strict=True):
        assert [text for text, _ in found] == theirs(model, prompt, beams, most_tokens, length_penalty)

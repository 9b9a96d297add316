"""Free generation against `generate` of transformers, token for token."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.decoding.generation import NO_TOKEN, GeneratedTexts, generate_in_batches, generate_texts
from catalign.errors import UserError
from catalign.model.language_model import LanguageModel
from tiny import ARCHITECTURES, BEGIN, END, PADDING, UNSHARED, VOCABULARY, tiny_model, word_tokenizer

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


def eager_to_end(seed: int, bias: float) -> LanguageModel:
    """A model that likes the end token more by `bias`."""
    model = tiny_model("phi", seed)
    with torch.no_grad():
        model.base.lm_head.bias[END] += bias  # type: ignore[union-attr, index, operator]
    return model


@settings(max_examples=60, deadline=None)
@given(
    prompts=prompts,
    beams=st.integers(1, 5),
    most_tokens=st.integers(1, 14),
    length_penalty=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    seed=st.integers(0, 3),
    bias=st.floats(0.0, 6.0),
)
def test_the_texts_of_generate_in_any_batch(
    prompts: list[list[int]], beams: int, most_tokens: int, length_penalty: float, seed: int, bias: float
) -> None:
    """Texts end at once, early and late, users at different times; prompts share beginnings or are the same."""
    model = eager_to_end(seed, bias)
    for prompt, found in zip(prompts, ours(model, prompts, beams, most_tokens, length_penalty), strict=True):
        assert [text for text, _ in found] == theirs(model, prompt, beams, most_tokens, length_penalty)


def test_texts_end_early_and_late() -> None:
    """What the tests above compare is not all cut at the limit."""
    lengths = [
        len(text) for bias in (0.0, 3.0) for rows in ours(eager_to_end(0, bias), PROMPTS, 4, 12) for text, _ in rows
    ]
    assert len(set(lengths)) > 5 and min(lengths) == 1 and max(lengths) == 12


@pytest.mark.parametrize("beams", [1, 4])
def test_an_empty_generation_is_an_empty_text(beams: int) -> None:
    model = eager_to_end(0, 100.0)
    found = generate_texts(model, [np.array(prompt) for prompt in PROMPTS], beams=beams, most_tokens=5)
    assert (found.token_BWL[:, 0] == [END] + [NO_TOKEN] * (found.token_BWL.shape[2] - 1)).all()
    texts = found.texts(model.tokenizer)
    assert [len(rows) for rows in texts] == [beams] * len(PROMPTS)
    assert all(rows[0] == "" for rows in texts)


def test_texts_are_decoded_without_special_tokens() -> None:
    token_BWL = np.array([[[5, 6, END], [BEGIN, 7, -1]], [[END, -1, -1], [8, PADDING, 9]]])
    found = GeneratedTexts(token_BWL, np.zeros((2, 2), dtype=np.float32))
    assert found.texts(word_tokenizer()) == [["w5 w6", "w7"], ["", "w8 w9"]]


def test_no_prompts(model: LanguageModel) -> None:
    found = generate_texts(model, [], beams=3, most_tokens=5)
    assert found.token_BWL.shape[:2] == found.score_BW.shape == (0, 3)
    assert found.texts(model.tokenizer) == []


def test_a_text_that_does_not_fit_the_context_is_refused(model: LanguageModel) -> None:
    prompt = np.zeros(model.context - 4, dtype=np.int32)
    assert generate_texts(model, [prompt], beams=2, most_tokens=4).token_BWL.shape == (1, 2, 4)
    with pytest.raises(UserError, match="do not fit the model's context of 64; allow fewer tokens"):
        generate_texts(model, [np.array([1]), prompt], beams=2, most_tokens=5)


def test_prompts_are_read_once_and_their_beginning_once_for_all(model: LanguageModel) -> None:
    calls: list[tuple[int, ...]] = []
    hook = model.decoder.register_forward_pre_hook(
        lambda _, __, inputs: calls.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    try:
        ours(model, [[0, 4, 5, 6, 9], [0, 4, 5, 7], [0, 4, 5, 7, 8]], 2, 3)
    finally:
        hook.remove()
    assert calls == [(1, 3), (1, 4), (3, 2), (3, 2)]  # the beginning; the rest as one forest; two tokens per user


@settings(max_examples=20, deadline=None)
@given(order=st.permutations([*range(len(PROMPTS)), 1, 1]), batch_size=st.integers(1, 8))
def test_batches_answer_every_prompt_once_and_as_if_it_were_alone(order: list[int], batch_size: int) -> None:
    model = eager_to_end(0, 3.0).train()
    prompts = [np.array(PROMPTS[number], dtype=np.int32) for number in order]
    answered = {}
    for numbers, found in generate_in_batches(model, prompts, beams=2, most_tokens=6, batch_size=batch_size):
        assert not model.training
        answered |= dict(zip(numbers.tolist(), found.texts(model.tokenizer), strict=True))
    assert model.training
    model.eval()
    alone = [generate_texts(model, [prompt], beams=2, most_tokens=6).texts(model.tokenizer)[0] for prompt in prompts]
    assert [answered[number] for number in range(len(order))] == alone


def test_equal_prompts_are_answered_once_and_neighbours_share_a_batch(model: LanguageModel) -> None:
    prompts = [np.array(tokens) for tokens in ([0, 9, 3], [0, 4], [0, 9], [0, 4], [1], [0, 4])]
    batches = [numbers for numbers, _ in generate_in_batches(model, prompts, most_tokens=2, batch_size=2)]
    assert [sorted(numbers.tolist()) for numbers in batches] == [[1, 2, 3, 5], [0, 4]]

"""Answers to prompts with candidates: against plain sequences, and against Hugging Face's generate."""

import numpy as np
import pytest
import torch

from catalign.decoding.choices import generate_choices, score_answers, score_choices, score_orders
from catalign.model.language_model import LanguageModel
from catalign.prompting.choices import ChoicePrompter, ChoiceTemplate
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN
from tiny import ARCHITECTURES, END, PADDING, tiny_catalogue, tiny_model

TITLES = [(5,), (5, 6), (7, 8, 9), (10, 10), (4,), (3, 11)]
ORDER = ChoiceTemplate(
    name="order", opening="w20", item="w22 {title}", separator="w23", question="w19", candidate="w18 {title}",
    candidate_separator="w17", closing="w16", answer="{title}", answer_separator="w14", answers_all=True,
)  # fmt: skip
ONE = ORDER.model_copy(update={"name": "one", "answers_all": False})


def chooser_of(model: LanguageModel, template: ChoiceTemplate) -> ChoicePrompter:
    return ChoicePrompter(tiny_catalogue(TITLES), model.tokenizer, template, context=model.context)


@torch.no_grad()
def plain_score(model: LanguageModel, prompt: list[int], answer: list[int]) -> float:
    """log P(answer | prompt) from the whole model's logits of one plain sequence."""
    log_TV = model.causal(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].double().log_softmax(-1)
    return sum(float(log_TV[len(prompt) - 1 + place, token]) for place, token in enumerate(answer))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_are_those_of_plain_sequences(architecture: str) -> None:
    model = tiny_model(architecture)
    chooser = chooser_of(model, ONE)
    histories = [[0, 3], [2]]
    candidate_BN = np.array([[1, 2, 4], [5, 0, 3]])
    found = score_choices(model, chooser, histories, candidate_BN)
    for history, candidates, scores in zip(histories, candidate_BN.tolist(), found, strict=True):
        prompt = chooser.prompt(history, candidates).tolist()
        expected = [plain_score(model, prompt, [*TITLES[item], END]) for item in candidates]
        np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_orders_are_scored_after_the_prompt_that_is_shown() -> None:
    model = tiny_model()
    chooser = chooser_of(model, ORDER)
    found = score_orders(model, chooser, [[0], [0]], np.array([[1, 2], [1, 2]]), np.array([True, False]))
    for row, shown in enumerate(([1, 2], [2, 1])):
        prompt = chooser.prompt([0], shown).tolist()
        right = plain_score(model, prompt, [5, 6, 14, 7, 8, 9, END])
        wrong = plain_score(model, prompt, [7, 8, 9, 14, 5, 6, END])
        np.testing.assert_allclose(found[row], [right, wrong], atol=1e-4)


def test_no_answers_at_all() -> None:
    assert score_answers(tiny_model(), [np.array([3], dtype=np.int32)], [[]]).shape == (1, 0)


def written_by_generate(model: LanguageModel, prompts: list[list[int]], most: int) -> list[tuple[int, ...]]:
    """The words that `generate` writes greedily, in one batch padded on the left."""
    longest = max(map(len, prompts))
    padded = torch.tensor([[PADDING] * (longest - len(prompt)) + prompt for prompt in prompts])
    seen = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    rows = model.causal.generate(  # type: ignore[operator]
        padded, attention_mask=seen, do_sample=False, num_beams=1, max_new_tokens=most, eos_token_id=END,
        pad_token_id=PADDING,
    )[:, longest:].tolist()  # fmt: skip
    return [tuple(token for token in [*row, END][: [*row, END].index(END)] if token > PADDING) for row in rows]


def test_free_answers_to_a_history_are_those_of_generate() -> None:
    """The last item is called what the model writes for the second user, where that can be a title."""
    histories, candidate_BN = [[0, 3, 2], [4], [5, 1]], np.array([[0, 6], [6, 1], [2, 6]])
    named = 0
    for seed in range(40):
        model = tiny_model(seed=seed)
        prompter = Prompter(tiny_catalogue(TITLES), model.tokenizer, PLAIN, context=model.context)
        prompts = [prompter.prompt(history).tolist() for history in histories]
        written = written_by_generate(model, prompts, 4)
        titles = [*TITLES, written[1] if 1 <= len(written[1]) <= 3 and written[1] not in TITLES else (3, 3, 3)]
        prompter = Prompter(tiny_catalogue(titles), model.tokenizer, PLAIN, context=model.context)
        expected = [
            next((item for item in row if titles[item] == text), -1)
            for row, text in zip(candidate_BN.tolist(), written, strict=True)
        ]
        assert generate_choices(model, prompter, histories, candidate_BN).tolist() == expected
        if expected[1] == 6:
            named += 1  # and it is none where it is no candidate
            assert generate_choices(model, prompter, [[4]], np.array([[0, 1]])).tolist() == [-1]
    assert named >= 2


def test_free_answers_to_listed_candidates_are_those_of_generate() -> None:
    histories, candidate_BN = [[0, 3], [2]], np.array([[1, 2, 4], [5, 0, 3]])
    for seed in range(10):
        model = tiny_model(seed=seed)
        chooser = chooser_of(model, ONE)
        pairs = zip(histories, candidate_BN, strict=True)
        prompts = [chooser.prompt(history, row).tolist() for history, row in pairs]
        written = written_by_generate(model, prompts, chooser.longest_answer)
        expected = [
            next((item for item in row if TITLES[item] == text), -1)
            for row, text in zip(candidate_BN.tolist(), written, strict=True)
        ]
        assert generate_choices(model, chooser, histories, candidate_BN).tolist() == expected

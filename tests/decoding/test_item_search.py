"""Search, ranking and free generation behind prompts with item tokens, against plain exhaustive computations."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch

from catalign.decoding.candidates import score_candidates
from catalign.decoding.generation import generate_texts
from catalign.decoding.recommend import CatalogueSearch
from catalign.decoding.scores import ScoreMode
from catalign.model.language_model import LanguageModel
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN
from tiny import END, VOCABULARY, children_of, model_with_items, tiny_catalogue

TITLES = [(5,), (5, 6), (5, 6, 7, 8), (5, 9, 9, 9), (8, 8), (7, 3, 3)]
KNOWN = [0, 2, 3, 5]
HISTORIES = [[0, 2], [3], [4, 4, 1], [0, 2, 5]]


def prompter_of(model: LanguageModel) -> Prompter:
    catalogue = tiny_catalogue(TITLES)
    return Prompter(catalogue, model.tokenizer, PLAIN, context=model.context, item_tokens=model.item_tokens(catalogue))


@torch.no_grad()
def exhaustive(model: LanguageModel, prompt: Sequence[int], score: str) -> npt.NDArray[np.float64]:
    """log P(title and end | prompt) of every title, one sequence of vectors each."""
    assert model.item_embedding is not None
    items, word = model.item_embedding, model.base.get_input_embeddings()
    scores = []
    for title in TITLES:
        closed, total = [*title, END], 0.0
        vectors = [
            items.projector(items.vector_IW[token - VOCABULARY]) if token >= VOCABULARY else word(torch.tensor(token))
            for token in [*prompt, *closed]
        ]
        logit_TV = model.base(inputs_embeds=torch.stack(vectors)[None]).logits[0].double()
        for depth, token in enumerate(closed):
            logit_V = logit_TV[len(prompt) - 1 + depth]
            against = logit_V[children_of(TITLES, closed[:depth])] if score == "valid" else logit_V
            total += float(logit_V[token] - against.logsumexp(0))
        scores.append(total)
    return np.array(scores)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gemma3", "opt", "gpt2", "mamba"])
@pytest.mark.parametrize("score", ["valid", "full"])
def test_search_and_ranking_are_exhaustive_scoring(architecture: str, score: ScoreMode) -> None:
    model = model_with_items(KNOWN, architecture)
    model.check_parts()
    prompter = prompter_of(model)
    assert any(token >= VOCABULARY for token in prompter.prompt(HISTORIES[0]))
    ranked = score_candidates(model, prompter, HISTORIES, [range(len(TITLES))] * len(HISTORIES), score=score)
    search = CatalogueSearch(model, prompter, beams=len(TITLES), score=score)
    items, scores = search.recommend_all(HISTORIES, len(TITLES))
    for user, history in enumerate(HISTORIES):
        expected = exhaustive(model, prompter.prompt(history).tolist(), score)
        np.testing.assert_allclose(ranked[user], expected, atol=1e-4)
        assert sorted(items[user]) == list(range(len(TITLES)))
        np.testing.assert_allclose(scores[user], expected[items[user]], atol=1e-4)


def test_the_items_count() -> None:
    model = model_with_items(KNOWN)
    prompt = prompter_of(model).prompt([0, 2]).tolist()
    other = [VOCABULARY + 3 if token == VOCABULARY else token for token in prompt]
    assert np.abs(exhaustive(model, prompt, "valid") - exhaustive(model, other, "valid")).max() > 1e-3


@pytest.mark.parametrize("beams", [1, 3])
def test_free_texts_are_those_of_plain_rows_and_of_words(beams: int) -> None:
    model = model_with_items(KNOWN)
    prompts = [prompter_of(model).prompt(history) for history in HISTORIES]
    found = generate_texts(model, prompts, beams=beams, most_tokens=5)
    model.shares_prefixes = False
    rows = generate_texts(model, prompts, beams=beams, most_tokens=5)
    np.testing.assert_array_equal(found.token_BWL, rows.token_BWL)
    np.testing.assert_allclose(found.score_BW, rows.score_BW, atol=1e-4)
    assert found.token_BWL.max() < VOCABULARY and len(found.texts(model.tokenizer)) == len(HISTORIES)

"""Candidate scores against one plain sequence per title, and against the search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.decoding.candidates import score_candidates
from catalign.decoding.recommend import CatalogueSearch
from catalign.decoding.scores import ScoreMode
from catalign.model.language_model import LanguageModel
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import INSTRUCTION, PLAIN, Template
from tiny import ARCHITECTURES, tiny_catalogue, tiny_model, title_scores

TITLES = [(5,), (5, 6), (5, 6, 7, 8), (5, 9, 9, 9), (8, 8), (5, 6), (7, 3, 3)]
MODES: tuple[ScoreMode, ...] = ("valid", "full")


def prompter_of(model: LanguageModel, titles: list[tuple[int, ...]], template: Template = PLAIN) -> Prompter:
    return Prompter(tiny_catalogue(titles), model.tokenizer, template, context=model.context)


@pytest.mark.parametrize("score", MODES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_the_scores_of_plain_sequences(architecture: str, score: ScoreMode) -> None:
    model = tiny_model(architecture)
    prompter = prompter_of(model, TITLES)
    histories = [[0, 4], [2], [3, 1, 6]]
    candidates = [[0, 1, 2, 3, 4, 5, 6], [6, 0], [2]]
    found = score_candidates(model, prompter, histories, candidates, score=score)
    for history, chosen, scores in zip(histories, candidates, found, strict=True):
        expected = title_scores(model.causal, prompter.prompt(history).tolist(), TITLES, score)
        np.testing.assert_allclose(scores, expected[chosen], atol=1e-4)


titles = st.lists(st.lists(st.integers(3, 6), min_size=1, max_size=4).map(tuple), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(titles=titles, data=st.data(), row_tokens=st.integers(16, 200))
@pytest.mark.parametrize("score", MODES)
def test_any_candidates_of_any_users(
    titles: list[tuple[int, ...]], data: st.DataObject, row_tokens: int, score: ScoreMode
) -> None:
    model = tiny_model()
    prompter = prompter_of(model, titles)
    item = st.integers(0, len(titles) - 1)
    histories = data.draw(st.lists(st.lists(item, min_size=1, max_size=3), min_size=1, max_size=3))
    candidates = [data.draw(st.lists(item, max_size=5)) for _ in histories]
    found = score_candidates(model, prompter, histories, candidates, score=score, row_tokens=row_tokens)
    for history, chosen, scores in zip(histories, candidates, found, strict=True):
        expected = title_scores(model.causal, prompter.prompt(history).tolist(), titles, score)
        np.testing.assert_allclose(scores, expected[chosen], atol=1e-4)


def test_the_whole_catalogue_is_a_distribution_over_titles() -> None:
    model = tiny_model()
    different = sorted(set(TITLES))
    prompter = prompter_of(model, different, INSTRUCTION.model_copy(update={"item": "{title}", "answer": "{title}"}))
    (scores,) = score_candidates(model, prompter, [[0, 1]], [range(len(different))])
    assert np.exp(scores).sum() == pytest.approx(1, abs=1e-5)


def test_ranking_the_whole_catalogue_is_a_wide_search() -> None:
    model = tiny_model()
    prompter = prompter_of(model, TITLES)
    (scores,) = score_candidates(model, prompter, [[3, 4]], [range(len(TITLES))])
    items, found = CatalogueSearch(model, prompter, beams=len(TITLES)).recommend_all([[3, 4]], len(TITLES))
    np.testing.assert_allclose(found[0], scores[items[0]], atol=1e-4)


def test_no_candidates_at_all() -> None:
    model = tiny_model()
    assert [len(scores) for scores in score_candidates(model, prompter_of(model, TITLES), [[0], [1]], [[], []])] == [
        0,
        0,
    ]

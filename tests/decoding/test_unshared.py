"""Architectures in which prefixes cannot be shared: plain rows everywhere, the same results."""

import logging

import numpy as np
import pytest
import torch

from catalign.decoding.candidates import score_candidates
from catalign.decoding.recommend import CatalogueSearch
from catalign.decoding.scores import ScoreMode
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN
from tiny import UNSHARED, tiny_catalogue, tiny_model, title_scores

TITLES = [(5,), (5, 6), (5, 6, 7, 8), (5, 9, 9, 9), (8, 8), (7, 3, 3)]


@pytest.mark.parametrize("score", ["valid", "full"])
@pytest.mark.parametrize("architecture", UNSHARED)
def test_search_and_ranking_are_exact(architecture: str, score: ScoreMode, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model(architecture)
    with caplog.at_level(logging.WARNING):
        model.check_parts()
    assert [record for record in caplog.records if "prefixes are not shared" in record.getMessage()]
    assert not model.shares_prefixes
    prompter = Prompter(tiny_catalogue(TITLES), model.tokenizer, PLAIN, context=64)
    histories = [[0, 2], [3], [4, 4, 1]]
    candidates = score_candidates(model, prompter, histories, [range(len(TITLES))] * 3, score=score)
    search = CatalogueSearch(model, prompter, beams=len(TITLES), score=score)
    items, scores = search.recommend_all(histories, len(TITLES))
    for user, history in enumerate(histories):
        expected = title_scores(model.causal, prompter.prompt(history).tolist(), TITLES, score)
        np.testing.assert_allclose(candidates[user], expected, atol=1e-4)
        np.testing.assert_allclose(scores[user], expected[items[user]], atol=1e-4)
        assert sorted(items[user]) == list(range(len(TITLES)))
        assert torch.from_numpy(scores[user]).diff().le(0).all()

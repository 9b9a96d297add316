"""What a stage changed: ranks and log-probabilities of two models over one catalogue."""

import numpy as np

from catalign.decoding.recommend import CatalogueSearch
from catalign.explain.stages import compare_stages
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN
from tiny import tiny_catalogue, tiny_model, title_scores

TITLES = [(5, 6), (5,), (7, 8, 9), (10, 10), (7, 8), (11,), (12, 5)]
CATALOGUE = tiny_catalogue(TITLES)
HISTORY = [3, 1]


def test_ranks_and_moves_are_those_of_the_two_models() -> None:
    searches, scores, orders = [], [], []
    for seed in (1, 2):
        model = tiny_model(seed=seed)
        prompter = Prompter(CATALOGUE, model.tokenizer, PLAIN, context=model.context)
        searches.append(CatalogueSearch(model, prompter, beams=7, exclude_history=True))
        scores.append(title_scores(model.causal, prompter.prompt(HISTORY).tolist(), TITLES, "valid"))
        orders.append([item for item in np.argsort(-scores[-1]).tolist() if item not in HISTORY])
    moves = compare_stages(searches[0], searches[1], CATALOGUE, HISTORY, 2)
    expected = [*orders[1][:2], *(item for item in orders[0][:2] if item not in orders[1][:2])]
    assert sorted(move.item_id for move in moves) == sorted(f"id{item}" for item in expected)
    assert [move.rank_after for move in moves] == sorted(move.rank_after or 99 for move in moves)
    for move in moves:
        item = int(move.item_id[2:])
        assert (move.rank_before, move.rank_after) == (orders[0].index(item) + 1, orders[1].index(item) + 1)
        np.testing.assert_allclose(
            [move.log_probability_before, move.log_probability_after], [scores[0][item], scores[1][item]], atol=1e-4
        )


def test_a_rank_below_the_search_is_unknown() -> None:
    models = [tiny_model(seed=seed) for seed in (1, 2)]
    prompters = [Prompter(CATALOGUE, model.tokenizer, PLAIN, context=model.context) for model in models]
    narrow = [CatalogueSearch(model, prompter, beams=1) for model, prompter in zip(models, prompters, strict=True)]
    moves = compare_stages(narrow[0], narrow[1], CATALOGUE, [0], 1)
    assert {move.rank_after for move in moves} <= {1, None} and {move.rank_before for move in moves} <= {1, None}
    assert moves[0].rank_after == 1

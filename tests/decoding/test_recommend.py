"""Ranked items for many histories: batching, filters, copies of a title, more asked for than there is."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.decoding.recommend import CatalogueSearch
from catalign.decoding.scores import ScoreMode
from catalign.model.language_model import LanguageModel
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN
from tiny import tiny_catalogue, tiny_model, title_scores

TITLES = [(5, 6), (5,), (7, 8, 9), (5, 6), (10, 10), (7, 8), (5, 6)]  # items 0, 3 and 6 share a title
POPULARITY = [1, 5, 0, 4, 0, 2, 1]
HISTORIES = [[0], [1, 2, 3], [4], [5, 5, 5, 5, 5], [2, 0], [6, 1], [3]]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model("llama", seed=3)


@pytest.fixture(scope="module")
def prompter(model: LanguageModel) -> Prompter:
    return Prompter(tiny_catalogue(TITLES, POPULARITY), model.tokenizer, PLAIN, context=model.context)


def expected_order(
    model: LanguageModel, prompter: Prompter, history: list[int], score: ScoreMode, closed: set[int]
) -> tuple[list[int], npt.NDArray[np.float64]]:
    scores = title_scores(model.causal, prompter.prompt(history).tolist(), TITLES, score)
    items = sorted(
        set(range(len(TITLES))) - closed, key=lambda item: (-round(scores[item], 9), -POPULARITY[item], item)
    )
    return items, scores[items]


@pytest.mark.parametrize("score", ["valid", "full"])
@pytest.mark.parametrize("exclude_history", [False, True])
@pytest.mark.parametrize("allowed", [None, [1, 2, 3, 4], [6], []])
def test_exhaustive_order(
    model: LanguageModel, prompter: Prompter, score: ScoreMode, exclude_history: bool, allowed: list[int] | None
) -> None:
    mask = None if allowed is None else np.isin(np.arange(len(TITLES)), allowed)
    search = CatalogueSearch(
        model, prompter, beams=10, score=score, exclude_history=exclude_history, allowed=mask, batch_size=3
    )
    items_WK, scores_WK = search.recommend_all(HISTORIES, 9)
    for window, history in enumerate(HISTORIES):
        closed = set(history) if exclude_history else set()
        closed |= set() if allowed is None else set(range(len(TITLES))) - set(allowed)
        items, scores = expected_order(model, prompter, history, score, closed)
        missing = 9 - len(items)
        assert items_WK[window].tolist() == items + [-1] * missing
        np.testing.assert_allclose(scores_WK[window], [*scores, *[-np.inf] * missing], atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(batch_size=st.integers(1, 8), order=st.permutations(range(len(HISTORIES))), beams=st.integers(1, 6))
def test_results_do_not_depend_on_batching(
    model: LanguageModel, prompter: Prompter, batch_size: int, order: list[int], beams: int
) -> None:
    whole = CatalogueSearch(model, prompter, beams=beams, exclude_history=True).recommend_all(HISTORIES, 4)
    search = CatalogueSearch(model, prompter, beams=beams, exclude_history=True, batch_size=batch_size)
    items, scores = search.recommend_all([HISTORIES[number] for number in order], 4)
    assert (items == whole[0][order]).all()
    np.testing.assert_allclose(scores, whole[1][order], atol=1e-5)


def test_batches_number_every_history_once(model: LanguageModel, prompter: Prompter) -> None:
    batches = list(CatalogueSearch(model, prompter, beams=2, batch_size=3).recommend(HISTORIES, 2))
    assert [len(numbers) for numbers, _, _ in batches] == [3, 3, 1]
    assert sorted(number for numbers, _, _ in batches for number in numbers) == list(range(len(HISTORIES)))
    assert all(items.shape == scores.shape == (len(numbers), 2) for numbers, items, scores in batches)


def test_no_histories(model: LanguageModel, prompter: Prompter) -> None:
    items, scores = CatalogueSearch(model, prompter, beams=2).recommend_all([], 5)
    assert items.shape == scores.shape == (0, 5)


def test_a_model_in_training_goes_on_training(prompter: Prompter) -> None:
    model = tiny_model("llama", seed=3).train()
    search = CatalogueSearch(model, prompter, beams=2)
    search.recommend_all(HISTORIES, 2)
    assert model.training and model.base.training
    batches = search.recommend(HISTORIES, 2)
    next(batches)
    assert not model.training
    batches.close()  # a consumer that stops early
    assert model.training


def test_the_trie_follows_the_model_to_another_device(prompter: Prompter) -> None:
    model = tiny_model("llama", seed=3)
    search = CatalogueSearch(model, prompter, beams=2)
    search.recommend_all(HISTORIES, 2)
    model.to("meta")  # the one other device that every machine has; it cannot compute
    assert search._trie_on_device().token.device.type == "meta"


@pytest.mark.parametrize("exclude_history", [False, True])
def test_further_items_are_left_out_inside_the_search_and_a_filter_can_be_put_on_later(
    model: LanguageModel, prompter: Prompter, exclude_history: bool
) -> None:
    search = CatalogueSearch(model, prompter, beams=2, exclude_history=exclude_history, batch_size=3)
    allowed = np.isin(np.arange(len(TITLES)), [0, 2, 3, 5, 6])
    excluded = [[], [5], [2, 5], [6], [0], [3, 3], [2]]
    for searched, mask in ((search, np.ones(len(TITLES), dtype=np.bool_)), (search.within(allowed), allowed)):
        for numbers, items_BK, _ in searched.recommend(HISTORIES, 2, excluded):
            for number, items in zip(numbers, items_BK.tolist(), strict=True):
                closed = set(excluded[number]) | (set(HISTORIES[number]) if exclude_history else set())
                expected, _ = expected_order(
                    model, prompter, HISTORIES[number], "valid", closed | set(np.flatnonzero(~mask).tolist())
                )
                assert [item for item in items if item >= 0] == expected[:2]
    assert search.allowed is None, "the search that was there has no filter"


ITEM_LISTS = st.lists(st.integers(0, len(TITLES) - 1), max_size=4)


@settings(max_examples=40, deadline=None)
@given(
    candidates=st.lists(ITEM_LISTS, min_size=len(HISTORIES), max_size=len(HISTORIES)),
    excluded=st.none() | st.lists(ITEM_LISTS, min_size=len(HISTORIES), max_size=len(HISTORIES)),
    allowed=st.none() | st.lists(st.booleans(), min_size=len(TITLES), max_size=len(TITLES)),
    exclude_history=st.booleans(),
)
def test_candidates_of_each_history_are_all_that_is_searched(
    model: LanguageModel,
    prompter: Prompter,
    candidates: list[list[int]],
    excluded: list[list[int]] | None,
    allowed: list[bool] | None,
    exclude_history: bool,
) -> None:
    mask = None if allowed is None else np.array(allowed)
    search = CatalogueSearch(model, prompter, beams=10, exclude_history=exclude_history, allowed=mask, batch_size=3)
    seen = 0
    for numbers, items, scores in search.recommend(HISTORIES, 9, excluded, candidates):
        for row, number in enumerate(numbers.tolist()):
            closed = set(range(len(TITLES))) - set(candidates[number])
            closed |= set(HISTORIES[number]) if exclude_history else set()
            closed |= set() if excluded is None else set(excluded[number])
            closed |= set() if allowed is None else {item for item, passes in enumerate(allowed) if not passes}
            order, expected = expected_order(model, prompter, HISTORIES[number], "valid", closed)
            assert items[row].tolist() == order + [-1] * (9 - len(order))
            np.testing.assert_allclose(scores[row][: len(order)], expected, atol=1e-4)
            seen += 1
    assert seen == len(HISTORIES)

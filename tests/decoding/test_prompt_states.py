"""Prompts read further from kept states: exact, bounded, and untouched by a catalogue that changes."""

from collections.abc import Sequence
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.decoding import search as search_module
from catalign.decoding.prompt_states import PromptState, PromptStates
from catalign.decoding.recommend import CatalogueSearch
from catalign.decoding.scores import ScoreMode
from catalign.decoding.search import feeding_ranges
from catalign.model.language_model import LanguageModel
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN
from tiny import ARCHITECTURES, tiny_catalogue, tiny_model

TITLES = [(5,), (5, 6), (5, 6, 7, 8), (5, 9, 9, 9, 9), (5, 9, 9, 9, 3), (8, 8), (7, 3, 3, 3)]
VISITS = [  # histories that begin, grow, come again, and go another way
    [[0], [3, 2], [6, 1, 4, 4]],
    [[0, 5], [3, 2], [6, 1, 4, 4, 2], [6, 1]],
    [[0, 5, 1], [3, 2], [2, 2], [6, 1, 4, 4, 2, 0], [3, 2]],
]
PLENTY = 1 << 24


def prompter_of(model: LanguageModel, titles: Sequence[tuple[int, ...]] = TITLES) -> Prompter:
    return Prompter(tiny_catalogue(list(titles)), model.tokenizer, PLAIN, context=64)


def state_of(length: int) -> PromptState:
    return PromptState([torch.zeros(2, 1, length, 4)], torch.zeros(8))


def tokens(*numbers: int) -> npt.NDArray[np.int32]:
    return np.array(numbers, dtype=np.int32)


@pytest.mark.parametrize("score", ["valid", "full"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_are_those_without_states(architecture: str, score: ScoreMode) -> None:
    model = tiny_model(architecture)
    prompter, states = prompter_of(model), PromptStates(PLENTY)
    plain = CatalogueSearch(model, prompter, beams=4, score=score)
    kept = CatalogueSearch(model, prompter, beams=4, score=score, states=states)
    for histories in VISITS:
        expected_items, expected_scores = plain.recommend_all(histories, 4)
        items, scores = kept.recommend_all(histories, 4)
        np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(items, expected_items)
    assert states.tokens > states.tokens_found > 10


def test_a_changed_catalogue_leaves_no_wrong_state() -> None:
    """The same item number with another title, and titles that come and go: answers are those of a new service."""
    model, states = tiny_model("llama"), PromptStates(PLENTY)
    for titles in (TITLES, [*TITLES, (4, 4)], [(9, 4, 4), *TITLES[1:]], TITLES[::-1]):
        prompter = prompter_of(model, titles)
        expected = CatalogueSearch(model, prompter, beams=3).recommend_all(VISITS[2], 3)
        found = CatalogueSearch(model, prompter, beams=3, states=states).recommend_all(VISITS[2], 3)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-5)


def test_what_is_known_is_not_read_again() -> None:
    model, states = tiny_model("llama"), PromptStates(PLENTY)
    search = CatalogueSearch(model, prompter_of(model), beams=3, states=states)
    read: list[int] = []
    hook = model.decoder.register_forward_pre_hook(
        lambda _, __, inputs: read.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    lengths = [len(search.prompter.prompt(history)) for history in ([3, 2], [3, 2, 5])]
    for history in ([3, 2], [3, 2, 5], [3, 2, 5]):
        read.append(-1)
        search.recommend_all([history], 3)
    hook.remove()
    first, second, third = (list(map(int, part.split())) for part in " ".join(map(str, read)).split("-1")[1:])
    assert first[0] == lengths[0] and second[0] == lengths[1] - lengths[0]
    assert third == second[1:]  # the beams alone


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=30))
def test_the_most_alike_is_found_within_the_bound(prompts: list[list[int]]) -> None:
    most = 5 * state_of(6).bytes
    states = PromptStates(most)
    for prompt in prompts:
        found = states.find(tokens(*prompt))
        best = 0
        for kept in map(lambda key: np.frombuffer(key, ">u4").tolist(), states._states):
            same = next((at for at, (a, b) in enumerate(zip(kept, prompt, strict=False)) if a != b), None)
            same = min(len(kept), len(prompt)) if same is None else same
            best = max(best, len(prompt) if kept == prompt else min(same, len(prompt) - 1))
        assert (0 if found is None else found[1]) == best
        states.keep(tokens(*prompt), state_of(len(prompt)))
        assert states.bytes == sum(state.bytes for state in states._states.values()) <= most
        assert states._sorted == sorted(states._states)


def test_the_longest_unused_goes_first_and_a_beginning_is_not_kept_twice() -> None:
    states = PromptStates(3 * state_of(2).bytes)
    for first in (1, 2, 3):
        states.keep(tokens(first, 0), state_of(2))
    states.find(tokens(1, 0))
    states.keep(tokens(4, 0), state_of(2))
    assert [states.find(tokens(first, 0)) is not None for first in (1, 2, 3, 4)] == [True, False, True, True]
    states = PromptStates(PLENTY)
    states.keep(tokens(1), state_of(1))
    states.keep(tokens(1, 2), state_of(2))
    assert len(states) == 1
    small = PromptStates(10)
    small.keep(tokens(1), state_of(1))
    assert len(small) == small.bytes == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any), st.integers(1, 40))
def test_ranges_cover_every_token_once(widths: list[int], worth: int) -> None:
    width_B = np.array(widths)
    ranges = feeding_ranges(width_B, worth)
    assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges[:-1])]
    assert ranges[-1][1] == max(widths)
    fed = sum((stop - start) * int((width_B > start).sum()) for start, stop in ranges)
    one_call = max(widths) * int((width_B > 0).sum())
    assert int(width_B.sum()) <= fed <= one_call - worth * (len(ranges) - 1)


@pytest.mark.parametrize("score", ["valid", "full"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_further_calls_change_no_answer(architecture: str, score: ScoreMode) -> None:
    model = tiny_model(architecture)
    search = CatalogueSearch(model, prompter_of(model), beams=5, score=score, exclude_history=True)
    with mock.patch.object(search_module, "WORTH_A_CALL", 1 << 30):
        expected = search.recommend_all(VISITS[2], 5)
    with mock.patch.object(search_module, "WORTH_A_CALL", 1):
        found = search.recommend_all(VISITS[2], 5)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-5)

"""Which items of a history are shown."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from catalign.prompting.histories import HistoryRule
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN
from tiny import tiny_catalogue, word_tokenizer

ANCHORED = HistoryRule(kind="anchored", items=9)  # the start moves every 5 items


@given(seen=st.integers(1, 200), items=st.integers(1, 12))
def test_last_n_shows_the_last_items(seen: int, items: int) -> None:
    assert HistoryRule(items=items).shown(seen, seen) == min(seen, items)


@given(seen=st.integers(1, 200), items=st.integers(1, 12))
def test_anchored_shows_n_to_2n_minus_1_items_once_there_are_n(seen: int, items: int) -> None:
    shown = HistoryRule(kind="anchored", items=items).shown(seen, seen)
    step = (items + 1) // 2
    assert shown == seen if seen < step else step <= shown <= 2 * step - 1
    assert shown <= max(items, 2 * step - 1)


def test_the_anchor_stays_for_n_targets() -> None:
    starts = [seen - ANCHORED.shown(seen, seen) for seen in range(5, 30)]
    assert starts == [0] * 5 + [5] * 5 + [10] * 5 + [15] * 5 + [20] * 5


def test_no_more_is_shown_than_is_at_hand() -> None:
    assert ANCHORED.shown(seen=14, available=3) == 3


def test_windows_between_two_moves_share_their_prompt() -> None:
    catalogue = tiny_catalogue([(word,) for word in range(3, 20)])
    prompter = Prompter(catalogue, word_tokenizer(), PLAIN, context=64, rule=ANCHORED)
    chosen = list(range(17))
    prompts = [prompter.prompt(chosen[max(0, seen - 10) : seen], seen).tolist() for seen in range(10, 15)]
    for shorter, longer in itertools.pairwise(prompts):
        assert longer[: len(shorter)] == shorter and len(longer) == len(shorter) + 2  # one title and its end token

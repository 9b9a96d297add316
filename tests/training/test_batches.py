"""Batches: what is packed, and which node predicts which token."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.model.forest import ancestor_mask
from catalign.prompting.positions import Scores
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN, Template
from catalign.training.batches import BatchMaker, Windows, count_seen
from tiny import END, children_of, text_of, tiny_catalogue, word_tokenizer

Titles = list[tuple[int, ...]]
CUED = Template(
    name="cued", opening="w20 w21", item="w22 {title}", separator="w23", closing="w19", answer="w18 {title}"
)
TITLES: Titles = [(5,), (5, 6), (5, 6, 7, 7), (8, 9), (8, 9, 10, 11), (12, 12, 12), (5,)]
words = st.integers(3, 6)
catalogues = st.lists(st.lists(words, min_size=1, max_size=4).map(tuple), min_size=1, max_size=7)


def make_windows(histories: list[list[int]], targets: list[int]) -> Windows:
    arrays = [np.array(history, dtype=np.uint32) for history in histories]
    seen = np.array([len(history) for history in histories], dtype=np.int64)
    return Windows(np.zeros(len(targets), dtype=np.int64), arrays, np.array(targets, dtype=np.int64), seen)


def visible_tokens(batch: dict[str, torch.Tensor], node: int) -> list[int]:
    """The tokens that a flat node attends to, itself included."""
    row, column = divmod(node, batch["token_RN"].shape[1])
    if "end_RN" not in batch:
        return batch["token_RN"][row, : column + 1].tolist()
    visible_N = ancestor_mask(batch["end_RN"])[row, 0, column]
    tokens: list[int] = batch["token_RN"][row, visible_N].tolist()
    return tokens


@settings(max_examples=60)
@given(titles=catalogues, data=st.data())
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("template", [PLAIN, CUED], ids=lambda template: template.name)
@pytest.mark.parametrize("scores", ["valid", "vocabulary"])
def test_every_position_stands_before_its_token(
    titles: Titles, data: st.DataObject, share: bool, template: Template, scores: Scores
) -> None:
    item = st.integers(0, len(titles) - 1)
    histories = data.draw(st.lists(st.lists(item, min_size=1, max_size=3), min_size=1, max_size=6))
    targets = data.draw(st.lists(item, min_size=len(histories), max_size=len(histories)))
    numbers = data.draw(st.lists(st.integers(0, len(targets) - 1), min_size=1, max_size=8))  # repeats, any order
    prompter = Prompter(tiny_catalogue(titles), word_tokenizer(), template, context=64)
    rows = data.draw(st.integers(1, 60))
    maker = BatchMaker(make_windows(histories, targets), prompter, scores=scores, row_tokens=rows, share=share)
    batch = maker(numbers)

    cue = [18] if template is CUED else []
    answers = [(*cue, *title) for title in titles]
    expected, packed = [], 0
    for number in numbers:
        answer = (*answers[targets[number]], END)
        prompt = prompter.prompt(histories[number]).tolist()
        scored = [
            depth
            for depth in range(len(answer))
            if scores == "vocabulary" or len(children_of(answers, answer[:depth])) > 1
        ]
        expected += [([*prompt, *answer[:depth]], answer[depth], depth == min(scored)) for depth in scored]
        packed += len(prompt) + max(scored, default=0)
    assert batch["token_counts"][0] == packed  # answers end at the last node that predicts something
    assert batch["token_counts"][1] <= packed
    if not share:
        assert batch["token_counts"][1] == packed
    gold_P = batch["gold_P"].numpy()
    if scores == "valid":
        gold_P = prompter.trie.alphabet[batch["symbol_E"].numpy()][gold_P]
    found = [
        (visible_tokens(batch, int(node)), int(gold), bool(first))
        for node, gold, first in zip(batch["node_P"], gold_P, batch["first_P"], strict=True)
    ]
    assert found == expected
    assert int(batch["all_positions"]) == sum(len(answers[targets[number]]) + 1 for number in numbers)
    depth_P = batch["depth_RN"].flatten()[batch["node_P"]]
    assert depth_P.tolist() == [len(tokens) - 1 for tokens, _, _ in expected]


def test_growing_histories_are_stored_once() -> None:
    prompter = Prompter(tiny_catalogue(TITLES), word_tokenizer(), PLAIN, context=64)
    order = [3, 1, 5, 4, 2]
    windows = make_windows([order[:length] for length in range(1, 5)], order[1:])
    batch = BatchMaker(windows, prompter, scores="vocabulary", row_tokens=1000)([0, 1, 2, 3])
    whole = sum(len(TITLES[item]) + 1 for item in order)
    assert batch["token_counts"][1] == whole  # the begin token comes in, the last end token is not read
    plain = BatchMaker(windows, prompter, scores="vocabulary", row_tokens=1000, share=False)([0, 1, 2, 3])
    assert "end_RN" not in plain and len(plain["token_RN"]) == 4


def test_windows_from_a_frame() -> None:
    frame = pl.DataFrame(
        {
            "user_id": ["zoe", "zoe", "adam", "zoe"],
            "history": [[1], [1, 2], [7, 8, 9], [2]],
            "target": [2, 3, 4, 5],
            "timestamp": [1, 2, 3, 4],
        },
        schema={"user_id": pl.String, "history": pl.List(pl.UInt32), "target": pl.UInt32, "timestamp": pl.Int64},
    )
    windows = Windows.from_frame(frame)
    assert len(windows) == 4
    assert [history.tolist() for history in windows.histories] == [[1], [1, 2], [7, 8, 9], [2]]
    assert windows.target_S.tolist() == [2, 3, 4, 5] and windows.target_S.dtype == np.int64
    user = windows.user_S
    assert user[0] == user[1] == user[3] != user[2]
    assert sorted(set(user.tolist())) == [0, 1]
    empty = Windows.from_frame(frame.clear())
    assert len(empty) == 0 and list(empty.histories) == []
    assert windows.histories[-2].tolist() == [7, 8, 9]
    assert [history.tolist() for history in windows.histories[1:3]] == [[1, 2], [7, 8, 9]]
    one = Windows.from_frame(frame.head(1))
    assert [history.tolist() for history in one.histories] == [[1]]


def test_words_are_tokens() -> None:
    """What the expectations here rest on."""
    assert word_tokenizer()(text_of((5, 6)), add_special_tokens=False)["input_ids"] == [5, 6]


def test_seen_counts_go_on_where_a_full_history_slides() -> None:
    chosen = list(range(8))
    rows = [
        {"user_id": "a", "history": chosen[max(0, seen - 3) : seen], "target": chosen[seen]} for seen in range(1, 8)
    ]
    rows += [{"user_id": "b", "history": [5, 6, 7], "target": 1}, {"user_id": "b", "history": [6, 7, 1], "target": 2}]
    rows += [{"user_id": "b", "history": [3, 3, 3], "target": 3}]  # follows nothing
    frame = pl.DataFrame(rows, schema_overrides={"history": pl.List(pl.UInt32), "target": pl.UInt32})
    assert count_seen(frame).tolist() == [1, 2, 3, 4, 5, 6, 7, 3, 4, 3]

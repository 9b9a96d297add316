"""Prompts: pieces, separators, cutting, and titles that look like special tokens."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from catalign.catalogue.catalogue import Catalogue
from catalign.errors import UserError
from catalign.model.embedded import build_tokenizer
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import INSTRUCTION, PLAIN, Template
from tiny import BEGIN, END, tiny_catalogue, word_tokenizer

TITLES = [(5,), (5, 6), (7, 8, 9), (10, 10)]
# The word tokenizer knows the words w3 to w23; these pieces are written with them.
PIECES = Template(
    name="pieces", opening="w20 w21", item="w22 {title}", separator=" w23", closing="w19", answer="w18 {title}"
)


def make(template: Template, context: int = 64, begin: bool = True) -> Prompter:
    return Prompter(tiny_catalogue(TITLES), word_tokenizer(begin=begin), template, context=context)


def answer(prompter: Prompter, item: int) -> list[int]:
    nodes, _ = prompter.answer_nodes([item])
    tokens: list[int] = prompter.trie.token[nodes].tolist()
    return tokens


def test_plain() -> None:
    prompter = make(PLAIN)
    assert prompter.prompt([1, 2]).tolist() == [BEGIN, 5, 6, END, 7, 8, 9, END]
    assert answer(prompter, 2) == [7, 8, 9, END]
    assert make(PLAIN, begin=False).prompt([0]).tolist() == [5, END]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(0, 3))
def test_under_plain_a_history_grows_by_the_tokens_of_the_answer(history: list[int], item: int) -> None:
    prompter = make(PLAIN)
    longer = prompter.prompt([*history, item]).tolist()
    assert longer == [*prompter.prompt(history).tolist(), *answer(prompter, item)]


def test_pieces_and_separators() -> None:
    prompter = make(PIECES)
    assert prompter.prompt([1]).tolist() == [BEGIN, 20, 21, 22, 5, 6, 19]
    assert prompter.prompt([1, 0, 3]).tolist() == [BEGIN, 20, 21, 22, 5, 6, 23, 22, 5, 23, 22, 10, 10, 19]
    assert prompter.prompt(np.array([1, 0], dtype=np.uint32)).tolist() == [BEGIN, 20, 21, 22, 5, 6, 23, 22, 5, 19]
    assert answer(prompter, 1) == [18, 5, 6, END]
    closed = make(PIECES.model_copy(update={"end_after_item": True}))
    assert closed.prompt([0, 0]).tolist() == [BEGIN, 20, 21, 22, 5, END, 23, 22, 5, END, 19]


def test_the_oldest_items_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    longest_answer = 5  # w18 w7 w8 w9 and the end
    whole = [BEGIN, 20, 21, 22, 7, 8, 9, 23, 22, 5, 6, 19]
    exact = make(PIECES, context=len(whole) + longest_answer)
    with caplog.at_level(logging.WARNING):
        assert exact.prompt([2, 1]).tolist() == whole  # fits to the token
        assert not caplog.records
        assert exact.prompt([0, 2, 1]).tolist() == whole
        assert exact.prompt([2, 2, 0, 2, 1]).tolist() == whole
    assert len(caplog.records) == 1  # said once
    short = make(PIECES, context=len(whole) + longest_answer - 1)
    assert short.prompt([2, 1]).tolist() == [BEGIN, 20, 21, 22, 5, 6, 19]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=10), st.integers(13, 40), st.sampled_from([PIECES, PLAIN]))
def test_prompt_and_longest_answer_fit_the_context(history: list[int], context: int, template: Template) -> None:
    prompter = make(template, context)
    prompt = prompter.prompt(history)
    assert len(prompt) + int(prompter.trie.depth.max()) <= context
    wide = make(template, context=1000)
    kept = [wide.prompt(history[start:]).tolist() for start in range(len(history))]
    fitting = [tokens for tokens in kept if len(tokens) + int(prompter.trie.depth.max()) <= context]
    assert prompt.tolist() == fitting[0]  # as many of the newest items as fit


def test_a_title_too_long_for_the_context() -> None:
    with pytest.raises(UserError, match="4 tokens") as caught:
        make(PIECES, context=12)
    assert "id2" in str(caught.value)
    make(PIECES, context=13)


def special_texts(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return [f"A{text}B {text}" for text in (tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token)]


def test_special_tokens_in_titles_are_text_bytes() -> None:
    titles = ["Castle of Rome", "Tower of Rome"]
    tokenizer = build_tokenizer(titles * 3, vocabulary=300)
    titles += special_texts(tokenizer)
    catalogue = Catalogue.from_lists(map(str, range(len(titles))), titles)
    for template in (PLAIN, INSTRUCTION):
        prompter = Prompter(catalogue, tokenizer, template, context=1024)
        for item, title in enumerate(titles):
            tokens = answer(prompter, item)
            assert tokens[-1] == END and not set(tokens[:-1]) & {0, 1, 2}
            assert tokenizer.decode(tokens[:-1]) == template.answer.replace("{title}", title)
        prompt = prompter.prompt(range(len(titles))).tolist()
        assert prompt.count(BEGIN) == 1
        assert prompt.count(END) == (len(titles) if template is PLAIN else 0)


@pytest.mark.parametrize("text", ["<begin>", "<padding>", "<end>"])
def test_special_tokens_in_titles_never_become_special_in_a_word_vocabulary(text: str) -> None:
    """A word tokenizer that has a special token as a word of its own must not read it out of a title."""
    catalogue = Catalogue.from_lists(["a", "b"], ["w5 w6", f"w5 x{text}y"])
    prompter = Prompter(catalogue, word_tokenizer(), PLAIN, context=64)
    assert answer(prompter, 1) == [5, 3, END]  # the glued word is unknown, which is w3 here


def test_a_title_that_is_the_end_token_itself_is_refused() -> None:
    with pytest.raises(UserError, match="holds the end token") as caught:
        Prompter(Catalogue.from_lists(["a", "b"], ["w5 w6", "w5 <end>"]), word_tokenizer(), PLAIN, context=64)
    assert "item 1" in str(caught.value)


def test_a_tokenizer_without_an_end_token() -> None:
    tokenizer = word_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="end token"):
        Prompter(tiny_catalogue(TITLES), tokenizer, PLAIN, context=64)


def test_nothing_between_titles_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        make(Template(name="bare"), begin=False)
        assert "nothing separates" in caplog.text
        caplog.clear()
        make(PLAIN, begin=False)
        make(Template(name="separated", separator="w23"), begin=False)
        assert not caplog.records


def test_the_instruction_template_shares_its_header() -> None:
    titles = ["Castle of Rome", "Tower of Rome", 'The "Gate"']
    tokenizer = build_tokenizer(titles * 3, vocabulary=400)
    prompter = Prompter(Catalogue.from_lists("abc", titles), tokenizer, INSTRUCTION, context=1024)
    text = tokenizer.decode(prompter.prompt([0, 2]).tolist()[1:])
    assert "The person chose:" in text and "Castle of Rome" in text and "### Response:" in text
    first, second = prompter.prompt([0, 1]).tolist(), prompter.prompt([0, 2]).tolist()
    shared = next(place for place, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    assert shared > len(prompter.prompt([0]).tolist()) - len(tokenizer.encode(INSTRUCTION.closing)) - 2


def test_worked_examples_stand_before_every_prompt() -> None:
    catalogue, tokenizer = tiny_catalogue(TITLES), word_tokenizer()
    for template in (PIECES, PLAIN):
        bare = Prompter(catalogue, tokenizer, template, context=128)
        shown = Prompter(catalogue, tokenizer, template, context=128, examples=[([0, 1], 2), (np.array([3]), 0)])
        header = [*bare.prompt([0, 1]), *answer(bare, 2), *bare.prompt([3]), *answer(bare, 0)]
        for history in ([1], [2, 0, 3], [0] * 10):
            assert shown.prompt(history).tolist() == [*header, *bare.prompt(history)]
        assert shown.trie.titles == bare.trie.titles
    assert header[:3] == [BEGIN, 5, END]  # plain: w5, the end token


@given(st.lists(st.integers(0, 3), min_size=1, max_size=10), st.integers(40, 70), st.integers(0, 2))
def test_with_examples_prompt_and_longest_answer_fit_the_context(history: list[int], context: int, count: int) -> None:
    examples = [([2, 1], 0), ([0], 3)][:count]
    prompter = Prompter(tiny_catalogue(TITLES), word_tokenizer(), PIECES, context=context, examples=examples)
    bare = Prompter(tiny_catalogue(TITLES), word_tokenizer(), PIECES, context=1000)
    prompt = prompter.prompt(history).tolist()
    assert len(prompt) + int(prompter.trie.depth.max()) <= context
    own = [bare.prompt(history[start:]).tolist() for start in range(len(history))]
    assert any(prompt[-len(tokens) :] == tokens for tokens in own)  # the examples are whole, the history is cut


def test_examples_that_leave_no_room_are_refused() -> None:
    with pytest.raises(UserError, match="with 3 examples and an answer of up to 5 tokens") as caught:
        Prompter(tiny_catalogue(TITLES), word_tokenizer(), PIECES, context=48, examples=[([0, 1, 2], 3)] * 3)
    assert "show fewer examples" in str(caught.value)


ITEM_TOKENS = np.array([24, -1, 25, 26])  # behind the vocabulary; the second item has none


def with_tokens(template: Template, context: int = 64) -> Prompter:
    return Prompter(tiny_catalogue(TITLES), word_tokenizer(), template, context=context, item_tokens=ITEM_TOKENS)


def test_an_item_token_stands_behind_its_title() -> None:
    assert with_tokens(PLAIN).prompt([0, 1, 2]).tolist() == [BEGIN, 5, END, 24, 5, 6, END, 7, 8, 9, END, 25]
    prompt = with_tokens(PIECES).prompt([0, 1, 2]).tolist()
    assert prompt == [BEGIN, 20, 21, 22, 5, 24, 23, 22, 5, 6, 23, 22, 7, 8, 9, 25, 19]
    for template in (PLAIN, PIECES):
        assert answer(with_tokens(template), 2) == answer(make(template), 2), "an answer has none"
    quoted = with_tokens(INSTRUCTION).prompt([2, 0]).tolist()
    plain = make(INSTRUCTION).prompt([2, 0]).tolist()
    assert [token for token in quoted if token < 24] == plain
    assert quoted.index(25) < quoted.index(24) and [token for token in quoted if token >= 24] == [25, 24]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(0, 3))
def test_under_plain_a_target_is_still_the_beginning_of_a_history_item(history: list[int], item: int) -> None:
    prompter = with_tokens(PLAIN)
    own = [ITEM_TOKENS[item]] if ITEM_TOKENS[item] >= 0 else []
    longer = prompter.prompt([*history, item]).tolist()
    assert longer == [*prompter.prompt(history).tolist(), *answer(prompter, item), *own]


def test_item_tokens_count_where_the_context_is_short() -> None:
    room = 4 + 1 + 5 + 5  # the longest answer, the begin token, two items of five tokens with theirs
    assert with_tokens(PLAIN, room).prompt([0, 2, 2]).tolist() == [BEGIN, *[7, 8, 9, END, 25] * 2]
    assert with_tokens(PLAIN, room - 1).prompt([0, 2, 2]).tolist() == [BEGIN, 7, 8, 9, END, 25]


def test_examples_are_written_with_item_tokens() -> None:
    prompter = Prompter(
        tiny_catalogue(TITLES), word_tokenizer(), PLAIN, context=64, examples=[([0], 1)], item_tokens=ITEM_TOKENS
    )
    assert prompter.prompt([0]).tolist() == [BEGIN, 5, END, 24, 5, 6, END, BEGIN, 5, END, 24]

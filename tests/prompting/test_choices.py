"""Prompts that list candidates: the published pair prompt letter by letter, and one of N."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.catalogue.catalogue import Catalogue
from catalign.data.cleaning import clean_titles
from catalign.data.fewshot import DOMAINS
from catalign.data.options import FewshotOptions
from catalign.data.prepare import prepare_fewshot
from catalign.errors import UserError
from catalign.model.embedded import build_tokenizer
from catalign.prompting.choices import ONE_OF, PAIR, PAIRS, ChoicePrompter, ChoiceTemplate
from conftest import SHARED
from fewshot_files import instruction, ordered
from tiny import BEGIN, END, tiny_catalogue, word_tokenizer

TITLES = [(5,), (5, 6), (7, 8, 9), (10, 10)]
# The word tokenizer knows the words w3 to w23; these pieces are written with them.
ORDER = ChoiceTemplate(
    name="order", opening="w20", item="w22 {title}", separator="w23", question="w19", candidate="w18 {title}",
    candidate_separator="w17", closing="w16", answer="w15 {title}", answer_separator="w14", answers_all=True,
)  # fmt: skip


def make(template: ChoiceTemplate = ORDER, context: int = 64, begin: bool = True) -> ChoicePrompter:
    return ChoicePrompter(tiny_catalogue(TITLES), word_tokenizer(begin=begin), template, context=context)


def test_pieces_in_their_order() -> None:
    expected = [BEGIN, 20, 22, 5, 23, 22, 10, 10, 19, 18, 7, 8, 9, 17, 18, 5, 6, 16]
    assert make().prompt([0, 3], [2, 1]).tolist() == expected
    assert make(begin=False).prompt([0, 3], [2, 1]).tolist() == expected[1:]
    assert make().prompt([0], [1]).tolist() == [BEGIN, 20, 22, 5, 19, 18, 5, 6, 16]
    assert make().answer([1, 2]).tolist() == [15, 5, 6, 14, 15, 7, 8, 9, END]
    assert make().answer([0]).tolist() == [15, 5, END]


def test_item_tokens_stand_behind_history_and_candidates() -> None:
    """As in LLaRA; answers have none, and an item without an embedding has none."""
    own = np.array([24, -1, 25, 26])
    chooser = ChoicePrompter(tiny_catalogue(TITLES), word_tokenizer(), ORDER, context=64, item_tokens=own)
    expected = [BEGIN, 20, 22, 5, 24, 23, 22, 10, 10, 26, 19, 18, 7, 8, 9, 25, 17, 18, 5, 6, 16]
    assert chooser.prompt([0, 3], [2, 1]).tolist() == expected
    assert chooser.answer([1, 2]).tolist() == make().answer([1, 2]).tolist()
    assert chooser.longest_answer == make().longest_answer


def test_an_answer_and_its_swap_share_no_more_than_the_prompt() -> None:
    chooser = make()
    assert chooser.answer([0, 2]).tolist() != chooser.answer([2, 0]).tolist()
    assert sorted(chooser.answer([0, 2]).tolist()) == sorted(chooser.answer([2, 0]).tolist())


@pytest.mark.parametrize(("answers_all", "longest"), [(True, 4 + 1 + 3 + 1), (False, 4 + 1)])
def test_the_oldest_items_are_left_out(answers_all: bool, longest: int, caplog: pytest.LogCaptureFixture) -> None:
    """An answer is w15 w7 w8 w9, w14, w15 w5 w6 and the end; or the longer title alone."""
    template = ORDER.model_copy(update={"answers_all": answers_all})
    whole = [BEGIN, 20, 22, 5, 23, 22, 10, 10, 19, 18, 7, 8, 9, 17, 18, 5, 6, 16]
    fits = make(template, context=len(whole) + longest)
    with caplog.at_level(logging.WARNING):
        assert fits.prompt([0, 3], [2, 1]).tolist() == whole
        assert not caplog.records
        tight = make(template, context=len(whole) + longest - 1)
        for _ in range(2):
            assert tight.prompt([0, 3], [2, 1]).tolist() == [BEGIN, 20, 22, *whole[6:]]
    assert [record.message for record in caplog.records] == [
        "some prompts are longer than the model's context; their oldest items are left out"
    ]
    with pytest.raises(UserError, match=r"a prompt of 2 candidates .* longer than the model's context of 18 tokens"):
        make(template, context=18).prompt([0, 3], [2, 1])


names = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=12)


@settings(deadline=None)
@given(st.lists(names, min_size=3, max_size=6, unique=True), st.sampled_from(sorted(PAIRS)), st.data())
def test_the_pair_prompt_is_the_published_one(titles: list[str], domain: str, data: st.DataObject) -> None:
    catalogue = Catalogue.from_lists(map(str, range(len(titles))), titles)
    chooser = ChoicePrompter(catalogue, build_tokenizer(["a"], 300, 64), PAIRS[domain], context=4096)
    item = st.integers(0, len(titles) - 1)
    history, first, second = data.draw(st.lists(item, min_size=1, max_size=5)), data.draw(item), data.draw(item)
    shown = [titles[number] for number in history]
    assert chooser.text(history, [first, second]) == instruction(domain, shown, titles[first], titles[second])
    assert chooser.answer_text([second, first]) == ordered(titles[second], titles[first])


@pytest.mark.parametrize("template", [PAIR, ONE_OF, *PAIRS.values()])
def test_tokens_say_what_the_text_says(template: ChoiceTemplate) -> None:
    titles = ["Fish & <s>hips", "Ça va?", "  blanks  "]
    tokenizer = build_tokenizer([*titles, template.opening, template.question], 400, 512)
    chooser = ChoicePrompter(Catalogue.from_lists("abc", titles), tokenizer, template, context=512)
    begin = "" if tokenizer.bos_token is None else tokenizer.bos_token
    # This tokenizer puts a blank before every piece.
    prompt, answer = (re.sub(r"\s", "", tokenizer.decode(tokens)) for tokens in (
        chooser.prompt([2, 0], [1, 0, 2]), chooser.answer([1, 2])))  # fmt: skip
    assert prompt == re.sub(r"\s", "", begin + chooser.text([2, 0], [1, 0, 2]))
    assert answer == re.sub(r"\s", "", chooser.answer_text([1, 2]) + str(tokenizer.eos_token))


def test_one_of_names_every_candidate_once() -> None:
    titles = ["red lamp", "blue lamp", "green kettle", "black scarf"]
    catalogue = Catalogue.from_lists("abcd", titles)
    chooser = ChoicePrompter(catalogue, build_tokenizer(titles, 300, 512), ONE_OF, context=512)
    text = chooser.text([0], [3, 1, 2])
    assert text.index("red lamp") < text.index("black scarf") < text.index("blue lamp") < text.index("green kettle")
    assert chooser.answer_text([1]) == '"blue lamp"'


def test_a_tokenizer_without_an_end_is_refused() -> None:
    tokenizer = word_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="the tokenizer has no end token"):
        ChoicePrompter(tiny_catalogue(TITLES), tokenizer, ORDER, context=64)


DMPO = SHARED / "data" / "dmpo"


@pytest.mark.realdata
@pytest.mark.skipif(not DMPO.is_dir(), reason="the published few-shot files are not beside the project")
@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_published_instructions_are_rebuilt(domain: str, tmp_path: Path) -> None:
    """Every kept row: letter by letter where no title was repaired, else as published with the repaired titles."""
    dataset = prepare_fewshot(DMPO, FewshotOptions(domain=domain), tmp_path / "ds")  # type: ignore[arg-type]
    catalogue = Catalogue.from_frame(dataset.items)
    chooser = ChoicePrompter(catalogue, build_tokenizer(["a"], 300, 64), PAIRS[domain], context=10**6)
    as_published = 0
    for suffix, split in (("sft_ranking", "train"), ("dpo_ranking_5", "train"), ("eval_ranking", "test")):
        rows = json.loads((DMPO / f"{DOMAINS[domain]}_{suffix}.json").read_text(encoding="utf-8"))
        titles = repaired_titles([row["instruction"] for row in rows], cut=domain == "ml-1m")
        rebuilt = rebuilt_rows(chooser, dataset.windows(split).to_dicts(), sft=suffix == "sft_ranking")
        for number, texts in rebuilt.items():
            right = rows[number]["output"]
            published = (rows[number]["instruction"], right if isinstance(right, str) else right[0])
            assert texts == tuple(repaired(text, titles) for text in published)
            as_published += texts == published
    assert as_published == {"games": 805, "movies": 642, "ml-1m": 0}[domain]


def rebuilt_rows(chooser: ChoicePrompter, windows: list[dict[str, object]], *, sft: bool) -> dict[int, tuple[str, str]]:
    """Place in the published file -> prompt and right answer."""
    rebuilt: dict[int, tuple[str, str]] = {}
    for window in windows:
        history, target, negatives, sides, user = (
            window[name] for name in ("history", "target", "negatives", "target_first", "user_id")
        )
        split, _, number = str(user).partition("-")
        first = (int(number) - 1) * (5 if split == "train" and not sft else 1)
        if sft:
            negatives, sides = negatives[:1], [window["target_first_sft"]]  # type: ignore[index]
        elif split == "train" and len(negatives) < 5:  # type: ignore[arg-type]
            continue  # a repair took a negative away, so places no longer tell rows
        for place, (negative, target_first) in enumerate(zip(negatives, sides, strict=True)):  # type: ignore[call-overload]
            shown = [target, negative] if target_first else [negative, target]
            rebuilt[first + place] = (chooser.text(history, shown), chooser.answer_text([target, negative]))  # type: ignore[arg-type, list-item]
    return rebuilt


TITLE = re.compile(r"(?<=<Title:).*?(?=> )")


def repaired_titles(texts: list[str], *, cut: bool) -> dict[str, str]:
    """Each published title of these texts as the dataset should write it."""
    published = sorted({title for text in texts for title in TITLE.findall(text)})
    kept = [re.split("[,(]", title)[0] or title if cut else title for title in published]
    return dict(zip(published, clean_titles(pl.Series(kept)), strict=True))


def repaired(text: str, titles: dict[str, str]) -> str:
    return TITLE.sub(lambda found: titles[found[0]], text)

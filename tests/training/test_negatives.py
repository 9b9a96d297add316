"""Negatives: what may be one, how likely each is, and what is refused."""

import logging

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from catalign.catalogue.trie import TitleTrie
from catalign.errors import UserError
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN
from catalign.training.negatives import (
    Negatives,
    check_allowed,
    count_allowed,
    drawn_negatives,
    given_negatives,
    hard_negatives,
)
from tiny import END, tiny_catalogue, tiny_model, title_scores

TITLES = [(5,), (5, 6), (5, 6, 7), (8, 9), (8, 9, 10, 11), (12, 12, 12), (5,), (13, 14), (8, 9), (15,)]
"""Items 0 and 6 share a title, and so do 3 and 8."""
COUNTS = [5, 1, 0, 4, 2, 0, 9, 3, 6, 7]
Histories = list[list[int]]


def make_trie(titles: list[tuple[int, ...]], counts: list[int] | None = None) -> TitleTrie:
    return TitleTrie.from_lists([[*title, END] for title in titles], end_token=END, popularity=counts)


TRIE = make_trie(TITLES, COUNTS)


def draw(
    chosen: Negatives,
    histories: Histories,
    targets: list[int],
    *,
    seed: int = 0,
    trie: TitleTrie = TRIE,
    items: pl.DataFrame | None = None,
    counts: list[int] | None = None,
) -> npt.NDArray[np.int64]:
    return drawn_negatives(
        chosen,
        trie,
        pl.DataFrame() if items is None else items,
        np.array(COUNTS if counts is None else counts),
        [np.array(history, dtype=np.uint32) for history in histories],
        np.array(targets, dtype=np.int64),
        seed,
    )


item = st.integers(0, len(TITLES) - 1)
windows = st.lists(st.tuples(st.lists(item, max_size=3), item), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(windows=windows, count=st.integers(1, 4), seed=st.integers(0, 9), kind=st.sampled_from(["uniform", "popular"]))
def test_what_may_be_a_negative(windows: list[tuple[list[int], int]], count: int, seed: int, kind: str) -> None:
    histories, targets = [list(history) for history, _ in windows], [target for _, target in windows]
    weight_T = np.bincount(TRIE.item_title, weights=COUNTS if kind == "popular" else None) > 0
    closed = [{int(title) for title in TRIE.item_title[[*history, target]]} for history, target in windows]
    fewest = min(sum(bool(weight_T[title]) for title in range(TRIE.titles) if title not in no) for no in closed)
    chosen = Negatives(kind=kind, count=count)
    if fewest < count:
        with pytest.raises(UserError, match=f"only {fewest} titles"):
            draw(chosen, histories, targets, seed=seed)
        return
    found_SK = draw(chosen, histories, targets, seed=seed)
    assert found_SK.shape == (len(windows), count)
    assert (found_SK == draw(chosen, histories, targets, seed=seed)).all()
    for found, no in zip(found_SK, closed, strict=True):
        titles = TRIE.item_title[found].tolist()
        assert len(set(titles)) == count and not no & set(titles)
        assert all(weight_T[title] for title in titles)
        assert [TRIE.items_of(title)[0] for title in titles] == found.tolist()  # the most popular bears the title


def test_as_many_as_the_catalogue_allows() -> None:
    every_SK = draw(Negatives(count=6), [[3]] * 50, [0] * 50)
    assert (np.sort(every_SK, axis=1) == [1, 2, 4, 5, 7, 9]).all()
    assert len(np.unique(every_SK, axis=0)) > 1
    with pytest.raises(UserError, match=r"--negatives: 7 negatives asked for, but .* only 6 titles .*ask for fewer"):
        draw(Negatives(count=7), [[3]], [0])


@pytest.mark.parametrize("kind", ["uniform", "popular"])
def test_how_likely_a_title_is(kind: str) -> None:
    """The first of two negatives follows the weights of what is left; a title of two items weighs twice."""
    found = draw(Negatives(kind=kind, count=2), [[9]] * 20_000, [7] * 20_000)
    weight_I = np.array(COUNTS if kind == "popular" else [1] * len(COUNTS), dtype=float)
    weight_T = np.bincount(TRIE.item_title, weights=weight_I)
    weight_T[TRIE.item_title[[9, 7]]] = 0
    share_T = np.bincount(TRIE.item_title[found[:, 0]], minlength=TRIE.titles) / len(found)
    np.testing.assert_allclose(share_T, weight_T / weight_T.sum(), atol=0.012)


def test_seeds_differ_and_windows_are_independent() -> None:
    trie = make_trie([(number,) for number in range(3, 23)])
    counts = [1] * 20
    one, other = (draw(Negatives(), [[0]] * 30, [1] * 30, seed=seed, trie=trie, counts=counts) for seed in (0, 1))
    assert not (one == other).all() and len(np.unique(one, axis=0)) > 20


def items_of(categories: list[str | None]) -> pl.DataFrame:
    rows = {"item_id": [str(number) for number in range(len(categories))], "title": "t", "kind": categories}
    return pl.DataFrame(rows, schema_overrides={"kind": pl.String})


def test_negatives_of_the_targets_category(caplog: pytest.LogCaptureFixture) -> None:
    kinds = ["a", "a", "a", "b", "b", None, "a", "c", "b", "a"]
    chosen = Negatives(kind="category", category="kind", count=2)
    targets = [0] * 40 + [3] * 40 + [5] * 40
    with caplog.at_level(logging.WARNING):
        found = draw(chosen, [[1]] * 120, targets, items=items_of(kinds))
    assert {frozenset(row) for row in found[:40].tolist()} == {frozenset({2, 9})}
    # Beside item 3 and its namesake the category b has one title, and item 5 has no category.
    assert set(found[40:80].flatten().tolist()) == {6, 2, 4, 5, 7, 9}
    assert set(found[80:].flatten().tolist()) == {6, 2, 4, 7, 8, 9}
    assert [record.message for record in caplog.records] == [
        "80 of 120 windows draw from the whole catalogue: the target's category has fewer than 2 other titles"
    ]


def test_a_category_column_without_any_value(caplog: pytest.LogCaptureFixture) -> None:
    chosen = Negatives(kind="category", category="kind", count=2)
    assert draw(chosen, [[1]], [0], items=items_of([None] * 10)).shape == (1, 2)
    assert "1 of 1 windows" in caplog.text


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (items_of(["a"] * 10).drop("kind"), "--category: the items have no column kind; they have no further columns"),
        (items_of(["a"] * 10).rename({"kind": "sort"}), "no column kind; they have sort"),
        (items_of(["a"] * 10).with_columns(pl.concat_list("kind")), "the column kind holds lists"),
    ],
)
def test_a_category_column_that_cannot_be_used(items: pl.DataFrame, words: str) -> None:
    with pytest.raises(UserError, match=words):
        draw(Negatives(kind="category", category="kind"), [[1]], [0], items=items)


HISTORIES, TARGETS = [[0], [0, 3, 4], [7, 5], [2], [1, 6]], [4, 1, 8, 5, 9]


@pytest.mark.parametrize("score", ["valid", "full"])
@pytest.mark.parametrize("architecture", ["llama", "mamba"])
def test_hard_negatives_are_the_best_wrong_titles(score: str, architecture: str) -> None:
    """Against every title scored by the whole model, sequence by sequence."""
    model = tiny_model(architecture)
    if architecture == "mamba":
        model.check_parts()
    prompter = Prompter(tiny_catalogue(TITLES, COUNTS), model.tokenizer, PLAIN, context=64)
    prompts = [prompter.prompt(history) for history in HISTORIES]
    histories = [np.array(history) for history in HISTORIES]
    found = hard_negatives(model, prompter.trie, prompts, histories, np.array(TARGETS), 4, score)  # type: ignore[arg-type]
    distinct = sorted(set(TITLES))
    for row, (prompt, history, target) in enumerate(zip(prompts, HISTORIES, TARGETS, strict=True)):
        closed = {TITLES[number] for number in (*history, target)}
        scores = dict(zip(distinct, title_scores(model.causal, prompt.tolist(), distinct, score), strict=True))
        best = sorted((title for title in distinct if title not in closed), key=lambda title: -scores[title])
        assert [TITLES[number] for number in found[row]] == best[:4]
        assert set(found[row].tolist()) <= {1, 2, 4, 5, 6, 7, 8, 9}  # 6 and 8 stand for their namesakes


def test_as_many_hard_negatives_as_there_are() -> None:
    model = tiny_model()
    prompter = Prompter(tiny_catalogue(TITLES, COUNTS), model.tokenizer, PLAIN, context=64)
    histories, target = [np.array([3])], np.array([0])
    allowed = count_allowed(prompter.trie, histories, target)
    assert allowed.tolist() == [6]
    found = hard_negatives(model, prompter.trie, [prompter.prompt([3])], histories, target, 6, "valid")
    assert sorted(found[0].tolist()) == [1, 2, 4, 5, 7, 9]
    with pytest.raises(UserError, match="only 6 titles"):
        check_allowed(allowed, Negatives(kind="hard", count=7))


def windows_with(negatives: list[list[int] | None]) -> pl.DataFrame:
    frame = {"window": [3, 17], "history": [[1], [2]], "target": [0, 4], "negatives": negatives}
    kinds = {"target": pl.UInt32, "negatives": pl.List(pl.Int64)}
    return pl.DataFrame(frame, schema_overrides=kinds)


def test_the_first_of_the_given() -> None:
    found = given_negatives(windows_with([[1, 2, 3], [5, 9]]), TRIE, 2, "w")
    assert found.tolist() == [[1, 2], [5, 9]]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ([5], "w, window 17: has fewer negatives than the 2 asked for; ask for fewer with --negatives"),
        (None, "w, window 17: has fewer negatives"),
        ([5, 4], "w, window 17: a negative is the target, or shares its title"),
        ([5, 10], "w, window 17: a negative is not among the 10 items of the catalogue"),
        ([-1, 5], "w, window 17: a negative is not among"),
        ([0, 6], "w, window 17: two negatives share a title"),
    ],
)
def test_given_negatives_that_cannot_be_used(second: list[int] | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        given_negatives(windows_with([[1, 2], second]), TRIE, 2, "w")


def test_a_namesake_of_the_target_is_no_negative() -> None:
    with pytest.raises(UserError, match="w, window 3: a negative is the target, or shares its title"):
        given_negatives(windows_with([[6, 2], [1, 2]]), TRIE, 2, "w")


def test_a_column_of_negatives_is_needed() -> None:
    with pytest.raises(UserError, match="w: the windows have no column negatives; draw them"):
        given_negatives(windows_with([[1], [2]]).drop("negatives"), TRIE, 1, "w")
    with pytest.raises(UserError, match=r"w: the column negatives holds List\(String\)"):
        given_negatives(
            windows_with([[1], [2]]).with_columns(pl.col("negatives").cast(pl.List(pl.String))), TRIE, 1, "w"
        )


@pytest.mark.parametrize(
    "fields",
    [
        {"count": 0},
        {"kind": "easy"},
        {"refresh_steps": 5},
        {"kind": "hard", "refresh_steps": 0},
        {"kind": "category"},
        {"category": "kind"},
    ],
)
def test_settings_that_do_not_fit(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Negatives.model_validate(fields)

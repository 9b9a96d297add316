"""Search against exhaustive scoring and against `generate` of transformers, for both score modes."""

import json
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from catalign.catalogue.trie import TitleTrie
from catalign.decoding.scores import ScoreMode
from catalign.decoding.search import FoundTitles, search_titles
from catalign.decoding.trie_tensors import Exclusions, TrieTensors, run_ends, titles_below
from catalign.model.language_model import LanguageModel
from conftest import SHARED
from tiny import ARCHITECTURES, END, PADDING, VOCABULARY, children_of, tiny_model, tiny_trie, title_scores

REFERENCE = SHARED / "vectors" / "reference.json"
MODES: tuple[ScoreMode, ...] = ("valid", "full")
CPU = torch.device("cpu")
Titles = list[tuple[int, ...]]
SOME_TITLES: Titles = [
    (5,), (5, 6), (5, 6, 7, 8), (5, 9, 9, 9, 9, 4), (5, 9, 9, 9, 9, 3), (8, 8), (5, 6), (7, 3, 3, 3, 3, 3), (8,)
]  # fmt: skip
SOME_PROMPTS = [[0, 4, 5, 6], [0, 9], [0, 7, 7, 7, 12, 20, 21, 3], [0, 4, 5, 6]]

words = st.integers(3, 6)
prompts = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6), min_size=1, max_size=4)


@st.composite
def catalogues(draw: st.DrawFn) -> Titles:
    """Titles that are prefixes of one another, copies, long forced runs, sometimes one forced beginning for all."""
    header = draw(st.one_of(st.just([]), st.lists(words, max_size=3)))
    run = draw(st.lists(words, max_size=4))
    stems = draw(st.lists(st.lists(words, min_size=1, max_size=4), min_size=1, max_size=8))
    with_run = draw(st.lists(st.booleans(), min_size=len(stems), max_size=len(stems)))
    return [tuple(header + stem + (run if runs_on else [])) for stem, runs_on in zip(stems, with_run, strict=True)]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model("llama")


def search(
    model: LanguageModel,
    titles: Titles,
    prompts: Sequence[Sequence[int]],
    score: ScoreMode,
    beams: int,
    excluded: Sequence[Sequence[int]] | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> tuple[TitleTrie, FoundTitles]:
    trie = tiny_trie(titles)
    tensors = TrieTensors.of(trie, CPU, allowed)
    exclusions = None
    if excluded is not None:
        exclusions = Exclusions(trie, [np.array(items, dtype=np.int64) for items in excluded], tensors, allowed)
    arrays = [np.array(prompt, dtype=np.int32) for prompt in prompts]
    return trie, search_titles(model, tensors, arrays, beams=beams, score=score, exclusions=exclusions)


def check(trie: TitleTrie, found: FoundTitles, user: int, scores: npt.NDArray[np.float64], whole: bool) -> None:
    """What was found for a user: different titles in falling order with the scores of `scores` [items].

    Items with score -inf may not be found. With `whole`, everything else must be.
    """
    title_score = np.full(trie.titles, -np.inf)
    np.maximum.at(title_score, trie.item_title, scores)
    title_K, score_K = found.title_BK[user].numpy(), found.score_BK[user].numpy()
    real = title_K >= 0
    count = int(real.sum())
    assert real[:count].all()  # nothing after a gap
    assert np.isneginf(score_K[count:]).all()
    assert len(set(title_K[:count].tolist())) == count
    assert (np.diff(score_K[:count]) <= 0).all()
    np.testing.assert_allclose(score_K[:count], title_score[title_K[:count]], atol=1e-4)
    if whole:
        best = np.sort(title_score[np.isfinite(title_score)])[::-1][: len(title_K)]
        np.testing.assert_allclose(score_K[:count], best, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(titles=catalogues(), prompts=prompts, extra=st.integers(0, 3))
@pytest.mark.parametrize("score", MODES)
def test_wide_beam_is_exhaustive(
    model: LanguageModel, titles: Titles, prompts: list[list[int]], extra: int, score: ScoreMode
) -> None:
    trie, found = search(model, titles, prompts, score, beams=len(titles) + extra)
    for user, prompt in enumerate(prompts):
        check(trie, found, user, title_scores(model.causal, prompt, titles, score), whole=True)
    if score == "valid":  # a distribution over the titles
        torch.testing.assert_close(found.score_BK.exp().sum(1), torch.ones(len(prompts)))


@settings(max_examples=40, deadline=None)
@given(titles=catalogues(), prompts=prompts, beams=st.integers(1, 3))
@pytest.mark.parametrize("score", MODES)
def test_narrow_beams_find_different_titles_with_true_scores(
    model: LanguageModel, titles: Titles, prompts: list[list[int]], beams: int, score: ScoreMode
) -> None:
    trie, found = search(model, titles, prompts, score, beams)
    for user, prompt in enumerate(prompts):
        check(trie, found, user, title_scores(model.causal, prompt, titles, score), whole=False)
        assert (found.title_BK[user] >= 0).sum() == min(beams, trie.titles)


def plain_beam_search(
    model: LanguageModel, titles: Titles, prompt: list[int], score: ScoreMode, beams: int
) -> list[float]:
    """The search as it is meant, one beam after the other: the scores of what it finds, best first."""
    closed = {(*title, END) for title in titles}

    @cache
    def continuations(prefix: tuple[int, ...]) -> dict[int, float]:
        with torch.no_grad():
            logits_V = model.base(input_ids=torch.tensor([[*prompt, *prefix]])).logits[0, -1].double()
        children = children_of(titles, prefix)
        total = (logits_V[children] if score == "valid" else logits_V).logsumexp(0)
        return {token: float(logits_V[token] - total) for token in children}

    def follow(prefix: tuple[int, ...], value: float) -> tuple[float, tuple[int, ...]]:
        while prefix not in closed and len(continuations(prefix)) == 1:
            ((token, step),) = continuations(prefix).items()
            prefix, value = (*prefix, token), value + step
        return value, prefix

    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    done: list[float] = []
    while live and (len(done) < beams or live[0][0] > done[-1]):
        chosen = sorted(
            (
                (value + step, (*prefix, token))
                for value, prefix in live
                for token, step in continuations(prefix).items()
            ),
            reverse=True,
        )[: 2 * beams]
        followed = [follow(prefix, value) for value, prefix in chosen]  # the beams are chosen before their forced runs
        done = sorted([*done, *(value for value, prefix in followed if prefix in closed)], reverse=True)[:beams]
        live = sorted([beam for beam in followed if beam[1] not in closed][:beams], reverse=True)
    return done


@settings(max_examples=40, deadline=None)
@given(titles=catalogues(), prompts=prompts, beams=st.integers(1, 4))
@pytest.mark.parametrize("score", MODES)
def test_narrow_beams_are_a_plain_beam_search(
    model: LanguageModel, titles: Titles, prompts: list[list[int]], beams: int, score: ScoreMode
) -> None:
    _, found = search(model, titles, prompts, score, beams)
    for user, prompt in enumerate(prompts):
        expected = plain_beam_search(model, titles, prompt, score, beams)
        np.testing.assert_allclose(found.score_BK[user][: len(expected)], expected, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(titles=catalogues(), prompts=prompts, data=st.data())
@pytest.mark.parametrize("score", MODES)
def test_filters_equal_filtering_the_exhaustive_ranking(
    model: LanguageModel, titles: Titles, prompts: list[list[int]], data: st.DataObject, score: ScoreMode
) -> None:
    """Per user and for all; down to nothing left. A title goes when every item that bears it is closed."""
    items = st.lists(st.integers(0, len(titles) - 1), max_size=len(titles))
    excluded = data.draw(st.one_of(st.none(), st.lists(items, min_size=len(prompts), max_size=len(prompts))))
    masks = st.lists(st.booleans(), min_size=len(titles), max_size=len(titles)).map(np.array)
    allowed = data.draw(st.one_of(st.none(), masks))
    trie, found = search(model, titles, prompts, score, len(titles), excluded, allowed)
    for user, prompt in enumerate(prompts):
        scores = title_scores(model.causal, prompt, titles, score)
        if allowed is not None:
            scores[~allowed] = -np.inf
        if excluded is not None:
            scores[excluded[user]] = -np.inf
        check(trie, found, user, scores, whole=True)


@settings(max_examples=30, deadline=None)
@given(titles=catalogues(), prompts=prompts, beams=st.integers(1, 4))
@pytest.mark.parametrize("score", MODES)
def test_a_batch_is_its_users_one_at_a_time(
    model: LanguageModel, titles: Titles, prompts: list[list[int]], beams: int, score: ScoreMode
) -> None:
    _, together = search(model, titles, prompts, score, beams)
    for user, prompt in enumerate(prompts):
        _, alone = search(model, titles, [prompt], score, beams)
        torch.testing.assert_close(together.score_BK[user], alone.score_BK[0], rtol=1e-5, atol=1e-5)
        gaps = together.score_BK[user].diff().abs()
        if not (gaps < 1e-4).any():  # without ties the titles are the same too
            assert torch.equal(together.title_BK[user], alone.title_BK[0])


@pytest.mark.parametrize("score", MODES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(architecture: str, score: ScoreMode) -> None:
    other = tiny_model(architecture, seed=1)
    excluded = [[], [5], [0, 1], []]
    trie, found = search(other, SOME_TITLES, SOME_PROMPTS, score, len(SOME_TITLES), excluded)
    for user, prompt in enumerate(SOME_PROMPTS):
        scores = title_scores(other.causal, prompt, SOME_TITLES, score)
        scores[excluded[user]] = -np.inf
        check(trie, found, user, scores, whole=True)


def generated(
    model: LanguageModel, titles: Titles, prompt: Sequence[int], score: ScoreMode, beams: int
) -> list[tuple[tuple[int, ...], float]]:
    """Titles and scores by transformers' own constrained beam search."""

    def continues(_: int, tokens: torch.Tensor) -> list[int]:
        return children_of(titles, tokens[len(prompt) :].tolist()) or [PADDING]

    output = model.base.generate(  # type: ignore[operator]
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=max(map(len, titles)) + 1,
        prefix_allowed_tokens_fn=continues,
        renormalize_logits=score == "valid",
        length_penalty=0.0,
        early_stopping="never",
        do_sample=False,
        eos_token_id=END,
        pad_token_id=PADDING,
        output_scores=True,
        return_dict_in_generate=True,
    )
    found = []
    for row, value in zip(output.sequences.tolist(), output.sequences_scores.tolist(), strict=True):
        answer = row[len(prompt) :]
        if value > -1e6 and END in answer:  # transformers fills up with forbidden titles at about -1e9
            found.append((tuple(answer[: answer.index(END)]), value))
    return found


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("score", MODES)
def test_generate_ranks_the_same(architecture: str, score: ScoreMode) -> None:
    other = tiny_model(architecture, seed=2)
    distinct = sorted(set(SOME_TITLES))
    for prompt in SOME_PROMPTS[:3]:
        trie, found = search(other, distinct, [prompt], score, len(distinct))
        theirs = generated(other, distinct, prompt, score, len(distinct))
        ours = [distinct[int(trie.title_items[trie.title_items_start[title]])] for title in found.title_BK[0].tolist()]
        assert ours == [title for title, _ in theirs]
        np.testing.assert_allclose(found.score_BK[0], [value for _, value in theirs], atol=1e-4)


@settings(max_examples=12, deadline=None)
@given(titles=catalogues().map(lambda titles: sorted(set(titles))), prompt=st.lists(words, min_size=1, max_size=4))
@pytest.mark.parametrize("score", MODES)
def test_generate_finds_the_same_scores_in_any_catalogue(
    model: LanguageModel, titles: Titles, prompt: list[int], score: ScoreMode
) -> None:
    _, found = search(model, titles, [prompt], score, len(titles))
    theirs = generated(model, titles, prompt, score, max(len(titles), 2))  # one beam would be greedy search
    assert {title for title, _ in theirs} == set(titles)
    np.testing.assert_allclose(found.score_BK[0], [value for _, value in theirs], atol=1e-4)


def test_the_only_title_when_excluded_is_not_found(model: LanguageModel) -> None:
    for score in MODES:
        _, found = search(model, [(5, 6)], SOME_PROMPTS, score, 2, excluded=[[0], [], [0], []])
        assert found.title_BK.tolist() == [[-1, -1], [0, -1], [-1, -1], [0, -1]]
        _, found = search(model, [(5, 6)], SOME_PROMPTS, score, 2, allowed=np.array([False]))
        assert (found.title_BK == -1).all()


class TableModel:
    """Stands where a language model stands; its hidden state is the table's row of logits, its head the identity."""

    device = CPU
    head_bias_V = None
    shares_prefixes = True

    def __init__(self, table: dict[str, list[float]], prompt_length: int) -> None:
        self.table, self.prompt_length = table, prompt_length
        self.head_VH = torch.eye(len(table[""]))
        self.seen: list[tuple[int, ...]] = []

    def finish_logits(self, logits: torch.Tensor) -> torch.Tensor:
        return logits

    def inputs(self, token_RN: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"input_ids": token_RN}

    def attention_mask(self, visible: torch.Tensor) -> torch.Tensor:
        return visible

    def decoder(self, input_ids: torch.Tensor, position_ids: torch.Tensor, **inputs: Any) -> SimpleNamespace:
        """Answer each token with the row of the prefix that its mask lets it see."""
        if "attention_mask" not in inputs:
            self.seen = [()] * input_ids.shape[1]
            rows = [self.table[""]] * input_ids.shape[1]
        else:
            visible_MX = inputs["attention_mask"][0, 0]
            tokens = input_ids[0].tolist()
            before = len(self.seen)
            assert END not in tokens  # it would be read for nothing
            self.seen += [(token,) for token in tokens]
            rows = []
            for slot in range(len(tokens)):
                slots = visible_MX[slot].nonzero().flatten().tolist()
                answer = [self.seen[number][0] for number in slots if number >= self.prompt_length]
                assert slots[-1] == before + slot
                assert position_ids[0, slot] == self.prompt_length + len(answer) - 1
                rows.append(self.table[",".join(map(str, answer))])
        return SimpleNamespace(last_hidden_state=torch.tensor([rows]))


@pytest.mark.realdata
@pytest.mark.parametrize("score", MODES)
def test_reference_search(score: ScoreMode) -> None:
    if not REFERENCE.exists():
        pytest.skip("../shared/vectors is not beside the project")
    reference = json.loads(REFERENCE.read_text())
    trie = TitleTrie.from_lists(reference["titles"], end_token=reference["end"])
    table: Any = TableModel(reference["search"]["next_token_logits"], prompt_length=3)
    found = search_titles(table, TrieTensors.of(trie, CPU), [np.array([0, 0, 0])], beams=trie.titles, score=score)
    items = [int(trie.items_of(title)[0]) for title in found.title_BK[0].tolist()]
    assert items == reference["search"]["ranking"][score]
    np.testing.assert_allclose(found.score_BK[0], np.array(reference["search"]["scores"][score])[items], atol=1e-4)


@settings(deadline=None)
@given(catalogues())
def test_runs_and_titles_below(titles: Titles) -> None:
    trie = tiny_trie(titles)
    ends, below = run_ends(trie), titles_below(trie)
    for node in range(trie.nodes):
        end = node
        while len(trie.children(end)) == 1:
            end = int(trie.children(end)[0])
        assert ends[node] == end
        path, _ = trie.paths([trie.items_of(int(below[node]))[0]])
        assert node == 0 or node in path


def test_weights_in_bfloat16_give_near_scores(model: LanguageModel) -> None:
    half = tiny_model("llama").to(torch.bfloat16)
    for score in MODES:
        _, exact = search(model, SOME_TITLES, SOME_PROMPTS, score, 3)
        _, found = search(half, SOME_TITLES, SOME_PROMPTS, score, 3)
        torch.testing.assert_close(found.score_BK, exact.score_BK, rtol=0.1, atol=0.2)


def test_the_model_is_not_changed_and_no_gradient_is_kept(model: LanguageModel) -> None:
    before = [weight.clone() for weight in model.parameters()]
    _, found = search(model, SOME_TITLES, SOME_PROMPTS, "full", 3)
    assert not found.score_BK.requires_grad
    assert all(map(torch.equal, before, model.parameters()))
    assert isinstance(model, nn.Module)


@pytest.mark.parametrize("score", MODES)
@pytest.mark.parametrize("beams", [1, 3, 5])
def test_narrow_beams_in_a_larger_catalogue(model: LanguageModel, beams: int, score: ScoreMode) -> None:
    """Enough titles for beams to be given up at every step."""
    random = np.random.default_rng(beams)
    titles = [tuple(random.integers(3, 9, random.integers(1, 6)).tolist()) for _ in range(150)]
    prompts = [random.integers(3, VOCABULARY, length).tolist() for length in (1, 4, 7)]
    _, found = search(model, titles, prompts, score, beams)
    for user, prompt in enumerate(prompts):
        expected = plain_beam_search(model, titles, prompt, score, beams)
        np.testing.assert_allclose(found.score_BK[user], expected, atol=1e-4)


def fed_tokens(model: LanguageModel, titles: Titles, score: ScoreMode) -> list[list[int]]:
    """The tokens of each call of the decoder, for one user."""
    calls: list[list[int]] = []
    hook = model.decoder.register_forward_pre_hook(
        lambda _, __, inputs: calls.append(inputs["input_ids"].flatten().tolist()), with_kwargs=True
    )
    try:
        search(model, titles, [[0, 9]], score, 4)
    finally:
        hook.remove()
    return calls


def test_forced_runs_are_free_or_one_pass(model: LanguageModel) -> None:
    """Nothing is read that decides nothing: no end token, and no forced run where its score is 0."""
    titles = [(5, 6, 7, 8, 9), (5, 6, 10, 11, 12)]
    assert fed_tokens(model, titles, "valid") == [[0, 9], [5, 6]]
    full = fed_tokens(model, titles, "full")
    assert full[:2] == [[0, 9], [5, 6]]
    assert sorted(full[2]) == [7, 8, 9, 10, 11, 12] and len(full) == 3
    assert fed_tokens(model, [(5, 6)], "valid") == [[0, 9]]
    assert fed_tokens(model, [(5, 6)], "full") == [[0, 9], [5, 6]]


@pytest.mark.parametrize("length_penalty", [-0.7, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("score", MODES)
def test_length_penalty_divides_by_the_length(model: LanguageModel, score: ScoreMode, length_penalty: float) -> None:
    trie = tiny_trie(SOME_TITLES)
    arrays = [np.array(prompt, dtype=np.int32) for prompt in SOME_PROMPTS]
    lengths = np.array([len(title) + 1 for title in SOME_TITLES])
    for beams in (len(SOME_TITLES), 3):
        found = search_titles(
            model, TrieTensors.of(trie, CPU), arrays, beams=beams, score=score, length_penalty=length_penalty
        )
        for user, prompt in enumerate(SOME_PROMPTS):
            penalised = title_scores(model.causal, prompt, SOME_TITLES, score) / lengths**length_penalty
            check(trie, found, user, penalised, whole=beams == len(SOME_TITLES))

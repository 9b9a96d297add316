"""Grounding: embeddings against plain passes, neighbours against brute force, the cache, the decoder."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.decoding import grounding
from catalign.decoding.generation import generate_in_batches
from catalign.decoding.grounded_generation import GroundedGeneration
from catalign.decoding.grounding import TitleTable, embed_texts, smallest, title_table
from catalign.errors import UserError
from catalign.model.language_model import LanguageModel
from catalign.model.loading import Lora, add_lora
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN, Template
from tiny import ARCHITECTURES, BEGIN, END, UNSHARED, text_of, tiny_catalogue, tiny_model

TITLES = [(5, 6), (5,), (7, 8, 9), (5, 6), (10, 10), (7, 8), (5, 6)]  # items 0, 3 and 6 share a title
POPULARITY = [1, 5, 0, 4, 0, 2, 1]
CATALOGUE = tiny_catalogue(TITLES, POPULARITY)
HISTORIES = [[0], [1, 2, 3], [4], [5, 5], [2, 0]]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model("llama", seed=3)


def prompter_of(model: LanguageModel, template: Template = PLAIN) -> Prompter:
    return Prompter(CATALOGUE, model.tokenizer, template, context=model.context)


def plain_embedding(model: LanguageModel, tokens: list[int]) -> torch.Tensor:
    """The last hidden state of one sequence, run alone."""
    with torch.no_grad():
        return model.decoder(input_ids=torch.tensor([tokens]))[0][0, -1]  # type: ignore[no-any-return]


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *UNSHARED])
def test_embeddings_are_those_of_plain_sequences(architecture: str) -> None:
    model = tiny_model(architecture)
    model.check_parts()
    texts = [(5, 6), (5, 6, 7), (9,), (), (5, 6), (20, 21, 22, 23, 3)]
    with mock.patch.object(grounding, "TEXTS_AT_ONCE", 4):
        found_SH = embed_texts(model, [text_of(text) for text in texts])
    for found_H, text in zip(found_SH, texts, strict=True):
        expected_H = plain_embedding(model, [BEGIN, *(text or [END])])
        torch.testing.assert_close(found_H, expected_H, atol=1e-4, rtol=1e-4)


def test_no_texts(model: LanguageModel) -> None:
    assert embed_texts(model, []).shape == (0, 16)


def test_adapters_are_switched_off_and_the_mode_comes_back(model: LanguageModel) -> None:
    adapted = add_lora(tiny_model("llama", seed=3), Lora(), seed=0).train()
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.add_(1.0)
    texts = ["w5 w6", "w7"]
    torch.testing.assert_close(embed_texts(adapted, texts), embed_texts(model, texts))
    assert adapted.training
    adapted.eval()
    assert not torch.allclose(plain_embedding(adapted, [BEGIN, 7]), plain_embedding(model, [BEGIN, 7]))


def test_a_text_longer_than_the_context_is_refused(model: LanguageModel) -> None:
    with pytest.raises(UserError, match="a text of 65 tokens is longer than the model's context of 64"):
        embed_texts(model, ["w5 " * 64])


def brute_force(table_NH: np.ndarray, text_BH: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    distance_BN = np.linalg.norm(text_BH[:, None] - table_NH, axis=2)
    title_BK = np.argsort(distance_BN, axis=1, kind="stable")[:, :count]
    return title_BK, np.take_along_axis(distance_BN, title_BK, axis=1)


@settings(max_examples=80, deadline=None)
@given(
    titles=st.integers(1, 30), texts=st.integers(1, 4), count=st.integers(1, 35), chunk=st.integers(1, 31),
    spread=st.integers(1, 4), seed=st.integers(0, 999),
)  # fmt: skip
def test_neighbours_are_those_of_brute_force_ties_by_number(
    titles: int, texts: int, count: int, chunk: int, spread: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    table_NH = random.integers(0, spread, (titles, 2)).astype(np.float32)  # whole numbers: many exact ties
    text_BH = random.integers(0, spread, (texts, 2)).astype(np.float32)
    with mock.patch.object(grounding, "TITLES_AT_ONCE", chunk):
        title_BK, distance_BK = TitleTable(table_NH, np.arange(titles)).nearest(torch.from_numpy(text_BH), count)
    expected_title, expected_distance = brute_force(table_NH, text_BH, count)
    assert title_BK.tolist() == expected_title.tolist()
    np.testing.assert_allclose(distance_BK, expected_distance, rtol=1e-6)


def test_near_titles_with_long_embeddings_are_told_apart() -> None:
    """In float32 the squares of these would be all the same."""
    table_NH = np.array([[1000.0, 0.3], [1000.0, 0.1], [1000.0, 0.2]], dtype=np.float32)
    title_BK, distance_BK = TitleTable(table_NH, np.arange(3)).nearest(torch.tensor([[1000.0, 0.0]]), 3)
    assert title_BK.tolist() == [[1, 2, 0]]
    np.testing.assert_allclose(distance_BK, [[0.1, 0.2, 0.3]], rtol=1e-4)


def test_smallest_takes_the_first_of_equal_values() -> None:
    value, column = smallest(torch.tensor([[2.0, 1.0, 2.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]]), 3)
    assert column.tolist() == [[0, 1, 3], [0, 1, 2]]
    assert value.tolist() == [[2.0, 1.0, 1.0], [0.0, 0.0, 0.0]]


def test_the_table_has_a_row_for_every_title(model: LanguageModel, tmp_path: Path) -> None:
    trie = prompter_of(model).trie
    table = title_table(model, CATALOGUE, trie)
    assert table.embedding_NH.shape == (5, 16) and table.embedding_NH.dtype == np.float32
    for item, title in enumerate(TITLES):
        row = table.embedding_NH[table.item_title_I[item]]
        np.testing.assert_allclose(row, plain_embedding(model, [BEGIN, *title]), atol=1e-4)
    assert (title_table(model, CATALOGUE, trie, tmp_path).embedding_NH == table.embedding_NH).all()
    assert (title_table(model, CATALOGUE, trie, tmp_path).embedding_NH == table.embedding_NH).all()  # from the cache


def passes(model: LanguageModel, catalogue: object, trie: object, cache: Path) -> tuple[int, np.ndarray]:
    """How many passes of the model it took to get the table, and the table."""
    calls: list[None] = []
    hook = model.decoder.register_forward_hook(lambda *_: calls.append(None))
    try:
        table = title_table(model, catalogue, trie, cache)  # type: ignore[arg-type]
    finally:
        hook.remove()
    return len(calls), np.array(table.embedding_NH)


def test_the_cache_is_used_where_it_fits_and_computed_anew_where_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, cache = tiny_model("llama", seed=3), tmp_path / "new" / "folder"
    trie = prompter_of(model).trie
    assert passes(model, CATALOGUE, trie, cache)[0] == 1
    assert passes(model, CATALOGUE, trie, cache)[0] == 0
    assert not caplog.records

    other = tiny_model("llama", seed=4)
    count, table = passes(other, CATALOGUE, trie, cache)
    assert count == 1 and "another model or catalogue" in caplog.text
    assert (table == title_table(other, CATALOGUE, trie).embedding_NH).all()

    renamed = tiny_catalogue([*TITLES[:-1], (11,)], POPULARITY)
    more = Prompter(renamed, other.tokenizer, PLAIN, context=64)
    assert passes(other, renamed, more.trie, cache)[1].shape == (6, 16)
    assert passes(other, renamed, more.trie, cache)[0] == 0


@pytest.mark.parametrize("damage", ["no key", "no table", "torn table", "torn key", "other shape"])
def test_a_cache_that_is_not_whole_is_computed_anew(damage: str, model: LanguageModel, tmp_path: Path) -> None:
    trie = prompter_of(model).trie
    _, table = passes(model, CATALOGUE, trie, tmp_path)
    if damage == "no key":  # killed between the two files
        (tmp_path / grounding.KEY).unlink()
    elif damage == "no table":
        (tmp_path / grounding.TABLE).unlink()
    elif damage == "torn key":
        (tmp_path / grounding.KEY).write_text("{")
    elif damage == "torn table":
        whole = (tmp_path / grounding.TABLE).read_bytes()
        (tmp_path / grounding.TABLE).write_bytes(whole[:-8])
    else:
        np.save(tmp_path / grounding.TABLE, table[:-1])
    count, again = passes(model, CATALOGUE, trie, tmp_path)
    assert count == 1 and (again == table).all()
    assert passes(model, CATALOGUE, trie, tmp_path)[0] == 0


def test_a_kill_while_the_table_is_made_leaves_no_key(model: LanguageModel, tmp_path: Path) -> None:
    trie = prompter_of(model).trie
    title_table(tiny_model("llama", seed=4), CATALOGUE, trie, tmp_path)
    with mock.patch.object(grounding, "_embed", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        title_table(model, CATALOGUE, trie, tmp_path)
    assert not (tmp_path / grounding.KEY).exists()
    assert [path.name for path in tmp_path.iterdir()] == [grounding.TABLE]


def distances(embedder: LanguageModel, text: str, items: list[int]) -> dict[int, float]:
    """From the embedding of a text to those of the items' titles, each computed on its own."""
    text_H = plain_embedding(embedder, [BEGIN, *(int(word[1:]) for word in text.split())])
    return {item: float((plain_embedding(embedder, [BEGIN, *TITLES[item]]) - text_H).norm()) for item in items}


def free_texts(model: LanguageModel, prompter: Prompter) -> list[str]:
    prompts = [prompter.prompt(history) for history in HISTORIES]
    texts = [""] * len(prompts)
    for numbers, found in generate_in_batches(model, prompts, beams=2, most_tokens=int(prompter.trie.depth.max())):
        for number, rows in zip(numbers, found.texts(model.tokenizer), strict=True):
            texts[number] = rows[0]
    return texts


@pytest.mark.parametrize("exclude_history", [False, True])
def test_items_are_ranked_by_the_distance_of_their_titles(model: LanguageModel, exclude_history: bool) -> None:
    embedder = tiny_model("qwen2", seed=1)
    prompter = prompter_of(model)
    table = title_table(embedder, CATALOGUE, prompter.trie)
    decoder = GroundedGeneration(
        model, prompter, embedder, table, beams=2, exclude_history=exclude_history, batch_size=2
    )  # fmt: skip
    items_WK, scores_WK = decoder.recommend_all(HISTORIES, 8)
    for row, (history, text) in enumerate(zip(HISTORIES, free_texts(model, prompter), strict=True)):
        left = sorted(set(range(len(TITLES))) - (set(history) if exclude_history else set()))
        distance = distances(embedder, text, left)
        order = sorted(left, key=lambda item: (round(distance[item], 4), -POPULARITY[item], item))
        missing = 8 - len(left)
        assert items_WK[row].tolist() == order + [-1] * missing
        expected = [-distance[item] for item in order] + [-np.inf] * missing
        np.testing.assert_allclose(scores_WK[row], expected, atol=1e-4)
    short, _ = decoder.recommend_all(HISTORIES, 2)
    assert (short == items_WK[:, :2]).all()


def test_what_the_template_puts_around_an_answer_is_taken_away(model: LanguageModel) -> None:
    """A model that always writes the template's `w18 w5 w6 w19` has written the title w5 w6."""
    framed = Template(name="framed", item="w22 {title}", separator=" w23", answer="w18 {title} w19")
    prompter = prompter_of(model, framed)
    decoder = GroundedGeneration(model, prompter, model, title_table(model, CATALOGUE, prompter.trie))
    written = np.array([[[18, 5, 6, 19, END]]])
    answer = grounding_answer(written)
    with mock.patch("catalign.decoding.grounded_generation.generate_in_batches", answer):
        items_WK, scores_WK = decoder.recommend_all([[1]], 4)
    assert items_WK[0, :3].tolist() == [3, 0, 6]  # the most popular of those that share the title first
    np.testing.assert_allclose(scores_WK[0, :3], 0, atol=1e-3)
    assert scores_WK[0, 3] < -0.1


def grounding_answer(token_BWL: np.ndarray):  # type: ignore[no-untyped-def]
    """Stands where the generation stands and always writes the same."""
    from catalign.decoding.generation import GeneratedTexts

    def generate(_: object, prompts: list[object], **__: object):  # type: ignore[no-untyped-def]
        scores = np.zeros(token_BWL.shape[:2], dtype=np.float32)
        yield np.arange(len(prompts)), GeneratedTexts(token_BWL.repeat(len(prompts), 0), scores.repeat(len(prompts), 0))

    return generate


def test_an_empty_answer_is_grounded_by_the_end_token(model: LanguageModel) -> None:
    prompter = prompter_of(model)
    table = title_table(model, CATALOGUE, prompter.trie)
    decoder = GroundedGeneration(model, prompter, model, table)
    with mock.patch("catalign.decoding.grounded_generation.generate_in_batches", grounding_answer(np.array([[[END]]]))):
        items_WK, scores_WK = decoder.recommend_all(HISTORIES, 3)
    end_H = plain_embedding(model, [BEGIN, END])
    nearest, distances = table.nearest(end_H[None], 1)
    assert (table.item_title_I[items_WK[:, 0]] == nearest[0, 0]).all()
    np.testing.assert_allclose(-scores_WK[:, 0], np.full(len(HISTORIES), distances[0, 0]), rtol=1e-4)


def test_no_histories(model: LanguageModel) -> None:
    prompter = prompter_of(model)
    decoder = GroundedGeneration(model, prompter, model, title_table(model, CATALOGUE, prompter.trie))
    items, scores = decoder.recommend_all([], 5)
    assert items.shape == scores.shape == (0, 5)
    assert decoder.settings == {
        "decoder": "grounding", "beams": 4, "length_penalty": 1.0, "exclude_history": False,
    }  # fmt: skip

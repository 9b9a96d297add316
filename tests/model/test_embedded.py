"""The embedded model's tokenizer, sizes and folder."""

import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from catalign.catalogue import Catalogue
from catalign.errors import UserError
from catalign.model.embedded import BYTES, PRESETS, build_model, build_tokenizer, init_embedded

LONG = "".join(random.Random(1).choices("bcdfghjklmnpqrstvwxz", k=19))  # 20 tokens: no pair of letters occurs twice
TITLES = [
    f"{kind} of {place} {number}" for kind in ("Castle", "Tower") for place in ("Rome", "Ürgüp") for number in range(9)
]
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
odd_text = st.one_of(
    any_text,
    st.lists(
        st.sampled_from(
            ["Castle", " ", "  ", "<end>", "<begin>", "'s", "é", "e\u0301", "日本", "🎲", "\n", "\x00", "."]
        )
    ).map("".join),
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(TITLES, vocabulary=400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("embedded") / "model"
    init_embedded(TITLES, "tiny", 3, path)
    return path


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def tokens_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    tokens: list[str] = tokenizer.convert_ids_to_tokens(encode(tokenizer, text))
    return tokens


@given(text=odd_text)
def test_any_text_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = encode(tokenizer, text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & {0, 1, 2}  # a special token's text is text


@given(text=odd_text)
def test_a_closed_title_comes_back_without_its_special_tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = [tokenizer.bos_token_id, *encode(tokenizer, text), tokenizer.eos_token_id]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_first_word_is_the_token_that_it_is_inside_a_title(tokenizer: PreTrainedTokenizerFast) -> None:
    (castle,) = encode(tokenizer, "Castle")
    assert encode(tokenizer, "Castle of Rome")[0] == castle
    assert encode(tokenizer, "Rome Castle")[-1] == castle


def test_no_token_crosses_a_word_boundary() -> None:
    tokenizer = build_tokenizer(["Castle of Rome"] * 50, vocabulary=2_000)
    assert len(encode(tokenizer, "Castle of Rome")) == 3


def test_with_phrases_what_titles_have_in_common_is_one_token() -> None:
    titles = [f"{letter}{letter} - Castle of Rome" for letter in "abcdefgh"]
    assert tokens_of(build_tokenizer(titles, vocabulary=2_000, phrases=True), titles[0])[-1] == "Ġ-ĠCastleĠofĠRome"


def test_of_a_large_catalogue_evenly_spaced_titles_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalign.model.embedded.TITLES_READ", 10)
    tokenizer = build_tokenizer(["ab cd", "wx yz"] * 10, vocabulary=2_000, phrases=True)
    assert tokens_of(tokenizer, "ab cd") == ["ĠabĠcd"]
    assert len(encode(tokenizer, "wx yz")) == len(" wx yz")


def test_the_same_titles_give_the_same_tokenizer() -> None:
    letters = random.Random(0)
    titles = [" ".join("".join(letters.choices("abcde", k=4)) for _ in range(4)) for _ in range(500)]
    first = build_tokenizer(titles, 1_000).backend_tokenizer.to_str()
    assert build_tokenizer(titles, 1_000).backend_tokenizer.to_str() == first
    assert build_tokenizer(titles[::-1], 1_000).backend_tokenizer.to_str() == first


def test_special_tokens_have_fixed_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
    assert len(tokenizer) <= 400


@pytest.mark.parametrize(
    ("preset", "low", "high"), [("tiny", 0.4e6, 0.7e6), ("small", 3.5e6, 5e6), ("base", 27e6, 33e6)]
)
def test_presets_have_the_sizes_they_promise(preset: str, low: float, high: float) -> None:
    with torch.device("meta"):
        model = build_model(preset, PRESETS[preset].vocabulary, seed=0)
    assert low < model.num_parameters() < high
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_weights_follow_the_seed_and_leave_the_callers_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (build_model("tiny", 300, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    states = [model.state_dict()["model.layers.0.mlp.up_proj.weight"] for model in (one, same, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_the_folder_loads_with_plain_hugging_face_classes(folder: Path) -> None:
    loaded = AutoTokenizer.from_pretrained(folder)
    built = build_tokenizer(TITLES, PRESETS["tiny"].vocabulary)
    for title in [*TITLES, "  an odd one <end>", "日本 🎲"]:
        assert encode(loaded, title) == encode(built, title)
        assert loaded.decode(encode(loaded, title)) == title
    assert loaded.model_max_length == 1_024
    model = AutoModelForCausalLM.from_pretrained(folder)
    expected = build_model("tiny", len(built), seed=3)
    for name, weight in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert model.dtype == torch.float32
    assert model.config.max_position_embeddings == 1_024
    assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (0, 1, 2)


def test_sampling_is_off_in_what_is_written(folder: Path) -> None:
    assert json.loads((folder / "generation_config.json").read_text())["do_sample"] is False


def test_the_tokenizer_makes_a_trie_of_the_catalogue(tokenizer: PreTrainedTokenizerFast) -> None:
    catalogue = Catalogue.from_lists(map(str, range(len(TITLES))), TITLES)
    trie = catalogue.build_trie(lambda titles: [encode(tokenizer, title) for title in titles], tokenizer.eos_token_id)
    nodes, offsets = trie.paths(range(len(TITLES)))
    for item, title in enumerate(TITLES):
        path = trie.token[nodes[offsets[item] : offsets[item + 1]]]
        assert tokenizer.decode(path, skip_special_tokens=True) == title


def test_a_title_longer_than_the_context_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"item 1: the title .* has 22 tokens, more than the model's context of 21"):
        init_embedded(["a", LONG], "tiny", 0, tmp_path / "model", context=21)
    assert not list(tmp_path.iterdir())
    init_embedded(["a", LONG], "tiny", 0, tmp_path / "model", context=22)


def test_mistakes_are_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match="no such preset: huge; use tiny, small, base"):
        init_embedded(TITLES, "huge", 0, tmp_path / "model")
    with pytest.raises(UserError, match="no titles"):
        init_embedded([], "tiny", 0, tmp_path / "model")
    with pytest.raises(UserError, match="cannot hold the 256 bytes"):
        build_tokenizer(TITLES, BYTES)
    with pytest.raises(UserError, match="already exists"):
        init_embedded(TITLES, "tiny", 0, folder)


@settings(max_examples=20)
@given(st.lists(any_text, min_size=1, max_size=6))
def test_any_titles_make_a_tokenizer(titles: list[str]) -> None:
    tokenizer = build_tokenizer(titles, 300)
    assert [tokenizer.decode(encode(tokenizer, title)) for title in titles] == titles

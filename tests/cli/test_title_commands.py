"""Title strategies as a user types them, and what `data inspect` says of the trie."""

import json
from pathlib import Path

import pytest

from catalign.cli.title_shapes import trie_shape
from catalign.data.dataset import load_dataset
from catalign.model.embedded import build_tokenizer
from conftest import SHARED
from toy import mistake, works

LOG = "\n".join(["user,item,time", *(f"u{n % 7},{n % 5},{1_600_000_000 + n}" for n in range(60))])
ITEMS = """item,title,maker,year
0,Quiet Lamp (warm light),Lumen,2001
1,Quiet Lamp (cold light),Lumen,2004
2,Quiet Kettle,,2004
3,Loud Kettle of the North,Boil &amp; Co,2005
4,Scarf,Wool,
9,Never sold,Wool,
"""
GIFT_CARDS = SHARED / "data" / "amazon_raw" / "2018"


@pytest.fixture
def options(tmp_path: Path) -> list[object]:
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "items.csv").write_text(ITEMS)
    tables = ["--interactions", tmp_path / "log.csv", "--items", tmp_path / "items.csv", "--user", "user"]
    columns = ["--item", "item", "--time", "time", "--title", "title", "--metadata", "maker", "--metadata", "year"]
    return ["data", "prepare", *tables, *columns, "--output", tmp_path / "ds"]


def titles(folder: Path) -> list[str]:
    return load_dataset(folder / "ds").items["title"].to_list()


def test_a_format_a_length_and_marks_go_together(tmp_path: Path, options: list[object]) -> None:
    how = ["--title-format", "{title}[ by {maker}]", "--title-words", 2, "--duplicate-titles", "distinguish"]
    works(*options, *how)
    assert titles(tmp_path) == ["Quiet Lamp (2001)", "Quiet Lamp (2004)", "Quiet Kettle", "Loud Kettle", "Scarf by"]
    card = load_dataset(tmp_path / "ds").card
    assert (card.titles.alone, card.titles.shortened, card.titles.distinguished) == (0, 5, {"year": 2})
    assert {key: card.options[key] for key in ("title_format", "title_words", "duplicate_titles")} == {
        "title_format": "{title}[ by {maker}]", "title_words": 2, "duplicate_titles": "distinguish",
    }  # fmt: skip
    assert "5 shortened, 2 told apart by year" in " ".join(works("data", "inspect", tmp_path / "ds").split())


def test_items_without_the_metadata_keep_their_title(tmp_path: Path, options: list[object]) -> None:
    works(*options, "--title-format", "{title} by {maker}")
    assert titles(tmp_path)[2:] == ["Quiet Kettle", "Loud Kettle of the North by Boil & Co", "Scarf by Wool"]
    assert load_dataset(tmp_path / "ds").card.titles.alone == 1


def test_titles_are_cut_by_a_tokenizer(tmp_path: Path, options: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    build_tokenizer(["Quiet Lamp", "Quiet Kettle", "Lamp Kettle"], 300).save_pretrained(tmp_path / "tokenizer")
    monkeypatch.chdir(tmp_path)
    works(*options, "--title-tokens", 12, "--tokenizer", "tokenizer")
    assert load_dataset(tmp_path / "ds").card.options["tokenizer"] == str((tmp_path / "tokenizer").resolve())
    assert titles(tmp_path)[2] == "Quiet Kettle"
    assert "North" not in titles(tmp_path)[3]


def test_mistakes_are_told_in_one_line(tmp_path: Path, options: list[object]) -> None:
    assert "--title-tokens and --tokenizer go together" in mistake(*options, "--title-tokens", 3)
    assert "two measures" in mistake(*options, "--title-tokens", 3, "--tokenizer", "x", "--title-words", 3)
    assert "no field 'brand'; choose from item_id, title, maker, year" in mistake(
        *options, "--title-format", "{title} by {brand}"
    )
    assert "has no partner" in mistake(*options, "--title-format", "{title")
    assert "cannot be loaded as a tokenizer" in mistake(*options, "--title-tokens", 3, "--tokenizer", "no/such-model")
    assert not (tmp_path / "ds").exists()
    works(*options)
    assert "holds no tokenizer" in mistake("data", "inspect", tmp_path / "ds", "--tokenizer", tmp_path)


def test_inspect_shows_the_trie(tmp_path: Path, options: list[object]) -> None:
    works(*options)
    build_tokenizer(titles(tmp_path), 300).save_pretrained(tmp_path / "tokenizer")
    inspected = json.loads(works("data", "inspect", tmp_path / "ds", "--tokenizer", tmp_path / "tokenizer", "--json"))
    assert list(inspected["tries"]) == ["as they are"]
    assert inspected["tries"]["as they are"]["first_choices"] == 3  # quiet, loud, scarf
    assert inspected["tries"]["as they are"]["titles"] == 5
    compared = json.loads(works("data", "inspect", tmp_path / "ds", "--titles", "--json"))["tries"]
    assert list(compared) == ["as they are", "with maker", "with year", "8 words", "4 words", "told apart"]
    assert compared["4 words"]["mean_length"] < compared["as they are"]["mean_length"]
    shown = works("data", "inspect", tmp_path / "ds", "--titles")
    assert all(word in shown for word in ("trie of the titles", "with maker", "told apart", "shared"))


def test_the_shape_counts_what_shares_a_leaf() -> None:
    shape = trie_shape(["red lamp", "red lamp", "red kettle"], None)
    assert (shape.items, shape.titles, shape.shared_leaves, shape.first_choices) == (3, 2, 1, 1)


@pytest.mark.realdata
def test_the_gift_cards_that_share_a_title_are_told_apart(tmp_path: Path) -> None:
    if not GIFT_CARDS.exists():
        pytest.skip("../shared/data is not beside the project")
    log, items = GIFT_CARDS / "Gift_Cards_5.json.gz", GIFT_CARDS / "meta_Gift_Cards.json.gz"
    works(
        "data", "prepare", "--interactions", log, "--items", items, "--user", "reviewerID", "--item", "asin",
        "--time", "unixReviewTime", "--title", "title", "--metadata", "brand", "--metadata", "price",
        "--duplicate-titles", "distinguish", "--output", tmp_path / "ds",
    )  # fmt: skip
    dataset = load_dataset(tmp_path / "ds")
    assert dataset.items["title"].n_unique() == dataset.items.height == 148
    assert sum(dataset.card.titles.distinguished.values()) == 2
    assert dataset.card.titles.items_sharing == 0

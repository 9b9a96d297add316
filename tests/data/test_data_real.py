"""Real files: counts that were counted otherwise, and the rows that real files break."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from catalign.data.cleaning import as_milliseconds
from catalign.data.dataset import Dataset
from catalign.data.fewshot import read_fewshot
from catalign.data.layouts import recognise, table_source
from catalign.data.ledger import Ledger
from catalign.data.options import FewshotOptions, TableOptions, TableSource, WindowOptions
from catalign.data.prepare import prepare_tables, prepare_windows
from catalign.data.tables import read_table
from catalign.errors import UserError
from conftest import SHARED

DATA = SHARED / "data"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not beside the project"),
]


def published(name: str, output: Path, **options: Any) -> Dataset:
    train_file = options.pop("train_file", None)
    layout = recognise(DATA / name)
    return prepare_windows(DATA / name, layout, WindowOptions(**options), output, train_file=train_file)


def window_counts(dataset: Dataset) -> list[int]:
    return [dataset.windows(split).height for split in ("train", "valid", "test")]


def test_video_games(tmp_path: Path) -> None:
    dataset = published("amazon_video_games", tmp_path / "ds")
    assert dataset.card.items == 3_858
    assert window_counts(dataset) == [49_133, 6_142, 6_142]
    assert (dataset.card.titles.items_sharing, dataset.card.titles.titles_shared) == (99, 47)
    assert dataset.card.dropped == {}
    test = dataset.windows("test")
    targets = test["target"].to_numpy()
    assert (dataset.training_counts()[targets] == 0).sum() == 390  # in no training window, 6.3 %
    never_a_target = ~test["target"].is_in(dataset.windows("train")["target"].unique().implode())
    assert never_a_target.sum() == 394  # 6.4 %
    assert round(test.select(pl.col("history").list.contains(pl.col("target")).mean()).item(), 3) == 0.028
    raw = pl.read_csv(DATA / "amazon_video_games" / "test.csv", infer_schema=False)
    assert test["target"].cast(pl.String).to_list() == raw["item_id"].to_list()  # in this set index and id agree
    histories = test.select(pl.format("[{}]", pl.col("history").cast(pl.List(pl.String)).list.join(", ")))
    assert histories.to_series().to_list() == raw["history_item_id"].to_list()
    assert test["user_id"].to_list() == raw["user_id"].to_list()


def test_books(tmp_path: Path) -> None:
    dataset = published("amazon_books", tmp_path / "ds")
    assert dataset.card.rows_in == {"items": 6_344, "windows": 35_060 + 4_383}
    assert dataset.card.rows_kept["items"] == dataset.items.height == 6_343
    assert dataset.card.titles.missing == 1
    train, valid, test = window_counts(dataset)
    assert train + valid + test == dataset.card.rows_kept["windows"]
    assert test == 4_383
    assert dataset.windows("train")["timestamp"].max() < dataset.windows("valid")["timestamp"].min()  # type: ignore[operator]
    published_training = dataset.interactions.filter(pl.col("split") != "test")["item"].to_numpy()
    targets = dataset.windows("test")["target"].to_numpy()
    cold = np.bincount(published_training, minlength=6_343)[targets] == 0
    assert round(cold.mean(), 2) == 0.64
    assert np.unique(targets[cold]).size == 213  # releases of the last months


def test_books_with_an_id_for_the_empty_title_and_the_smaller_training_table(tmp_path: Path) -> None:
    dataset = published("amazon_books", tmp_path / "ds", missing_titles="id", train_file="train_10000.csv")
    assert dataset.items.row(5_745) == ("5746", "5746")
    train, valid, test = window_counts(dataset)
    assert (train + valid, test) == (10_000, 4_383)


def test_toys(tmp_path: Path) -> None:
    dataset = published("amazon_toys", tmp_path / "ds")
    assert dataset.items.height == 11_758
    train, valid, test = window_counts(dataset)
    assert (train + valid, test) == (83_958, 4_794)
    assert (dataset.card.titles.items_sharing, dataset.card.titles.titles_shared) == (120, 57)
    assert dataset.items["title"].str.contains("&amp;|&quot;").sum() == 0
    assert dataset.card.titles.changed > 0.14 * 11_758
    assert dataset.items["title"].str.len_chars().to_numpy().max() > 500  # long titles are not cut
    assert "no timestamps" in dataset.card.warnings[0]


def test_movielens(tmp_path: Path) -> None:
    dataset = prepare_tables(
        table_source(DATA / "movielens_latest_small", "movielens"), TableOptions(), tmp_path / "ds"
    )
    assert (dataset.card.users, dataset.card.items) == (610, 9_724)
    assert dataset.card.rows_in["interactions"] == 100_836
    assert dataset.card.dropped["interactions"] == {"timestamp is neither a number nor ISO 8601": 1}  # row 522
    shares = np.array(window_counts(dataset)) / sum(window_counts(dataset))
    assert np.abs(shares - [0.8, 0.1, 0.1]).max() < 0.001


def amazon(release: str, name: str | None = None) -> TableSource:
    assert recognise(DATA / "amazon_raw" / release) == "amazon"
    return table_source(DATA / "amazon_raw" / release, "amazon", name=name)


def amazon_2018(name: str) -> TableSource:
    return amazon("2018", name)


def test_the_categories_of_a_folder_are_told() -> None:
    with pytest.raises(UserError, match=r"--name \(gift_cards_5, magazine_subscriptions_5\)"):
        amazon("2018")
    with pytest.raises(UserError, match=r"holds several sets; pass .*2014 \(amazon\) or .*2018 \(amazon\)"):
        recognise(DATA / "amazon_raw")


def test_gift_cards(tmp_path: Path) -> None:
    dataset = prepare_tables(amazon_2018("Gift_Cards"), TableOptions(), tmp_path / "kept")
    assert dataset.card.rows_in["interactions"] == dataset.card.interactions == 2_972
    assert dataset.items.columns == ["item_id", "title", "brand", "main_cat", "category", "price"]
    assert dataset.items["title"].str.contains(r"^\s|\s$").sum() == 0
    once = prepare_tables(amazon_2018("Gift_Cards"), TableOptions(duplicates="first"), tmp_path / "once")
    pairs = dataset.interactions.select("user_id", "item")
    assert once.card.interactions == pairs.n_unique() == pairs.height - 7
    raw = read_table(amazon_2018("Gift_Cards").items, {"title": "title"}, table_name="items", ledger=Ledger())["title"]
    assert raw.str.contains(r"^\s|\s$").sum() > 1_000


def test_magazines_have_tags_for_titles_and_lack_items(tmp_path: Path) -> None:
    source = amazon_2018("Magazine_Subscriptions")
    dataset = prepare_tables(source, TableOptions(missing_titles="id"), tmp_path / "ds")
    assert dataset.card.rows_in == {"items": 3_385, "interactions": 2_375}
    assert dataset.card.dropped["items"]["repeated item id"] == 3_385 - 2_320
    assert dataset.items.height == 157 - 6
    assert dataset.items["title"].str.contains("<span").sum() == 0
    assert (dataset.items["title"] == dataset.items["item_id"]).sum() >= 140


def test_metadata_of_2014_are_python_literals() -> None:
    ledger = Ledger()
    source = amazon("2014")
    items = read_table(source.items, {"item_id": "asin", "title": "title"}, table_name="items", ledger=ledger)
    columns = {"user": source.user, "item": source.item, "time": "unixReviewTime", "rating": "overall"}
    assert read_table(source.interactions, columns, table_name="log", ledger=ledger).drop_nulls().height == 50
    assert ledger.dropped == {}
    assert items["item_id"].str.len_chars().unique().to_list() == [10]
    assert "Nursery Rhymes Felt Book" in items["title"].to_list()


def test_reviews_of_2023_have_milliseconds(tmp_path: Path) -> None:
    dataset = prepare_tables(amazon("2023_reformatted"), TableOptions(), tmp_path / "ds")
    assert dataset.card.rows_in["interactions"] == 2_764
    assert dataset.interactions["timestamp"].is_between(900_000_000_000, 1_700_000_000_000).all()
    sample = amazon("2023")
    assert (sample.item, sample.item_id, sample.time) == ("parent_asin", "parent_asin", "timestamp")
    times = read_table(sample.interactions, {"time": "timestamp"}, table_name="log", ledger=Ledger())["time"]
    assert as_milliseconds(times).to_list() == [1_523_090_000_000, 1_588_687_728_923]  # the first is 1.52309e+12


def test_movielens_titles_are_utf_8_here_and_would_be_read_in_latin_1_too(tmp_path: Path) -> None:
    published = DATA / "movielens_latest_small"
    names = {"title": "title"}
    titles = read_table(table_source(published, "movielens").items, names, table_name="items", ledger=Ledger())["title"]
    assert titles.str.contains("é").sum() > 50
    (tmp_path / "ratings.csv").symlink_to(published / "ratings.csv")
    kept = titles.str.contains(r"^[\x00-\xff]*$")
    text = (published / "movies.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    lines = [line for line, fits in zip(text[1:], kept, strict=True) if fits]
    (tmp_path / "movies.csv").write_text("".join([text[0], *lines]), encoding="latin-1")
    again = read_table(table_source(tmp_path, "movielens").items, names, table_name="items", ledger=Ledger())["title"]
    assert again.to_list() == titles.filter(kept).to_list()


@pytest.mark.parametrize("domain", ["Game", "Movie"])
def test_the_few_shot_files_of_one_negative_hold_other_users(tmp_path: Path, domain: str) -> None:
    stem = f"rec_Amazon_{domain}"
    for name, role in (("sft_ranking", "sft"), ("eval_ranking", "eval"), ("dpo_ranking_1", "dpo_ranking_5")):
        target = name if role in ("sft", "eval") else role
        (tmp_path / f"{stem}_{target}.json").symlink_to(DATA / "dmpo" / f"{stem}_{name}.json")
    options = FewshotOptions(domain="games" if domain == "Game" else "movies")
    with pytest.raises(UserError, match="holds users that the SFT file lacks"):
        read_fewshot(tmp_path, options, Ledger())
    if domain == "Movie":  # the old file nests
        path = tmp_path / f"{stem}_dpo_ranking_5.json"
        path.unlink()
        path.symlink_to(DATA / "dmpo" / f"{stem}_dpo_ranking_1_old.json")
        assert read_fewshot(tmp_path, options, Ledger()).windows.filter(pl.col("split") == "train").height == 100


def test_years_of_the_few_shot_movies_stand_in_evaluation_titles_only() -> None:
    year = re.compile(r"\((?:19|20)\d\d\)$")
    found = {}
    for part in ("sft", "eval"):
        rows = json.loads((DATA / "dmpo" / f"rec_data_ml_1m_{part}_ranking.json").read_text())
        titles = {title for row in rows for title in re.findall(r"<Title:(.*?)> ", row["instruction"])}
        found[part] = {bool(year.search(title)) for title in titles}
        assert all(isinstance(row["output"], str) for row in rows)  # where others have a pair
    assert found == {"sft": {False}, "eval": {True}}
    settled = read_fewshot(DATA / "dmpo", FewshotOptions(domain="ml-1m"), Ledger()).table.frame["title"]
    assert not settled.str.contains(r"\((19|20)\d\d\)$").any()

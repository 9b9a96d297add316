"""Real files: counts that were counted otherwise, and the rows that real files break."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from catalign.data.dataset import Dataset
from catalign.data.layouts import recognise, table_source
from catalign.data.ledger import Ledger
from catalign.data.options import Table, TableOptions, TableSource, WindowOptions
from catalign.data.prepare import prepare_tables, prepare_windows
from catalign.data.tables import read_table
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
    cold = (np.bincount(published_training, minlength=6_343)[dataset.windows("test")["target"].to_numpy()] == 0).mean()
    assert round(cold, 2) == 0.64


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


def amazon_2018(name: str) -> TableSource:
    folder = DATA / "amazon_raw" / "2018"
    return TableSource(
        interactions=folder / f"{name}_5.json.gz", user="reviewerID", item="asin", time="unixReviewTime",
        rating="overall", items=folder / f"meta_{name}.json.gz", item_id="asin", title="title", metadata=["brand"],
    )  # fmt: skip


def test_gift_cards(tmp_path: Path) -> None:
    dataset = prepare_tables(amazon_2018("Gift_Cards"), TableOptions(), tmp_path / "kept")
    assert dataset.card.rows_in["interactions"] == dataset.card.interactions == 2_972
    assert dataset.items.columns == ["item_id", "title", "brand"]
    assert dataset.items["title"].str.contains(r"^\s|\s$").sum() == 0
    once = prepare_tables(amazon_2018("Gift_Cards"), TableOptions(duplicates="first"), tmp_path / "once")
    pairs = dataset.interactions.select("user_id", "item")
    assert once.card.interactions == pairs.n_unique() < pairs.height


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
    columns = {"item_id": "asin", "title": "title"}
    path = DATA / "amazon_raw" / "2014" / "meta_2014_pyliteral_sample.json"
    items = read_table(Table.of(path), columns, table_name="items", ledger=ledger)
    assert ledger.dropped == {}
    assert items["item_id"].str.len_chars().unique().to_list() == [10]
    assert "Nursery Rhymes Felt Book" in items["title"].to_list()


def test_reviews_of_2023_have_milliseconds(tmp_path: Path) -> None:
    folder = DATA / "amazon_raw" / "2023_reformatted"
    source = TableSource(
        interactions=folder / "reviews.jsonl", user="user_id", item="parent_asin", time="timestamp", rating="rating",
        items=folder / "meta.jsonl", item_id="parent_asin", title="title",
    )  # fmt: skip
    dataset = prepare_tables(source, TableOptions(), tmp_path / "ds")
    assert dataset.card.rows_in["interactions"] == 2_764
    assert dataset.interactions["timestamp"].is_between(900_000_000_000, 1_700_000_000_000).all()

"""Opening a dataset folder."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from catalign.data.dataset import Dataset, load_dataset
from catalign.data.layouts import table_source
from catalign.data.options import TableOptions
from catalign.data.prepare import prepare_tables
from catalign.data.store import write_store
from catalign.errors import UserError


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_store(tmp_path / "shop", users=60, items=80)
    return prepare_tables(table_source(tmp_path / "shop", "shop"), TableOptions(), tmp_path / "ds")


def test_a_dataset_reads_back(dataset: Dataset) -> None:
    again = load_dataset(dataset.folder)
    assert again.card == dataset.card
    assert again.items.equals(dataset.items)
    assert again.training_counts().sum() == again.card.splits["train"].interactions


def test_what_is_counted_in_a_stream_is_what_the_tables_hold(dataset: Dataset) -> None:
    training = dataset.interactions.filter(pl.col("split") == "train")["item"].to_numpy()
    assert dataset.training_counts().tolist() == np.bincount(training, minlength=dataset.items.height).tolist()
    assert dataset.scan_windows("test").collect().equals(dataset.windows("test"))


def test_an_unknown_split_is_told(dataset: Dataset) -> None:
    for read in (dataset.windows, dataset.scan_windows):
        with pytest.raises(UserError, match="there is no split 'dev'; choose from train, valid, test"):
            read("dev")


def test_other_folders_are_told(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"is not a dataset folder .*make one with catalign data prepare"):
        load_dataset(tmp_path)
    card = dataset.folder / "dataset.json"
    for content, message in (
        ("{", "is not JSON"),
        ("{}", "is not the card of a dataset"),
        ("[]", "is not the card of a dataset"),
        (json.dumps(json.loads(card.read_text()) | {"format": 2}), "is not the card of a dataset .format"),
    ):
        card.write_text(content)
        with pytest.raises(UserError, match=message):
            load_dataset(dataset.folder)


def test_a_missing_or_damaged_table_is_told(dataset: Dataset) -> None:
    (dataset.folder / "items.parquet").write_bytes(b"PAR1")
    (dataset.folder / "windows" / "test.parquet").unlink()
    (dataset.folder / "interactions.parquet").unlink()
    again = load_dataset(dataset.folder)
    with pytest.raises(UserError, match=r"items\.parquet is missing or damaged"):
        _ = again.items
    for read in (again.windows, again.scan_windows):
        with pytest.raises(UserError, match=r"windows/test\.parquet is missing or damaged"):
            read("test")
    with pytest.raises(UserError, match=r"interactions\.parquet is missing or damaged"):
        again.training_counts()

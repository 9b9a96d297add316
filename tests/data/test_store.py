"""The sample store: seeded, of any size, with something to learn from titles."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from catalign.data.layouts import table_source
from catalign.data.options import TableOptions
from catalign.data.prepare import prepare_tables
from catalign.data.store import write_store
from catalign.errors import UserError


def read(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    items = pl.read_csv(folder / "items.csv", infer_schema=False)
    return items, pl.read_csv(folder / "interactions.csv", infer_schema=False)


def test_the_tables_hold_what_was_asked_for(tmp_path: Path) -> None:
    items_made, interactions_made = write_store(tmp_path / "shop", users=300, items=200, seed=1)
    items, log = read(tmp_path / "shop")
    assert items.columns == ["item_id", "title", "department", "price"]
    assert log.columns == ["user_id", "item_id", "timestamp", "rating"]
    assert (items.height, log.height) == (items_made, interactions_made) == (200, log.height)
    assert items["item_id"].n_unique() == items["title"].n_unique() == 200
    assert log["user_id"].n_unique() == 300
    assert log["item_id"].is_in(items["item_id"].implode()).all()
    assert log["timestamp"].is_sorted()
    assert log.select("user_id", "item_id").is_duplicated().sum() == 0
    assert "seed 1" in (tmp_path / "shop" / "README.md").read_text()


def test_the_seed_decides(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_store(tmp_path / name, users=50, items=60, seed=seed)
    contents = [(tmp_path / name / "interactions.csv").read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize(("users", "items"), [(10, 50), (20, 51), (40, 7_001)])
def test_any_size_has_distinct_titles(tmp_path: Path, users: int, items: int) -> None:
    write_store(tmp_path / "shop", users=users, items=items)
    catalogue, _ = read(tmp_path / "shop")
    assert catalogue["title"].n_unique() == catalogue.height == items


def test_titles_tell_what_comes_next_also_for_cold_items(tmp_path: Path) -> None:
    """Guessing the next volume of a series in the history beats popularity by far, on warm and on cold targets."""
    write_store(tmp_path / "shop")
    dataset = prepare_tables(table_source(tmp_path / "shop", "shop"), TableOptions(), tmp_path / "ds")
    titles = dataset.items["title"].to_list()
    index = {title: item for item, title in enumerate(titles)}

    def following(item: int) -> int | None:
        """The item of the same series with the next number."""
        parts = re.fullmatch(r"(The .+, \w+ |.+ )(\d+)( - .+)?", titles[item])
        return parts and index.get(f"{parts[1]}{int(parts[2]) + 1}{parts[3] or ''}")

    counts = dataset.training_counts()
    windows = dataset.windows("test")
    target = windows["target"].to_numpy()
    guesses = [{following(item) for item in history} - set(history) for history in windows["history"].to_list()]
    hit = np.array([item in guess for item, guess in zip(target.tolist(), guesses, strict=True)])
    cold = counts[target] == 0
    popular = np.isin(target, np.argsort(-counts)[:10])
    assert 0.15 < cold.mean() < 0.4
    assert hit[cold].mean() > 0.3  # popularity and item-kNN: 0
    assert hit[~cold].mean() > 2 * popular[~cold].mean()
    assert max(map(len, guesses)) <= 10  # no more guesses than the ten most popular items had


def test_too_small_a_store_and_a_folder_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 50 items and 10 users"):
        write_store(tmp_path / "shop", users=5, items=60)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="is not a sample store, so it is not replaced"):
        write_store(tmp_path, users=50, items=60, overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "precious"

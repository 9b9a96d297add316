"""Reading and writing in chunks: the result does not depend on their size, and no row is lost."""

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalign.data.dataset import Dataset
from catalign.data.numbering import Numbering
from catalign.data.options import Table, TableOptions, TableSource
from catalign.data.prepare import prepare_tables
from catalign.data.writing import ParquetSlices
from catalign.errors import UserError

ITEMS = "sku,name\n001,Apple &amp; Pear\n002,Bean\n003,Corn\n004,\n005,Bean\n006,Never Sold\n"
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "zoe", " ann", "", "0"]),
        st.sampled_from(["001", "002", "003", "004", "005", "1", ""]),
        st.sampled_from(["5", "6", "7", "8.0", "9e0", "1e300", "3e11", "1970-01-01T00:00:10Z", "", "never", "-3"]),
        st.sampled_from(["1", "4.5", "", "good", "5,extra"]),
        st.sampled_from(["train", "train", "val", "test", "", "none"]),
    ),
    max_size=30,
)
OPTIONS = st.fixed_dictionaries(
    {
        "split": st.sampled_from(["chronological", "leave-one-out", "given"]),
        "duplicates": st.sampled_from(["keep", "first", "last"]),
        "k_core": st.integers(0, 2),
        "min_rating": st.sampled_from([None, 2.0]),
        "keep_unused": st.booleans(),
        "duplicate_titles": st.sampled_from(["keep", "merge", "distinguish"]),
        "missing_titles": st.sampled_from(["drop", "id"]),
        "min_history": st.integers(1, 2),
        "without_rules": st.sampled_from(
            [[], ["unreadable-rating"], ["unrated"], ["without-time", "unreadable-time"], ["html-entities"]]
        ),
    }
)


def source_of(folder: Path, rows: Sequence[tuple[str, ...]], split: str) -> TableSource:
    lines = [",".join((who, sku, when, part, stars)) for who, sku, when, stars, part in rows]
    (folder / "log.csv").write_text("\n".join(["who,sku,when,part,stars", *lines]))
    (folder / "items.csv").write_text(ITEMS)
    return TableSource(
        interactions=Table.of(folder / "log.csv"), items=Table.of(folder / "items.csv"),
        user="who", item="sku", time="when", rating="stars", split_column="part" if split == "given" else None,
        item_id="sku", title="name",
    )  # fmt: skip


def everything(dataset: Dataset) -> dict[str, Any]:
    """All that a dataset folder holds but the digests of its files, whose row groups are the chunks."""
    tables = [dataset.items, dataset.interactions, *(dataset.windows(split) for split in ("train", "valid", "test"))]
    return {
        "card": dataset.card.model_dump(exclude={"files"}),
        "rejects": (dataset.folder / "rejects.jsonl").read_text(),
        "tables": [(dict(table.schema), table.rows()) for table in tables],
    }


@given(ROWS, OPTIONS, st.sampled_from([1, 2, 7]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_the_size_of_the_chunks_changes_nothing(
    tmp_path: Path, rows: Sequence[tuple[str, ...]], options: dict[str, Any], size: int
) -> None:
    source = source_of(tmp_path, rows, options["split"])
    done: list[Any] = []
    for chunk in (1_000_000, size):
        try:
            dataset = prepare_tables(source, TableOptions(**options), tmp_path / "ds", overwrite=True, rows=chunk)
            done.append(everything(dataset))
        except UserError as error:
            done.append(str(error))
    assert done[0] == done[1]
    if isinstance(done[0], dict):
        card = done[0]["card"]
        assert card["rows_in"]["interactions"] == len(rows)
        for table, read in card["rows_in"].items():
            dropped = sum(card["dropped"].get(table, {}).values())
            assert read == card["rows_kept"][table] + dropped
            drops = [rule for rule in card["rules"] if rule["table"] == table and not _changes(rule)]
            assert sum(rule["rows"] for rule in drops) == dropped
        assert card["rows_kept"]["interactions"] == card["interactions"]


def _changes(rule: dict[str, Any]) -> bool:
    return any("before" in example for example in rule["examples"])


def test_a_number_too_large_for_the_unit_is_dropped_with_its_row(tmp_path: Path) -> None:
    rows = [("ann", f"00{1 + n % 3}", str(n), "5", "") for n in range(20)]
    rows.insert(7, ("ann", "005", "9e299", "5", ""))
    dataset = prepare_tables(source_of(tmp_path, rows, ""), TableOptions(), tmp_path / "ds", rows=4)
    assert dataset.card.dropped["interactions"] == {"timestamp is neither a number nor ISO 8601": 1}
    (reject,) = (
        reject
        for reject in map(json.loads, (tmp_path / "ds" / "rejects.jsonl").read_text().splitlines())
        if reject["table"] == "interactions"
    )
    assert (reject["user_id"], reject["source_id"], reject["row"]) == ("ann", "005", 9)


def test_rows_dropped_as_numbers_are_shown_with_their_ids(tmp_path: Path) -> None:
    rows = [("ann", f"00{1 + n % 3}", str(n), "5", "") for n in range(20)] + [("bob", "005", "7", "4.5", "")]
    options = TableOptions(k_core=2, duplicate_titles="merge")
    dataset = prepare_tables(source_of(tmp_path, rows, ""), options, tmp_path / "ds", rows=3)
    (rule,) = (rule for rule in dataset.card.rules if rule.name == "k-core")
    assert (rule.on, rule.value, rule.rows) == (True, 2, 1)
    assert rule.examples == [
        {
            "user_id": "bob", "source_id": "005", "timestamp": 7000, "rating": 4.5, "split": None,
            "file": "log.csv", "row": 22,
        }
    ]  # fmt: skip


def test_the_unit_of_times_is_that_of_the_whole_table(tmp_path: Path) -> None:
    moment = 1_600_000_000
    times = [moment * 1000, *(moment + n for n in range(1, 20))]  # the first alone would say milliseconds
    rows = [("ann", f"00{1 + n % 3}", str(when), "5", "") for n, when in enumerate(times)]
    dataset = prepare_tables(source_of(tmp_path, rows, ""), TableOptions(), tmp_path / "ds", rows=1)
    assert dataset.interactions["timestamp"].to_list()[:19] == [(moment + n) * 1000 for n in range(1, 20)]


def test_a_disk_that_fills_up_while_slices_are_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("ann", f"00{1 + n % 3}", str(n), "5", "") for n in range(20)]
    source = source_of(tmp_path, rows, "")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(UserError, match="the disk is full"):
        prepare_tables(source, TableOptions(), tmp_path / "ds")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.csv", "log.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_comes_with_its_number() -> None:
    with pytest.raises(OSError) as caught, ParquetSlices(Path("/dev/full")) as slices:
        slices.write(pl.DataFrame({"a": range(100_000)}))
    assert caught.value.errno == errno.ENOSPC


def test_slices_are_one_table(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"user_id": ["ann", "bob"], "history": [[1, 2], []]}, schema_overrides={"history": pl.List(pl.UInt32)}
    )
    with ParquetSlices(tmp_path / "t.parquet") as slices:
        for part in (frame.clear(), frame.head(1), frame.clear(), frame.tail(1)):
            slices.write(part)
    assert pl.read_parquet(tmp_path / "t.parquet").equals(frame)


@given(st.lists(st.lists(st.text(max_size=2), max_size=8), max_size=5))
def test_texts_are_numbered_in_order_of_first_appearance(chunks: list[list[str]]) -> None:
    numbering = Numbering()
    numbers = [numbering.numbers(pl.Series(chunk, dtype=pl.String)).to_list() for chunk in chunks]
    first = list(dict.fromkeys(text for chunk in chunks for text in chunk))
    assert numbers == [[first.index(text) for text in chunk] for chunk in chunks]
    assert numbering.texts().to_list() == first

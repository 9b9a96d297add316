"""From two tables to a dataset folder."""

import errno
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalign.data.options import Table, TableOptions, TableSource
from catalign.data.prepare import prepare_tables
from catalign.errors import UserError
from catalign.files import sha256_of

ITEMS = "sku,name,colour\n001,Apple &amp; Pear,red\n002,Bean,green\n003,Corn,yellow\n004,,blue\n005,Never Sold,grey\n"


def write(folder: Path, interactions: str, items: str = ITEMS) -> TableSource:
    (folder / "log.csv").write_text(interactions)
    (folder / "items.csv").write_text(items)
    return TableSource(
        interactions=folder / "log.csv", items=folder / "items.csv", user="who", item="sku", time="when",
        item_id="sku", title="name",
    )  # fmt: skip


def log(rows: list[tuple[str, str, object]], header: str = "who,sku,when") -> str:
    return "\n".join([header, *(f"{who},{sku},{when}" for who, sku, when in rows)])


# Ann's rows are out of order on purpose; Bob begins before her in the file.
ROWS = [
    ("bob", "001", 50),
    *[("ann", f"00{1 + hour % 3}", hour) for hour in (3, 1, 2, *range(4, 11))],
    ("bob", "003", 60),
]


def prepare(source: TableSource, output: Path, **options: Any) -> Any:
    return prepare_tables(source, TableOptions(**options), output)


def test_the_dataset_folder_keeps_its_contract(tmp_path: Path) -> None:
    source = write(tmp_path, log(ROWS)).model_copy(update={"metadata": ["colour"]})
    dataset = prepare(source, tmp_path / "ds", history=3)
    items, interactions = dataset.items, dataset.interactions
    assert items.rows() == [("001", "Apple & Pear", "red"), ("002", "Bean", "green"), ("003", "Corn", "yellow")]
    assert dict(interactions.schema) == {
        "user_id": pl.String, "item": pl.UInt32, "timestamp": pl.Int64, "rating": pl.Float32, "split": pl.String,
    }  # fmt: skip
    assert interactions["user_id"].to_list() == ["bob"] * 2 + ["ann"] * 10  # users by first appearance
    assert interactions["timestamp"].to_list() == [50_000, 60_000, *range(1000, 10_001, 1000)]  # each in time order
    train = dataset.windows("train")
    assert dict(train.schema) == {
        "user_id": pl.String, "history": pl.List(pl.UInt32), "target": pl.UInt32, "timestamp": pl.Int64,
    }  # fmt: skip
    assert train["history"].to_list()[:4] == [[1], [1, 2], [1, 2, 0], [2, 0, 1]]
    assert [dataset.windows(split).height for split in ("train", "valid", "test")] == [8, 1, 1]
    assert dataset.windows("test").row(0) == ("bob", [0], 2, 60_000)
    assert dataset.training_counts().tolist() == [3, 3, 3]
    for name, digest in dataset.card.files.items():
        assert sha256_of(tmp_path / "ds" / name) == digest
    assert set(dataset.card.files) == {
        "items.parquet", "interactions.parquet", "rejects.jsonl",
        "windows/train.parquet", "windows/valid.parquet", "windows/test.parquet",
    }  # fmt: skip


def test_every_row_is_kept_or_dropped_for_a_stated_reason(tmp_path: Path) -> None:
    header = "who,sku,when,stars"
    good = [f"{who},{sku},{when},5" for who, sku, when in ROWS]
    bad = [
        ",001,1,5", "ann,,1,5", "ann,001,,5", "ann,001,soon,5", "ann,001,1,five", "ann,001,1,", "ann,001,1,3.4",
        "ann,004,1,5", "ann,999,1,5", "ann,001", "zoe,001,1,3.5",
    ]  # fmt: skip
    source = write(tmp_path, "\n".join([header, *good, *bad])).model_copy(update={"rating": "stars"})
    dataset = prepare(source, tmp_path / "ds", min_rating=3.5, k_core=2)
    assert dataset.card.dropped == {
        "interactions": {
            "not 4 fields, as the header has": 1, "no user id": 1, "no item id": 1, "no timestamp": 1,
            "timestamp is neither a number nor ISO 8601": 1, "rating is not a number": 1, "no rating": 1,
            "rating below 3.5": 1, "item not in the item table": 1, "item without a title": 1, "outside the 2-core": 1,
        },
        "items": {"no title": 1, "no interaction left": 1},
    }  # fmt: skip
    assert dataset.card.rows_in == {"items": 5, "interactions": 23}
    assert dataset.card.rows_kept == {"items": 3, "interactions": 12}
    rejects = [json.loads(line) for line in (tmp_path / "ds" / "rejects.jsonl").read_text().splitlines()]
    rows = {reject["reason"]: (reject["file"], reject["row"]) for reject in rejects}
    assert rows["no user id"] == ("log.csv", 14)
    assert rows["item not in the item table"] == ("log.csv", 22)
    assert rows["outside the 2-core"] == ("log.csv", 24)
    assert rows["no title"] == ("items.csv", 5)


def test_rejects_keep_the_first_few_of_each_reason(tmp_path: Path) -> None:
    rows = [*ROWS, *[("ann", "999", time) for time in range(20)]]
    dataset = prepare(write(tmp_path, log(rows)), tmp_path / "ds")
    assert dataset.card.dropped["interactions"] == {"item not in the item table": 20}
    rejects = [json.loads(line) for line in (tmp_path / "ds" / "rejects.jsonl").read_text().splitlines()]
    assert [reject["row"] for reject in rejects if reject["table"] == "interactions"] == [14, 15, 16, 17, 18]


def test_unused_items_can_be_kept_and_missing_titles_shown_by_id(tmp_path: Path) -> None:
    dataset = prepare(write(tmp_path, log(ROWS)), tmp_path / "ds", keep_unused=True, missing_titles="id")
    assert dataset.items["title"].to_list() == ["Apple & Pear", "Bean", "Corn", "004", "Never Sold"]


def test_merged_items_are_one_item(tmp_path: Path) -> None:
    items = "sku,name\n001,Plum\n002,Bean\n003, Plum\n"
    dataset = prepare(write(tmp_path, log(ROWS), items), tmp_path / "ds", duplicate_titles="merge")
    assert dataset.items["item_id"].to_list() == ["001", "002"]
    assert set(dataset.interactions["item"].unique()) == {0, 1}


@pytest.mark.parametrize(("duplicates", "times"), [("keep", [1, 2, 3, 4]), ("first", [1, 2]), ("last", [3, 4])])
def test_repeated_pairs(tmp_path: Path, duplicates: str, times: list[int]) -> None:
    ann = [("ann", "001", 1), ("ann", "002", 2), ("ann", "001", 3), ("ann", "002", 4)]
    others = [(f"u{n}", sku, 100 + n) for n in range(20) for sku in ("001", "002")]
    dataset = prepare(write(tmp_path, log([*ann, *others])), tmp_path / "ds", duplicates=duplicates)
    ours = dataset.interactions.filter(pl.col("user_id") == "ann")
    assert ours["timestamp"].to_list() == [1000 * time for time in times]


def test_leave_one_out_warns_that_it_leaks(tmp_path: Path) -> None:
    dataset = prepare(write(tmp_path, log(ROWS)), tmp_path / "ds", split="leave-one-out")
    assert dataset.windows("test")["timestamp"].to_list() == [10_000]
    assert "leaks" in dataset.card.warnings[0]


def test_leave_one_out_needs_no_times(tmp_path: Path) -> None:
    source = write(tmp_path, log(ROWS)).model_copy(update={"time": None})
    dataset = prepare(source, tmp_path / "ds", split="leave-one-out")
    assert dataset.windows("test").row(0) == ("ann", [0, 1, 2, 1, 2, 0, 1, 2, 0], 1, None)  # the order of the file
    with pytest.raises(UserError, match="needs timestamps; pass --time"):
        prepare(source, tmp_path / "other")


def test_given_splits_come_from_a_column_or_from_files(tmp_path: Path) -> None:
    rows = [(who, sku, f"{when},{'train' if when < 8 else 'val' if when < 10 else 'test'}") for who, sku, when in ROWS]
    source = write(tmp_path, log(rows, "who,sku,when,part")).model_copy(update={"split_column": "part"})
    by_column = prepare(source, tmp_path / "a", split="given")
    assert [by_column.windows(split).height for split in ("train", "valid", "test")] == [6, 2, 2]
    assert by_column.card.warnings == []

    parts = {name: [row for row in rows if row[2].endswith(f",{name}")] for name in ("train", "val", "test")}
    for name, part in parts.items():
        (tmp_path / f"{name}.csv").write_text(log(part, "who,sku,when,part"))
    names = {"interactions": "train.csv", "valid": "val.csv", "test": "test.csv"}
    files = {table: Table.of(tmp_path / name) for table, name in names.items()}
    by_files = prepare(source.model_copy(update={**files, "split_column": None}), tmp_path / "b", split="given")
    for split in ("train", "valid", "test"):
        assert by_files.windows(split).sort("timestamp").equals(by_column.windows(split).sort("timestamp"))


def test_a_given_split_out_of_time_order_warns(tmp_path: Path) -> None:
    rows = [("ann", "001", f"{time},{part}") for time, part in enumerate(["train", "test", "train", "valid", "valid"])]
    source = write(tmp_path, log(rows, "who,sku,when,part")).model_copy(update={"split_column": "part"})
    dataset = prepare(source, tmp_path / "ds", split="given")
    assert "not in time order: 3 interactions" in dataset.card.warnings[0]


@pytest.mark.parametrize(
    "when", ["1519907{:03}", "1519907{:03}000", "2018-03-01T12:30:05.{:03}Z", "2018-03-01 10:{:02}"]
)
def test_timestamps_in_every_form_are_cut_alike(tmp_path: Path, when: str) -> None:
    rows = [("ann", f"00{1 + n % 3}", when.format(n)) for n in range(21)]
    dataset = prepare(write(tmp_path, log(rows)), tmp_path / "ds")
    assert [dataset.windows(split).height for split in ("train", "valid", "test")] == [16, 2, 2]
    assert str(dataset.interactions["timestamp"][0]).startswith("1519")


@pytest.mark.parametrize(
    ("interactions", "options", "message"),
    [
        ("who,sku,when\n", {}, r"log\.csv: the table has no rows"),
        (
            "who,sku,when\nann,1,5\n",
            {},
            r"log\.csv, row 2: no interaction is left \(1 item not in the item table.*'001'",
        ),
        (
            "who,sku,when\nann,001,today\n",
            {},
            r"row 2: no interaction is left .*neither a number nor ISO 8601.*'today'",
        ),
        ("who,sku,when\nann,001,1\nbob,001,2\n", {}, "no user has enough interactions for one window"),
        ("who,sku,when\nann,001,1\nann,002,1\nann,003,1\n", {}, "no window is left in train and valid .*train 0"),
        (log(ROWS), {"k_core": 50}, "no interaction is left .*outside the 50-core"),
        (log(ROWS), {"min_rating": 3}, "--min-rating needs ratings"),
        (log(ROWS), {"split": "given"}, "pass --split-column, or --valid and --test"),
    ],
)
def test_bad_input_is_told_and_leaves_nothing(
    tmp_path: Path, interactions: str, options: dict[str, Any], message: str
) -> None:
    source = write(tmp_path, interactions)
    with pytest.raises(UserError, match=message) as caught:
        prepare(source, tmp_path / "ds", **options)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.csv", "log.csv"]


def test_given_splits_go_with_split_given_only(tmp_path: Path) -> None:
    source = write(tmp_path, log(ROWS)).model_copy(update={"split_column": "when"})
    with pytest.raises(UserError, match="pass --split given"):
        prepare(source, tmp_path / "ds")


def test_an_output_that_exists_is_left_alone(tmp_path: Path) -> None:
    source = write(tmp_path, log(ROWS))
    prepare(source, tmp_path / "ds")
    before = sha256_of(tmp_path / "ds" / "dataset.json")
    with pytest.raises(UserError, match=r"already exists.*--overwrite"):
        prepare(source, tmp_path / "ds", history=2)
    assert sha256_of(tmp_path / "ds" / "dataset.json") == before
    replaced = prepare_tables(source, TableOptions(history=2), tmp_path / "ds", overwrite=True)
    assert replaced.card.options["history"] == 2
    with pytest.raises(UserError, match="not a dataset folder, so it is not replaced"):
        prepare_tables(source, TableOptions(), tmp_path, overwrite=True)
    assert (tmp_path / "log.csv").exists()


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(frame: pl.DataFrame, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise pl.exceptions.ComputeError("parquet: underlying IO error: No space left on device (os error 28)")

    source = write(tmp_path, log(ROWS))
    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(UserError, match="the disk is full"):
        prepare(source, tmp_path / "ds")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.csv", "log.csv"]


def test_an_output_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    source = write(tmp_path, log(ROWS))
    with pytest.raises(UserError, match="a file is in the way"):
        prepare(source, tmp_path / "log.csv" / "ds")


def test_a_place_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    source = write(tmp_path, log(ROWS))
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(UserError, match="ds: cannot be written; check the folder's permissions"):
        prepare(source, tmp_path / "ds")


def test_the_same_tables_give_the_same_files(tmp_path: Path) -> None:
    source = write(tmp_path, log(ROWS))
    assert prepare(source, tmp_path / "a").card.files == prepare(source, tmp_path / "b").card.files


MESSY_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", " ann", "", "0"]),
        st.sampled_from(["001", "002", "003", "004", "1", ""]),
        st.sampled_from(["5", "6", "7", "8.0", "9e0", "1970-01-01T00:00:10Z", "", "never", "-3"]),
        st.sampled_from(["1", "4.5", "", "good", "5,extra"]),
    ),
    max_size=30,
)


@given(
    MESSY_ROWS,
    st.sampled_from(["chronological", "leave-one-out"]),
    st.sampled_from(["keep", "first", "last"]),
    st.integers(0, 2),
    st.sampled_from([None, 2.0]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_messy_tables_become_a_sound_dataset_or_one_line(
    tmp_path: Path, rows: list[tuple[str, ...]], split: str, duplicates: str, k_core: int, min_rating: float | None
) -> None:
    text = "\n".join(["who,sku,when,stars", *(",".join(row) for row in rows)])
    source = write(tmp_path, text).model_copy(update={"rating": "stars"})
    options = {"split": split, "duplicates": duplicates, "k_core": k_core, "min_rating": min_rating}
    try:
        dataset = prepare_tables(source, TableOptions(**options), tmp_path / "ds", overwrite=True)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert dataset.card.rows_in["interactions"] == len(rows)
    assert dataset.card.rows_kept["interactions"] == dataset.interactions.height
    past: dict[str, list[int]] = {}
    expected = {"train": [], "valid": [], "test": []}  # type: dict[str, list[tuple[str, list[int], int]]]
    for user, item, part in dataset.interactions.select("user_id", "item", "split").iter_rows():
        history = past.setdefault(user, [])
        if history:
            expected[part].append((user, history[-10:], item))
        history.append(item)
    for part, windows in expected.items():
        assert dataset.windows(part).select("user_id", "history", "target").rows() == windows
    times = dataset.interactions.group_by("user_id", maintain_order=True).agg(sound=pl.col("timestamp").is_sorted())
    assert times["sound"].all()

"""New interactions and items join a dataset; what was there stays as it was."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalign.data.append import Addition, append
from catalign.data.dataset import Dataset, load_dataset
from catalign.data.options import Table, TableOptions, TableSource
from catalign.data.prepare import prepare_tables
from catalign.data.splits import SPLITS
from catalign.errors import UserError
from catalign.files import sha256_of

Row = tuple[str, str, int]
ITEMS = "sku,name,colour\n" + "".join(f"i{n},Item {n},{'red' if n % 2 else 'blue'}\n" for n in range(6))
BASE: list[Row] = [(f"u{n % 5}", f"i{n * 7 // 3 % 5}", 100 + n) for n in range(40)]


def write_log(path: Path, rows: list[Row]) -> Table:
    path.write_text("who,sku,when\n" + "".join(f"{who},{sku},{when}\n" for who, sku, when in rows))
    return Table.of(path)


def prepare(folder: Path, rows: list[Row] = BASE, *, items: str = ITEMS, **options: Any) -> Dataset:
    """A dataset of these rows, whose sources are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "items.csv").write_text(items)
    source = TableSource(
        interactions=write_log(folder / "log.csv", rows), items=Table.of(folder / "items.csv"),
        user="who", item="sku", time="when", item_id="sku", title="name", metadata=["colour"],
    )  # fmt: skip
    salt = options.pop("salt", None)
    dataset = prepare_tables(source, TableOptions(**{"history": 3, **options}), folder / "ds", salt=salt)
    (folder / "items.csv").unlink()
    (folder / "log.csv").unlink()
    return dataset


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The base log prepared chronologically; only read it."""
    return prepare(tmp_path_factory.mktemp("base"))


def grow(dataset: Dataset, folder: Path, rows: list[Row], items: str | None = None, **more: Any) -> Dataset:
    """Append these rows and items; the result goes to a new folder in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if items is not None:
        (folder / "new-items.csv").write_text("sku,name,colour\n" + items)
        more["items"] = Table.of(folder / "new-items.csv")
    size = more.pop("size", 1_000_000)
    addition = Addition(interactions=write_log(folder / "week.csv", rows) if rows else None, **more)
    return append(dataset.folder, addition, folder / f"ds{len(list(folder.iterdir()))}", rows=size)


def windows_of(rows: list[Row], history: int = 3) -> list[tuple[str, list[str], str, int]]:
    """What windows there should be, found by a plain loop."""
    found = []
    seen: dict[str, list[str]] = defaultdict(list)
    for user, item, time in sorted(rows, key=lambda row: row[2]):
        if seen[user]:
            found.append((user, seen[user][-history:], item, time * 1000))
        seen[user].append(item)
    return found


def read_windows(dataset: Dataset, split: str) -> list[tuple[str, list[str], str, int]]:
    ids = dataset.items["item_id"].to_list()
    rows = dataset.windows(split).iter_rows()
    return [(user, [ids[item] for item in history], ids[target], time) for user, history, target, time in rows]


def check_whole(dataset: Dataset) -> None:
    """The contract of a dataset folder."""
    log, card = dataset.interactions, dataset.card
    assert (log["user_id"] != log["user_id"].shift(1)).sum() + 1 == log["user_id"].n_unique() == card.users
    assert log.height == card.interactions == sum(counts.interactions for counts in card.splits.values())
    assert log.select((pl.col("timestamp").diff().over("user_id") >= 0).all()).item()
    assert dataset.items.height == card.items
    assert log["item"].to_numpy().max() < card.items
    warm = set(log.filter(pl.col("split") == "train")["item"])
    for split in SPLITS:
        windows = dataset.windows(split)
        assert windows.height == card.splits[split].windows
        assert card.splits[split].cold_targets == sum(target not in warm for target in windows["target"])
    assert {name: sha256_of(dataset.folder / name) for name in card.files} == card.files
    for record in card.appended:
        for table, rows in record.rows_in.items():
            kept = rows - sum(record.dropped.get(table, {}).values())
            assert kept == (record.items if table == "items" else record.interactions)


LATER: list[Row] = [
    ("u1", "i2", 200), ("zoe", "i0", 201), ("u1", "i3", 202), ("zoe", "i4", 203), ("u4", "i1", 204), ("ada", "i2", 205),
]  # fmt: skip


def test_histories_go_on_and_what_was_there_stays(base: Dataset, tmp_path: Path) -> None:
    grown = grow(base, tmp_path, LATER)
    check_whole(grown)
    assert grown.items.equals(base.items)
    for split in SPLITS:
        assert grown.windows(split).head(base.windows(split).height).equals(base.windows(split))
    new = read_windows(grown, "test")[base.windows("test").height :]
    assert sorted(new) == sorted(window for window in windows_of(BASE + LATER) if window[3] >= 200_000)
    log = grown.interactions
    assert log["user_id"].unique(maintain_order=True).to_list() == ["u0", "u1", "u2", "u3", "u4", "zoe", "ada"]
    assert log.filter(pl.col("timestamp") < 200_000).equals(base.interactions)
    (record,) = grown.card.appended
    assert (record.split, record.items, record.users, record.interactions) == ("time", 0, 2, 6)
    assert record.windows == {"train": 0, "valid": 0, "test": 4}
    assert [(source.name, len(source.sha256)) for source in record.sources] == [("week.csv", 64)]
    assert grown.card.sources == base.card.sources
    assert grown.card.warnings == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["u0", "u1", "u4", "v", "w"]),
            st.sampled_from(["i0", "i1", "i2", "gone"]),
            st.integers(min_value=95, max_value=150),
        ),
        min_size=1, max_size=12,
    ),
    size=st.sampled_from([1, 7, 1_000]),
)  # fmt: skip
def test_every_row_joins_its_history_or_is_counted(
    base: Dataset, tmp_path_factory: pytest.TempPathFactory, rows: list[Row], size: int
) -> None:
    last = {user: max(time for who, _, time in BASE if who == user) for user, _, _ in BASE}
    there = [row for row in rows if row in BASE]
    early = [row for row in rows if row not in there and row[1] != "gone" and row[2] < last.get(row[0], 0)]
    kept = [row for row in rows if row not in there and row not in early and row[1] != "gone"]
    folder = tmp_path_factory.mktemp("grown")
    if not kept:
        with pytest.raises(UserError, match="nothing is new"):
            grow(base, folder, rows)
        assert [path.name for path in folder.iterdir()] == ["week.csv"]
        return
    grown = grow(base, folder, rows, size=size)
    check_whole(grown)
    dropped = grown.card.appended[0].dropped.get("interactions", {})
    assert dropped.get("already there", 0) == len(there)
    assert dropped.get("earlier than the user's last interaction", 0) == len(early)
    assert dropped.get("item not in the item table", 0) == sum(row[1] == "gone" for row in rows)
    both = [window for split in SPLITS for window in read_windows(grown, split)]
    assert sorted(both) == sorted(windows_of(BASE + kept))
    times = {split: grown.windows(split)["timestamp"].to_list() for split in SPLITS}
    assert max(times["train"]) < min(times["valid"]) and max(times["valid"]) < min(times["test"])


def test_appending_twice_drops_what_is_there(base: Dataset, tmp_path: Path) -> None:
    once = grow(base, tmp_path, LATER[:4])
    twice = grow(once, tmp_path, LATER)
    check_whole(twice)
    assert twice.card.appended[1].dropped == {"interactions": {"already there": 4}}
    assert twice.interactions.equals(grow(base, tmp_path, LATER).interactions)
    rejects = [json.loads(line) for line in (twice.folder / "rejects.jsonl").read_text().splitlines()]
    rejects = [row for row in rejects if row["reason"] == "already there"]
    assert [(row["user_id"], row["source_id"], row["row"]) for row in rejects][:2] == [
        ("u1", "i2", 2),
        ("zoe", "i0", 3),
    ]
    with pytest.raises(UserError, match=r"nothing is new \(interactions: 6 already there\)"):
        grow(twice, tmp_path, LATER)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_the_split_can_be_chosen(base: Dataset, tmp_path: Path, split: str) -> None:
    grown = grow(base, tmp_path, LATER, split=split)
    check_whole(grown)
    assert grown.windows(split).height == base.windows(split).height + 4
    warned = [warning for warning in grown.card.warnings if "not chronological any more" in warning]
    assert len(warned) == (split != "test")
    early = grow(base, tmp_path, [("new", "i1", 100), ("new", "i2", 101)], split="test")
    assert "2 interactions appended to test lie in the time of another split" in early.card.warnings[0]
    by_time = grow(base, tmp_path, [("new", "i1", 100), ("new", "i2", 101)])
    assert by_time.card.appended[0].windows == {"train": 1, "valid": 0, "test": 0}


def test_another_split_has_no_instants(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, split="leave-one-out")
    assert grow(dataset, tmp_path / "a", LATER).card.appended[0].split == "test"
    with pytest.raises(UserError, match="no instants to cut at; pass --split train, valid or test"):
        grow(dataset, tmp_path / "b", LATER, split="time")


def test_new_items_come_after_the_old(base: Dataset, tmp_path: Path) -> None:
    assert base.items["item_id"].to_list() == ["i0", "i1", "i2", "i3", "i4"]  # nobody bought i5
    items = "i0,Another title,red\nnew1,New &amp; one,blue\nunused,Nobody's,red\nnew2,New two,\n,No id,red\nnone,,red\n"
    rows = [("u1", "new2", 200), ("u1", "new1", 201), ("u2", "none", 202), ("u2", "i5", 203)]
    grown = grow(base, tmp_path, rows, items)
    check_whole(grown)
    assert grown.items.rows()[5:] == [("new1", "New & one", "blue"), ("new2", "New two", "")]
    assert grown.items.head(5).equals(base.items)
    assert [window[2] for window in read_windows(grown, "test")[-2:]] == ["new2", "new1"]
    assert read_windows(grown, "test")[-1][1][-1] == "new2"
    assert grown.card.appended[0].dropped == {
        "items": {"already there": 1, "no item id": 1, "no title": 1, "no interaction left": 1},
        "interactions": {"item without a title": 1, "item not in the item table": 1},
    }
    assert grow(base, tmp_path, rows, items, keep_unused=True).items["item_id"].to_list()[5:] == [
        "new1", "unused", "new2",
    ]  # fmt: skip
    alone = grow(base, tmp_path, [], items)
    check_whole(alone)
    assert alone.items.height == 8
    assert all(alone.windows(split).equals(base.windows(split)) for split in SPLITS)


def test_titles_follow_the_rules_of_the_dataset(tmp_path: Path) -> None:
    items = "a,Item 0,red\nb,Item 0,\nc,Item 9,red\n"
    merged = grow(prepare(tmp_path / "m", duplicate_titles="merge"), tmp_path / "m", [("u1", "a", 200)], items)
    check_whole(merged)
    assert merged.items.height == 5
    assert read_windows(merged, "test")[-1][2] == "i0"
    assert merged.card.appended[0].dropped["items"]["title of an earlier item (merged)"] == 2
    rows = [("u1", "a", 200), ("u1", "b", 201), ("u2", "c", 202)]
    told = grow(
        prepare(tmp_path / "d", duplicate_titles="distinguish", title_format="The {title}"), tmp_path / "d", rows, items
    )
    check_whole(told)
    assert told.items["title"].to_list() == [
        *(f"The Item {n}" for n in range(5)), "The Item 0 (red)", "The Item 0 (b)", "The Item 9",
    ]  # fmt: skip
    assert told.card.titles.distinguished == {"colour": 1, "item id": 1}


def test_repeated_pairs_are_dropped_where_the_dataset_drops_them(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, duplicates="first")
    rows = [("u1", "i2", 200), ("new", "i1", 201), ("new", "i1", 202), ("new", "i0", 203)]
    grown = grow(dataset, tmp_path, rows)
    check_whole(grown)
    assert grown.card.appended[0].dropped == {"interactions": {"repeated (user, item) pair": 2}}


def test_a_dataset_without_times_grows(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(ITEMS)
    source = TableSource(
        interactions=write_log(tmp_path / "log.csv", BASE), items=Table.of(tmp_path / "items.csv"),
        user="who", item="sku", item_id="sku", title="name",
    )  # fmt: skip
    dataset = prepare_tables(source, TableOptions(split="leave-one-out"), tmp_path / "ds")
    grown = grow(dataset, tmp_path / "more", [("u1", "i0", 1), ("u1", "i0", 1)])
    assert grown.windows("test").height == dataset.windows("test").height + 2


def test_a_dataset_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    dataset = prepare(tmp_path)
    before = {path: path.read_bytes() for path in dataset.folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="no column 'when'"):
        (tmp_path / "bad.csv").write_text("who,sku\nu1,i1\n")
        append(dataset.folder, Addition(interactions=Table.of(tmp_path / "bad.csv")), None)
    assert {path: path.read_bytes() for path in dataset.folder.rglob("*") if path.is_file()} == before
    append(dataset.folder, Addition(interactions=write_log(tmp_path / "week.csv", LATER)), None)
    grown = load_dataset(dataset.folder)
    check_whole(grown)
    assert grown.card.interactions == len(BASE) + len(LATER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "ds", "week.csv"]


def test_hashed_users_are_recognised_under_their_salt_alone(tmp_path: Path) -> None:
    salt = b"a salt of sixteen bytes or more"
    dataset = prepare(tmp_path, salt=salt)
    grown = grow(dataset, tmp_path, [*LATER, ("secret", "none", 5)], salt=salt)
    check_whole(grown)
    assert grown.card.appended[0].users == 2
    assert "secret" not in (grown.folder / "rejects.jsonl").read_text()
    with pytest.raises(UserError, match="hashed with another salt"):
        grow(dataset, tmp_path, LATER, salt=b"another salt of sixteen bytes")
    with pytest.raises(UserError, match="user ids are hashed"):
        grow(dataset, tmp_path, LATER)


def test_the_instants_are_those_of_the_preparation(base: Dataset, tmp_path: Path) -> None:
    """What was appended to a split by hand does not move where later rows are cut."""
    grown = grow(base, tmp_path, [("new", f"i{n}", 50 + n) for n in range(5)], split="valid")
    again = grow(grown, tmp_path, [("other", f"i{n}", 60 + n) for n in range(5)])
    assert set(again.interactions.filter(pl.col("user_id") == "other")["split"]) == {"train"}


def test_a_dataset_without_its_rejects_grows(tmp_path: Path) -> None:
    dataset = prepare(tmp_path)
    (dataset.folder / "rejects.jsonl").unlink()
    assert grow(dataset, tmp_path, [("u0", "i4", 999)]).interactions.height == dataset.interactions.height + 1

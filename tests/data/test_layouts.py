"""The published layouts in small, and what they become."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from catalign.data.layouts import recognise, table_source
from catalign.data.options import TableOptions, WindowOptions
from catalign.data.prepare import prepare_tables, prepare_windows
from catalign.data.store import write_store
from catalign.errors import UserError


def write_msl(folder: Path, *, timestamps: bool = True) -> Path:
    """Ten users with two training windows each; user 0 goes on in the test table."""
    titles = {str(number): f"Title {number}" for number in range(1, 31)} | {"30": ""}
    (folder / "id2name4Rec.json").write_text(json.dumps(titles))
    rows = []
    for user in range(10):
        first = [user + 1, user + 2, user + 3]
        rows += [(user, first, 100 + user), (user, [*first, user + 4], 200 + user)]
    header = "user_id,item_ids,timestamp" if timestamps else "user_id,item_ids"
    lines = [f'{user},"{ids}",{time}' if timestamps else f'{user},"{ids}"' for user, ids, time in rows]
    (folder / "train.csv").write_text("\n".join([header, *lines]))
    test = [
        '0,"[1, 2, 3, 4, 25]",900',
        '77,"[5, 30, 6]",901',
        '78,"[30, 6]",902',
        '79,"[5, 30]",903',
        '80,"[5, 99]",904',
    ]
    (folder / "test.csv").write_text("\n".join(["user_id,item_ids,timestamp", *test]))
    return folder


def write_d3(folder: Path) -> Path:
    (folder / "info.txt").write_text("First\t0\nSecond, with\ttab\t1\nThird\t2\nThird\t3\n")
    header = "user_id,history_item_id,item_id"
    train = gzip.compress(f'{header}\nann,[0],1\nbob,[2],0\nann,"[0, 1]",2\n'.encode())
    (folder / "train.csv.gz").write_bytes(train)
    (folder / "valid.csv").write_text(f'{header},timestamp\nbob,"[2, 0]",1,1495843200\n')
    (folder / "test.csv").write_text(f'{header},timestamp\nbob,"[2, 0, 1]",3,1510963200\ncat,[2],2,1510963201\n')
    return folder


def test_folders_are_recognised(tmp_path: Path) -> None:
    for name, write, layout in (("a", write_msl, "msl"), ("b", write_d3, "d3")):
        (tmp_path / name).mkdir()
        assert recognise(write(tmp_path / name)) == layout
    with pytest.raises(UserError, match=r"holds several sets; pass \S+a \(msl\) or \S+b \(d3\)"):
        recognise(tmp_path)
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="is in no known layout; pass --interactions"):
        recognise(tmp_path / "c")
    with pytest.raises(UserError, match="no such folder"):
        recognise(tmp_path / "none")


def test_d3_windows_stay_as_they_are(tmp_path: Path) -> None:
    dataset = prepare_windows(write_d3(tmp_path), "d3", WindowOptions(), tmp_path / "ds")
    assert dataset.items.rows() == [
        ("0", "First"),
        ("1", "Second, with\ttab".replace("\t", " ")),
        ("2", "Third"),
        ("3", "Third"),
    ]
    assert dataset.windows("train").rows() == [("ann", [0], 1, None), ("bob", [2], 0, None), ("ann", [0, 1], 2, None)]
    assert dataset.windows("valid").rows() == [("bob", [2, 0], 1, 1495843200000)]
    assert dataset.windows("test").select("history", "target").rows() == [([2, 0, 1], 3), ([2], 2)]
    assert (dataset.card.titles.items_sharing, dataset.card.titles.titles_shared) == (2, 1)


def test_interactions_are_rebuilt_from_windows_that_continue_each_other(tmp_path: Path) -> None:
    dataset = prepare_windows(write_d3(tmp_path), "d3", WindowOptions(), tmp_path / "ds")
    assert dataset.interactions.select("user_id", "item", "split").rows() == [
        ("ann", 0, "train"), ("ann", 1, "train"), ("ann", 2, "train"),
        ("bob", 2, "train"), ("bob", 0, "train"), ("bob", 1, "valid"), ("bob", 3, "test"),
        ("cat", 2, "test"), ("cat", 2, "test"),
    ]  # fmt: skip
    assert dataset.interactions["timestamp"].drop_nulls().to_list() == [1495843200000, 1510963200000, 1510963201000]
    assert dataset.training_counts().tolist() == [2, 1, 2, 0]


def test_windows_with_gaps_give_distinct_pairs(tmp_path: Path) -> None:
    header = "user_id,history_item_id,item_id\n"
    (tmp_path / "info.txt").write_text("A\t0\nB\t1\nC\t2\nD\t3\n")
    (tmp_path / "train.csv").write_text(f'{header}ann,"[0, 0]",1\n')
    (tmp_path / "valid.csv").write_text(f'{header}ann,"[2, 1]",0\n')
    (tmp_path / "test.csv").write_text(f"{header}ann,[0],3\n")
    dataset = prepare_windows(tmp_path, "d3", WindowOptions(), tmp_path / "ds")
    pairs = dataset.interactions.select("item", "split").rows()
    assert pairs == [(0, "train"), (1, "train"), (2, "valid"), (3, "test")]


def test_msl_loses_items_without_a_title_and_counts_why(tmp_path: Path) -> None:
    dataset = prepare_windows(write_msl(tmp_path), "msl", WindowOptions(), tmp_path / "ds")
    assert dataset.items.height == 29
    assert dataset.items.row(0) == ("1", "Title 1")  # ids are keys of the JSON object, indices are rows
    assert dataset.windows("test").select("history", "target").rows() == [([0, 1, 2, 3], 24), ([4], 5)]
    assert dataset.card.dropped == {
        "items": {"no title": 1},
        "windows": {
            "target without a title": 1,
            "fewer than 1 items of history": 1,
            "target not in the item table": 1,
        },
    }
    assert dataset.card.rows_in == {"items": 30, "windows": 25}
    assert dataset.card.rows_kept == {"items": 29, "windows": 22}
    rejects = [json.loads(line) for line in (tmp_path / "ds" / "rejects.jsonl").read_text().splitlines()]
    assert [(r["file"], r["row"]) for r in rejects if r["table"] == "windows"] == [
        ("test.csv", 6), ("test.csv", 5), ("test.csv", 4)
    ]  # fmt: skip


def test_without_a_validation_table_the_last_tenth_by_time_is_held_out(tmp_path: Path) -> None:
    dataset = prepare_windows(write_msl(tmp_path), "msl", WindowOptions(), tmp_path / "ds")
    assert dataset.windows("valid")["timestamp"].to_list() == [208_000, 209_000]
    assert dataset.windows("train").height == 18
    assert "last tenth" in dataset.card.split_rule
    assert dataset.card.warnings == []


def test_without_timestamps_the_last_users_are_held_out_with_a_warning(tmp_path: Path) -> None:
    dataset = prepare_windows(write_msl(tmp_path, timestamps=False), "msl", WindowOptions(), tmp_path / "ds")
    assert dataset.windows("valid")["user_id"].to_list() == ["9", "9"]
    assert "no timestamps" in dataset.card.warnings[0]


def test_a_published_validation_table_is_used(tmp_path: Path) -> None:
    (write_msl(tmp_path) / "valid.csv").write_text('user_id,item_ids,timestamp\n5,"[1, 2]",500\n')
    dataset = prepare_windows(tmp_path, "msl", WindowOptions(), tmp_path / "ds")
    assert (dataset.windows("train").height, dataset.windows("valid").height) == (20, 1)


def test_longer_histories_keep_their_end(tmp_path: Path) -> None:
    dataset = prepare_windows(write_msl(tmp_path), "msl", WindowOptions(history=2, min_history=2), tmp_path / "ds")
    assert dataset.windows("train")["history"].list.len().unique().to_list() == [2]
    assert dataset.windows("train")["history"][1].to_list() == [1, 2]


def test_the_training_table_is_chosen_by_name(tmp_path: Path) -> None:
    folder = write_msl(tmp_path)
    (folder / "train.csv").rename(folder / "train_some.csv")
    assert prepare_windows(folder, "msl", WindowOptions(), tmp_path / "a").windows("train").height == 18
    (folder / "train_more.csv").write_text("user_id,item_ids,timestamp\n")
    with pytest.raises(UserError, match=r"--train-file \(train_more\.csv, train_some\.csv\)"):
        prepare_windows(folder, "msl", WindowOptions(), tmp_path / "b")
    chosen = prepare_windows(folder, "msl", WindowOptions(), tmp_path / "c", train_file="train_some.csv")
    assert chosen.windows("train").height == 18


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test.csv", None, "there is no test.csv"),
        ("test.csv", "user_id,ids\n1,[2]\n", r"test\.csv: there is no column 'item_ids'; did you mean 'ids'"),
        ("test.csv", "user_id,item_ids\n", "no window is left in test"),
        ("id2name4Rec.json", "[1]", "not a JSON object of id and title"),
        ("id2name4Rec.json", "{", "is not JSON"),
        ("id2name4Rec.json", '{"x": "Y"}', "no window is left .*not in the item table"),
    ],
)
def test_a_broken_folder_is_told_and_leaves_nothing(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_msl(folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(UserError, match=message):
        prepare_windows(folder, "msl", WindowOptions(), tmp_path / "ds")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_windows_of_the_published_files_are_what_the_card_counts(tmp_path: Path) -> None:
    dataset = prepare_windows(write_d3(tmp_path), "d3", WindowOptions(), tmp_path / "ds")
    for split, counts in dataset.card.splits.items():
        windows = dataset.windows(split)
        cold = windows.filter(pl.Series(dataset.training_counts()[windows["target"].to_numpy()] == 0))
        assert (counts.windows, counts.cold_targets) == (windows.height, cold.height)


def test_windows_of_our_own_come_back_from_a_published_layout_as_they_went(tmp_path: Path) -> None:
    """Tables, windows, the d3 layout, windows: the same; and the same interactions of all who have a window."""
    write_store(tmp_path / "shop", users=80, items=60)
    made = prepare_tables(table_source(tmp_path / "shop", "shop"), TableOptions(), tmp_path / "made")
    published = tmp_path / "published"
    published.mkdir()
    names = [f"{title}\t{item}" for item, title in enumerate(made.items["title"])]
    (published / "info.txt").write_text("\n".join(names))
    for split in ("train", "valid", "test"):
        history = pl.format("[{}]", pl.col("history").cast(pl.List(pl.String)).list.join(", "))
        windows = made.windows(split).select("user_id", history_item_id=history, item_id="target")
        windows.write_csv(published / f"{split}.csv")
    back = prepare_windows(published, "d3", WindowOptions(), tmp_path / "back")
    for split in ("train", "valid", "test"):
        columns = ["user_id", "history", "target"]
        assert back.windows(split).select(columns).equals(made.windows(split).select(columns))
    with_window = pl.concat([made.windows(split) for split in ("train", "valid", "test")])["user_id"].unique()
    ours = made.interactions.filter(pl.col("user_id").is_in(with_window.implode()))
    assert (
        back.interactions.sort("user_id", maintain_order=True)
        .select("user_id", "item")
        .equals(ours.sort("user_id", maintain_order=True).select("user_id", "item"))
    )

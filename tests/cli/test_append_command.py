"""`catalign data append` as a user types it."""

import contextlib
import importlib.util
import json
import sqlite3
from pathlib import Path

import pytest

from catalign.data.dataset import load_dataset
from toy import mistake, works, write_tables


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The toy world as `ds`, and a week's log and new items for it."""
    works("data", "prepare", *write_tables(tmp_path), "--min-history", 2, "--output", tmp_path / "ds")
    (tmp_path / "week.csv").write_text(
        "user,item,time\nu003,i001,1700000000\nnew,i002,1700000001\nu003,i900,1700000002\nu003,none,1700000002\n"
    )
    (tmp_path / "new.csv").write_text("item,title\ni900,mauve lamp\n")
    return tmp_path


def test_a_week_is_appended(shop: Path) -> None:
    tables = ["--interactions", shop / "week.csv", "--items", shop / "new.csv"]
    said = works("data", "append", shop / "ds", *tables, "--output", shop / "ds2")
    assert "1 items, 1 users, 3 interactions more (split: time); windows: test 2" in said
    assert "dropped 1 of 4 interactions: item not in the item table" in said
    dataset = load_dataset(shop / "ds2")
    assert dataset.items["title"].to_list()[-1] == "mauve lamp"
    options = {name: value for name, value in dataset.card.options.items() if name != "instants"}
    assert options == load_dataset(shop / "ds").card.options
    shown = " ".join(works("data", "inspect", shop / "ds2").split())
    assert "1 items, 1 users, 3 interactions (split: time)" in shown


def test_in_place_with_other_columns(shop: Path) -> None:
    (shop / "week.csv").write_text("who;what;at\nu003;i001;2023-11-14T22:13:20Z\n")
    other = ["--user", "who", "--item", "what", "--time", "at", "--split", "train", "--in-place"]
    said = json.loads(works("data", "append", shop / "ds", "--interactions", shop / "week.csv", *other, "--json"))
    assert (said["interactions"], said["windows"]["train"], said["split"]) == (1, 1, "train")
    assert load_dataset(shop / "ds").windows("train")["timestamp"].to_list()[-1] == 1_700_000_000_000


def test_files_are_read_as_those_of_the_dataset_were(tmp_path: Path) -> None:
    log = "".join(f"u{n % 7}::{n % 5}::{1_600_000_000 + n}\n" for n in range(60))
    (tmp_path / "log.dat").write_text(log)
    (tmp_path / "items.csv").write_text("".join(f"{n}::Title {n}\n" for n in range(5)))
    works(
        "data", "prepare", "--interactions", tmp_path / "log.dat", "--items", tmp_path / "items.csv", "--user", "user",
        "--item", "item", "--time", "time", "--title", "title", "--delimiter", "::",
        "--interactions-header", "user,item,time", "--items-header", "item,title", "--output", tmp_path / "ds",
    )  # fmt: skip
    (tmp_path / "week.dat").write_text("u1::3::1700000000\nu1::4::1700000001\n")
    week = ["--interactions", tmp_path / "week.dat", "--output", tmp_path / "ds2"]
    assert "2 interactions more" in works("data", "append", tmp_path / "ds", *week)


def test_a_database_is_asked_for_what_is_new(shop: Path) -> None:
    with contextlib.closing(sqlite3.connect(shop / "shop.db")) as database, database:
        database.execute("CREATE TABLE log (user TEXT, item TEXT, time INTEGER)")
        database.executemany("INSERT INTO log VALUES (?, ?, ?)", [("u003", "i001", 1), ("u003", "i002", 1_700_000_000)])
    query = ["--interactions-query", "SELECT * FROM log WHERE time > 1600000000", "--output", shop / "ds2"]
    append = ["data", "append", shop / "ds", *query]
    assert "--interactions-query goes with --connection" in mistake(*append)
    if importlib.util.find_spec("adbc_driver_sqlite") is None:
        pytest.skip("the extra sql is not installed")
    assert "1 interactions more" in works(*append, "--connection", f"sqlite:///{shop / 'shop.db'}")
    (source,) = load_dataset(shop / "ds2").card.appended[0].sources
    assert source.name == "interactions query"


def test_published_windows_grow_too(tmp_path: Path) -> None:
    (tmp_path / "info.txt").write_text("Lamp\t0\nKettle\t1\n")
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.csv").write_text("user_id,history_item_id,item_id,timestamp\n7,[0],1,5\n")
    works("data", "prepare", tmp_path, "--output", tmp_path / "ds")
    (tmp_path / "week.csv").write_text("u,i,t\n7,0,9\n")
    week = ["data", "append", tmp_path / "ds", "--interactions", tmp_path / "week.csv", "--output", tmp_path / "ds2"]
    assert "--user is not given; choose from its columns: u, i, t" in mistake(*week)
    works(*week, "--user", "u", "--item", "i", "--time", "t")
    grown = load_dataset(tmp_path / "ds2")
    assert grown.windows("test").row(-1) == ("7", [0, 1], 0, 9_000)


def test_mistakes_are_told_in_one_line(shop: Path) -> None:
    week, output = ["--interactions", shop / "week.csv"], ["--output", shop / "ds2"]

    def refused(*arguments: object) -> str:
        return mistake("data", "append", shop / "ds", *arguments)

    assert "pass --output NEW_DATASET, or --in-place" in refused(*week)
    assert "not both" in refused(*week, *output, "--in-place")
    assert "pass --interactions, --items or both" in refused(*output)
    assert "already exists" in refused(*week, "--output", shop)
    assert "no column 'who'" in refused(*week, *output, "--user", "who")
    assert "no such file" in refused("--interactions", shop / "none.csv", *output)
    assert "no column 'title'" in refused("--items", shop / "week.csv", *output)
    assert "its user ids are not hashed" in refused(*week, *output, "--salt-file", salt_file(shop))
    assert "is not a dataset folder" in mistake("data", "append", shop, *week, *output)
    (shop / "new.csv").write_text("item,title\ni001,red lamp\n")
    assert "nothing is new (items: 1 already there)" in refused("--items", shop / "new.csv", *output)
    assert not (shop / "ds2").exists()


def salt_file(folder: Path) -> Path:
    (folder / "salt").write_text("a salt of sixteen bytes or more")
    return folder / "salt"


def test_the_salt_is_asked_for(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CATALIGN_SALT", raising=False)
    salt = ["--salt-file", salt_file(shop)]
    works("data", "prepare", *write_tables(shop), "--hash-users", *salt, "--output", shop / "hashed")
    week = ["data", "append", shop / "hashed", "--interactions", shop / "week.csv", "--output", shop / "ds2"]
    assert "there is no salt" in mistake(*week)
    assert "1 users, 2 interactions more" in works(*week, *salt)  # u003 is known
    (shop / "salt").write_text("another salt of sixteen bytes")
    assert "hashed with another salt" in mistake(*week[:-1], shop / "ds3", *salt)

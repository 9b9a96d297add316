"""Every form of two tables, written in small as it is published, and what becomes of broken ones."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import source_files
from catalign.data.layouts import recognise, table_source
from catalign.data.ledger import Ledger
from catalign.data.options import TableOptions
from catalign.data.prepare import prepare_tables
from catalign.data.tables import read_table
from catalign.errors import UserError
from source_files import LOG, TITLES

EVERY = pytest.mark.parametrize(("layout", "write"), source_files.TABLES.values(), ids=source_files.TABLES)
Write = Callable[[Path], None]


def made(folder: Path, output: Path, **options: Any) -> Any:
    return prepare_tables(table_source(folder, recognise(folder)), TableOptions(**options), output)


@EVERY
def test_every_form_gives_the_same_dataset(tmp_path: Path, layout: str, write: Write) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder)
    assert recognise(folder) == layout
    dataset = made(folder, tmp_path / "ds")
    assert dict(dataset.items.select("item_id", "title").iter_rows()) == TITLES
    names = dataset.items["item_id"]
    log = dataset.interactions.with_columns(item_id=names.gather(dataset.interactions["item"]))
    assert set(log.select("user_id", "item_id", "timestamp").iter_rows()) == {(u, i, t * 1000) for u, i, _, t in LOG}
    assert log.height == len(LOG)
    if layout not in ("lastfm", "steam"):
        assert sorted(log["rating"]) == sorted(rating for _, _, rating, _ in LOG)
    everything = "".join(str(frame.to_dicts()) for frame in (dataset.items, dataset.interactions))
    assert "SECRET" not in everything + (tmp_path / "ds" / "rejects.jsonl").read_text()  # the text of reviews


@EVERY
def test_a_set_in_a_folder_of_its_own_is_found(tmp_path: Path, layout: str, write: Write) -> None:
    (tmp_path / "download" / "inner").mkdir(parents=True)
    (tmp_path / "download" / "README").write_text("about")
    write(tmp_path / "download" / "inner")
    assert recognise(tmp_path / "download") == layout
    source = table_source(tmp_path / "download", layout)
    assert source.items.files[0].parent == tmp_path / "download" / "inner"  # type: ignore[union-attr]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def text_of(data: bytes) -> bytes:
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": cut,
    "first line only": lambda data: text_of(data).split(b"\n")[0] + b"\n",
    "first line gone": lambda data: text_of(data).partition(b"\n")[2],
    "first line twice": lambda data: text_of(data).partition(b"\n")[0] + b"\n" + text_of(data),
    "no text": lambda data: data[:40] + b"\xff\xfe\x00\x81" + data[40:],
    "quotation mark": lambda data: text_of(data)[:-30] + b'"' + text_of(data)[-30:],
    "one line": lambda data: text_of(data).replace(b"\n", b" "),
    "other delimiter": lambda data: text_of(data).replace(b",", b"^").replace(b"\t", b"^").replace(b":", b"^"),
    "blank lines": lambda data: text_of(data).replace(b"\n", b"\n\n"),
    "utf-16": lambda data: text_of(data).decode("utf-8", errors="replace").encode("utf-16"),
}


@EVERY
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_told_or_its_rows_are_counted(tmp_path: Path, layout: str, write: Write, how: str) -> None:
    write(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        broken = BROKEN[how](whole)
        path.write_bytes(
            gzip.compress(broken) if path.suffix == ".gz" and how not in ("empty", "cut", "no text") else broken
        )
        ledger = Ledger()
        try:
            source = table_source(tmp_path, layout)
            items = read_table(source.items, {"id": source.item_id, "t": source.title}, table_name="i", ledger=ledger)
            log = read_table(source.interactions, {"u": source.user, "i": source.item}, table_name="l", ledger=ledger)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert (items.height, log.height) == (ledger.kept("i"), ledger.kept("l"))
        path.write_bytes(whole)


def test_several_categories_are_chosen_by_name(tmp_path: Path) -> None:
    source_files.amazon_2018(tmp_path)
    for old, new in (("Toys_5.json.gz", "Books_5.json.gz"), ("meta_Toys.json.gz", "meta_Books.json.gz")):
        (tmp_path / new).write_bytes((tmp_path / old).read_bytes())
    with pytest.raises(UserError, match=r"holds several pairs .*choose one with --name \(books_5, toys_5\)"):
        table_source(tmp_path, "amazon")
    chosen = table_source(tmp_path, "amazon", name="Books")
    assert [table.files[0].name for table in (chosen.interactions, chosen.items)] == [
        "Books_5.json.gz",
        "meta_Books.json.gz",
    ]
    (tmp_path / "Books.json.gz").write_bytes((tmp_path / "Books_5.json.gz").read_bytes())
    assert table_source(tmp_path, "amazon", name="books_5").interactions.files[0].name == "Books_5.json.gz"
    assert table_source(tmp_path, "amazon", name="books").interactions.files[0].name == "Books.json.gz"
    with pytest.raises(UserError, match="no pairs of reviews and metadata called 'music'"):
        table_source(tmp_path, "amazon", name="music")
    with pytest.raises(UserError, match="--name goes with the layouts"):
        table_source(tmp_path, "movielens", name="music")


def test_given_splits_of_amazon_and_recbole_are_taken_as_given(tmp_path: Path) -> None:
    parts = {"train": LOG[:40], "valid": LOG[40:50], "test": LOG[50:]}
    amazon, recbole = tmp_path / "amazon", tmp_path / "recbole"
    for folder in (amazon, recbole):
        folder.mkdir()
    for part, rows in parts.items():
        rows_ms = [(user, item, rating, time * 1000) for user, item, rating, time in rows]
        header = ["user_id", "parent_asin", "rating", "timestamp"]
        source_files.put(amazon, f"Toys.{part}.csv", source_files.table(header, rows_ms))
        text = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + source_files.lines(rows, "\t")
        source_files.put(recbole, f"toys.{part}.inter", text)
    source_files.put(amazon, "meta_Toys.jsonl", source_files.meta_of_2023())
    names = "item_id:token\ttitle:token_seq\n" + source_files.lines(list(TITLES.items()), "\t")
    source_files.put(recbole, "toys.item", names)
    for folder in (amazon, recbole):
        dataset = made(folder, tmp_path / f"{folder.name}-ds")
        counts = dict(dataset.interactions["split"].value_counts().iter_rows())
        assert counts == {"train": 40, "valid": 10, "test": 10}
        with pytest.raises(UserError, match="--split chronological does not go with given splits"):
            made(folder, tmp_path / "no", split="chronological")
    (recbole / "toys.valid.inter").unlink()
    with pytest.raises(UserError, match=r"there is no toys\.valid\.inter"):
        table_source(recbole, "recbole")
    (amazon / "Toys.valid.csv").unlink()
    with pytest.raises(UserError, match="does not hold the three splits of toys"):
        table_source(amazon, "amazon")


def test_tags_of_one_artist_count_once_unless_told_otherwise(tmp_path: Path) -> None:
    source_files.lastfm(tmp_path)
    dataset = made(tmp_path, tmp_path / "ds")
    assert dataset.card.dropped["interactions"] == {"repeated (user, item) pair": len(LOG)}
    assert "tags" in dataset.card.warnings[0]
    assert made(tmp_path, tmp_path / "all", duplicates="keep").card.interactions == 2 * len(LOG)


def test_artists_without_times_need_another_split(tmp_path: Path) -> None:
    source_files.lastfm(tmp_path)
    (tmp_path / "user_taggedartists-timestamps.dat").unlink()
    with pytest.raises(UserError, match="needs timestamps"):
        made(tmp_path, tmp_path / "ds")
    dataset = made(tmp_path, tmp_path / "ds", split="leave-one-out")
    assert dataset.card.interactions == len(LOG)
    assert "no times" in dataset.card.warnings[0]


def test_what_australian_users_own_is_unfolded(tmp_path: Path) -> None:
    owned: dict[str, list[dict[str, Any]]] = {}
    for user, item, _, _ in LOG:
        owned.setdefault(user, []).append({"item_id": item, "item_name": TITLES[item], "playtime_forever": 6})
    users = [{"user_id": user, "items_count": len(items), "items": items} for user, items in owned.items()]
    text = source_files.literals([*users, {"user_id": "none", "items_count": 0, "items": []}])
    source_files.put(tmp_path, "australian_users_items.json.gz", text + "{'user_id': 'cut\n")
    assert recognise(tmp_path) == "steam"
    dataset = made(tmp_path, tmp_path / "ds", split="leave-one-out")
    names = dataset.items["item_id"].gather(dataset.interactions["item"])
    pairs = dataset.interactions.select("user_id", item_id=names).rows()
    assert pairs == [(user, item) for user, item, _, _ in LOG]
    assert dataset.card.dropped["interactions"] == {"not JSON": 1}
    rejects = [json.loads(line) for line in (tmp_path / "ds" / "rejects.jsonl").read_text().splitlines()]
    assert [reject["row"] for reject in rejects if reject["reason"] == "not JSON"] == [12, 12]


@pytest.mark.parametrize(
    ("write", "name", "content", "message"),
    [
        (source_files.movielens_latest, "ratings.csv", "userId,movieId,rating\n1,1,1\n", "no column 'timestamp'"),
        (source_files.movielens_1m, "ratings.dat", "1:1:1:1\n", "1 fields in its first row where 4 are expected"),
        (source_files.movielens_100k, "u.item", "1|A|B\n", "3 fields in its first row where 24 are expected"),
        (source_files.amazon_2014, "meta_Toys.json.gz", "{'asin': '1'}\n", "no column 'title'"),
        (source_files.recbole, "toys.item", "item_id:token\tprice:float\n1\t2\n", "no column of titles"),
        (source_files.recbole, "toys.item", "sku:token\ttitle:token\n1\t2\n", "no column of items that the item"),
        (source_files.recbole, "toys.item", None, r"there is no toys\.item"),
        (source_files.amazon_2018, "meta_Toys.json.gz", None, "no file of metadata"),
        (source_files.amazon_2018, "Toys_5.json.gz", None, "no file of reviews"),
        (source_files.steam, "steam_games.json.gz", None, r"there is no steam_games\.json"),
        (source_files.shop, "items.jsonl", None, r"there is no items\.csv"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(tmp_path: Path, write: Write, name: str, content: str | None, message: str) -> None:
    write(tmp_path)
    layout = recognise(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        source_files.put(tmp_path, name, content)
    with pytest.raises(UserError, match=message):
        prepare_tables(table_source(tmp_path, layout), TableOptions(), tmp_path / "ds")
    assert not (tmp_path / "ds").exists()


def test_metadata_worth_keeping_comes_along(tmp_path: Path) -> None:
    kept = {}
    for name in ("movielens_latest", "movielens_100k", "steam", "amazon_2014", "amazon_2018", "amazon_2023", "recbole"):
        (tmp_path / name).mkdir()
        source_files.TABLES[name][1](tmp_path / name)
        kept[name] = table_source(tmp_path / name, recognise(tmp_path / name)).metadata
    assert kept == {
        "movielens_latest": ["genres"], "movielens_100k": ["release_date"], "steam": ["genres", "publisher", "price"],
        "amazon_2014": ["brand", "categories"], "amazon_2018": ["brand", "category"],
        "amazon_2023": ["store", "main_category", "price"], "recbole": ["genre:token_seq"],
    }  # fmt: skip


def test_the_small_world_is_what_it_says(tmp_path: Path) -> None:
    """The small world itself: nobody meets an item twice, and every item is met."""
    log = pl.DataFrame(LOG, orient="row", schema=["user", "item", "rating", "time"])
    assert log.select("user", "item").is_unique().all()
    assert set(log["item"]) == TITLES.keys()

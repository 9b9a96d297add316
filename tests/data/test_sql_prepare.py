"""A generated shop through SQLite and PostgreSQL: the dataset is that of its CSV files."""

import csv
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import toy
from catalign.data.dataset import Dataset, SourceQuery, load_dataset
from catalign.data.sql import OpenQuery
from postgres_server import OWNER, PASSWORD, PostgresServer

for driver in ("adbc_driver_sqlite", "adbc_driver_postgresql"):
    pytest.importorskip(driver, reason="the extra sql is not installed")

COLUMNS = ["--user", "user_id", "--item", "item_id", "--time", "timestamp", "--rating", "rating", "--title", "title"]
RULES = ["--k-core", "2", "--duplicates", "first", "--min-history", "2"]
LOG = "SELECT user_id, item_id, timestamp, rating FROM purchases ORDER BY number"
TITLES = "SELECT item_id, title, department FROM goods ORDER BY number"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "shop"
    toy.works("data", "sample", "--users", 200, "--items", 60, "--output", folder)
    return folder


@pytest.fixture(scope="module")
def from_files(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    output = tmp_path_factory.mktemp("files") / "ds"
    tables = ["--interactions", shop / "interactions.csv", "--items", shop / "items.csv"]
    toy.works("data", "prepare", *tables, *COLUMNS, "--metadata", "department", *RULES, "--output", output)
    return load_dataset(output)


@pytest.fixture(scope="module")
def sqlite_shop(shop: Path) -> str:
    with sqlite3.connect(shop / "shop.db") as database:
        for table, name in (("purchases", "interactions.csv"), ("goods", "items.csv")):
            with (shop / name).open(newline="") as file:
                header, *rows = csv.reader(file)
            database.execute(f"CREATE TABLE {table} (number INTEGER PRIMARY KEY, {', '.join(header)})")
            marks = ", ".join("?" * len(header))
            database.executemany(f"INSERT INTO {table} ({', '.join(header)}) VALUES ({marks})", rows)
    database.close()
    return f"sqlite:///{shop / 'shop.db'}"


@pytest.fixture(scope="module")
def server(shop: Path, postgres: PostgresServer) -> PostgresServer:
    """With the types that a shop would use: a time zone, a number, an enumeration."""
    kinds = pl.read_csv(shop / "items.csv")["department"].unique().sort()
    postgres.run(
        f"CREATE TYPE kind AS ENUM ({', '.join(repr(kind) for kind in kinds)});"
        "CREATE TABLE purchases (number serial, user_id text, item_id varchar(20), timestamp timestamptz,"
        " rating numeric(3, 1));"
        "CREATE TABLE goods (number serial, item_id varchar(20), title text, department kind, price real)"
    )
    log = "COPY purchases (user_id, item_id, timestamp, rating) FROM STDIN (FORMAT csv, HEADER)"
    postgres.run(f"SET timezone = 'UTC'; {log}", table=shop / "interactions.csv")
    titles = "COPY goods (item_id, title, department, price) FROM STDIN (FORMAT csv, HEADER)"
    postgres.run(titles, table=shop / "items.csv")
    return postgres


def prepared(output: Path, *arguments: object) -> Dataset:
    toy.works("data", "prepare", *arguments, *COLUMNS, "--metadata", "department", *RULES, "--output", output)
    return load_dataset(output)


def assert_same(dataset: Dataset, other: Dataset) -> None:
    for table in ("items", "interactions"):
        assert getattr(dataset, table).equals(getattr(other, table)), table
    for split in ("train", "valid", "test"):
        assert dataset.windows(split).equals(other.windows(split)), split
    assert dataset.card.rows_in == other.card.rows_in
    assert dataset.card.dropped == other.card.dropped


def test_sqlite_gives_the_dataset_of_the_files(sqlite_shop: str, from_files: Dataset, tmp_path: Path) -> None:
    queries = ["--connection", sqlite_shop, "--interactions-query", LOG, "--items-query", TITLES]
    dataset = prepared(tmp_path / "ds", *queries)
    assert_same(dataset, from_files)
    items, log = dataset.card.sources
    assert isinstance(items, SourceQuery) and isinstance(log, SourceQuery)
    assert (items.name, items.connection, items.query) == ("items query", sqlite_shop, TITLES)
    assert (items.rows, log.rows) == (from_files.card.rows_in["items"], from_files.card.rows_in["interactions"])
    assert prepared(tmp_path / "again", *queries).card.sources == dataset.card.sources


def test_names_of_tables_and_files_beside_a_database(
    shop: Path, sqlite_shop: str, from_files: Dataset, tmp_path: Path
) -> None:
    database = ["--connection", sqlite_shop, "--interactions-query", "purchases"]
    assert_same(prepared(tmp_path / "ds", *database, "--items", shop / "items.csv"), from_files)


@pytest.mark.postgres
def test_postgresql_gives_the_dataset_of_the_files(
    server: PostgresServer, from_files: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = ["--interactions-query", LOG + ";", "--items-query", TITLES]
    dataset = prepared(tmp_path / "ds", "--connection", server.address(), *queries)
    assert_same(dataset, from_files)
    card = (tmp_path / "ds" / "dataset.json").read_text()
    shown = f"postgresql://{OWNER}:***@127.0.0.1:{server.port}/postgres"
    assert [source["connection"] for source in json.loads(card)["sources"]] == [shown, shown]
    written = b"".join(path.read_bytes() for path in (tmp_path / "ds").rglob("*") if path.is_file())
    assert PASSWORD.encode() not in written and b"sesame" not in written
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert_same(prepared(tmp_path / "env", "--connection", server.address(password=None), *queries), from_files)


def refused(output: Path, *arguments: object) -> str:
    said = toy.mistake("data", "prepare", *arguments, "--output", output)
    assert not list(output.parent.iterdir()), "something half-written"
    return said


def test_mistakes_with_queries(sqlite_shop: str, tmp_path: Path) -> None:
    output, where = tmp_path / "ds", f"{sqlite_shop}, interactions query"
    both = ["--connection", sqlite_shop, "--interactions-query", "purchases", "--items-query", "goods"]
    assert refused(output, *both).startswith(f"{where}: --user is not given; choose from its columns: number, user_id")
    misspelt = refused(output, *both, *COLUMNS, "--user", "user")
    assert misspelt.startswith(f"{where}: there is no column 'user'; did you mean 'user_id'?")
    assert "no such table: orders" in refused(output, *both, "--interactions-query", "orders", *COLUMNS)
    assert refused(output, *both[:2]) == "--connection goes with --interactions-query and --items-query"
    assert refused(output, *both[2:], *COLUMNS) == "--interactions-query goes with --connection"
    assert "two places of one table" in refused(output, *both, "--items", "items.csv")
    assert "--connection goes with tables of your own" in refused(output, output, *both)
    empty = refused(output, *both, "--interactions-query", "SELECT * FROM purchases WHERE 0", *COLUMNS)
    assert empty == f"{where}: the table has no rows"
    unknown = "SELECT user_id, 'x' || item_id AS item_id, timestamp, rating FROM purchases ORDER BY number"
    none = refused(output, *both, "--interactions-query", unknown, *COLUMNS)
    assert none.startswith(f"{where}, row 1: no interaction is left")


@pytest.mark.postgres
def test_mistakes_with_a_server(server: PostgresServer, tmp_path: Path) -> None:
    queries = ["--interactions-query", "purchases", "--items-query", "goods", *COLUMNS]
    wrong = refused(tmp_path / "ds", "--connection", server.address(password="hunter2"), *queries)
    assert "password authentication failed" in wrong and "hunter2" not in wrong
    shown = f"postgresql://{OWNER}:***@127.0.0.1:{server.port}/postgres, items query"
    assert wrong.startswith(shown)
    nobody = refused(tmp_path / "ds", "--connection", "postgresql://ann:hunter2@127.0.0.1:1/shop", *queries)
    assert "Connection refused" in nobody and "hunter2" not in nobody


@pytest.mark.postgres
def test_a_server_that_dies_on_the_way_leaves_nothing(
    mortal_postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Any = OpenQuery.frames

    def then_die(query: OpenQuery, columns: list[str]) -> Iterator[pl.DataFrame]:
        for number, frame in enumerate(read(query, columns)):
            if number == 1 and "user_id" in columns:
                mortal_postgres.kill()
            yield frame

    monkeypatch.setattr(OpenQuery, "frames", then_die)
    many = "(SELECT generate_series(1, 30000000) AS n) AS many"
    log = f"SELECT n % 1000 AS user_id, n % 50 AS item_id, n AS timestamp FROM {many}"
    titles = "SELECT generate_series(0, 49) AS item_id, 'title' AS title"
    queries = ["--connection", mortal_postgres.address(), "--interactions-query", log, "--items-query", titles]
    columns = [option for option in COLUMNS if option not in ("--rating", "rating")]
    said = refused(tmp_path / "ds", *queries, *columns)
    assert "interactions query: " in said and said.endswith("; run again when the server is up")

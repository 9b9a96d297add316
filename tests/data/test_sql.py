"""Queries of real databases: SQLite files, and a PostgreSQL server that the tests start themselves."""

import hashlib
import itertools
import sqlite3
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalign.data.connection import read_connection
from catalign.data.sql import RowDigest, open_query
from catalign.errors import UserError
from postgres_server import OWNER, PASSWORD, PostgresServer

for driver in ("adbc_driver_sqlite", "adbc_driver_postgresql"):
    pytest.importorskip(driver, reason="the extra sql is not installed")

SECRET = "hunter2"


def read(address: str, query: str, *columns: str) -> pl.DataFrame:
    with open_query(address, query, "here") as opened:
        return pl.concat(list(opened.frames(columns)))


def refusal(address: str, query: str, *columns: str) -> str:
    with pytest.raises(UserError) as refused:
        read(address, query, *columns)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def sqlite_with(folder: Path, *statements: str) -> str:
    with sqlite3.connect(folder / "shop.db") as database:
        for statement in statements:
            database.execute(statement)
    database.close()
    return f"sqlite:///{folder / 'shop.db'}"


def test_sqlite_gives_text_whatever_it_holds(tmp_path: Path) -> None:
    nulls = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 70000) SELECT NULL FROM n"
    address = sqlite_with(
        tmp_path,
        "CREATE TABLE log (who)",
        f"INSERT INTO log {nulls}",
        "INSERT INTO log VALUES ('007'), (7), (0.5), ('')",
    )
    rows = read(address, "SELECT who, 'é' AS accent FROM log;", "who", "accent")
    assert dict(rows.schema) == {"who": pl.String, "accent": pl.String}
    assert rows["who"].null_count() == 70_001
    assert rows["who"].drop_nulls().to_list() == ["007", "7", "0.5"]
    assert set(rows["accent"]) == {"é"}


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    address = sqlite_with(tmp_path, "CREATE TABLE log (who, what)")
    assert dict(read(address, "log", "what").schema) == {"what": pl.String}
    with open_query(address, "log", "here") as opened:
        assert opened.columns == ["who", "what"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "the query is empty; write one SELECT"),
        ("selec 1", 'near "selec": syntax error'),
        ("SELECT nope FROM log", "no such column: nope"),
        ("absent", "no such table: absent"),
        ("SELECT who, who FROM log", "the column 'who' is there twice"),
        ("DELETE FROM log RETURNING who", "syntax error"),
        ("SELECT who FROM log; SELECT 1", "syntax error"),
        ("SELECT CAST(x'414243FF' AS TEXT) AS who FROM log", "here, row 1: the text is not UTF-8"),
    ],
)
def test_sqlite_refusals_in_one_line(tmp_path: Path, query: str, said: str) -> None:
    address = sqlite_with(tmp_path, "CREATE TABLE log (who)", "INSERT INTO log VALUES (1)")
    assert said in refusal(address, query, "who")
    assert read(address, "log", "who").height == 1


def test_sqlite_files_that_are_none(tmp_path: Path) -> None:
    assert "no such file" in refusal(f"sqlite:///{tmp_path / 'nothing.db'}", "log", "who")
    assert not (tmp_path / "nothing.db").exists()
    (tmp_path / "text.db").write_text("who,what\n" * 100)
    assert "file is not a database" in refusal(f"sqlite:///{tmp_path / 'text.db'}", "log", "who")
    assert "an absolute path has four slashes" in refusal("sqlite:///tmp/nothing.db", "log", "who")


def test_a_missing_driver_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "adbc_driver_sqlite.dbapi", None)
    address = sqlite_with(tmp_path, "CREATE TABLE log (who)")
    assert "pip install 'catalign[sql]'" in refusal(address, "log", "who")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"postgresql://ann:{SECRET}@host:5432/shop", "postgresql://ann:***@host:5432/shop"),
        (f"postgres://ann:{SECRET}@[::1]:5432/shop", "postgresql://ann:***@[::1]:5432/shop"),
        (f"postgresql:///shop?host=/run/pg&password={SECRET}", "postgresql:///shop?host=/run/pg&password=***"),
        (f"postgresql://h/shop?oauth_client_secret={SECRET}", "postgresql://h/shop?oauth_client_secret=***"),
        (f"postgresql://h/shop?Pwd={SECRET}&port=1", "postgresql://h/shop?Pwd=***&port=1"),
        ("postgresql://ann@one,two:5433/shop", "postgresql://ann@one,two:5433/shop"),
        ("sqlite:////data/a b.db", "sqlite:////data/a b.db"),
    ],
)
def test_addresses_are_shown_without_their_password(address: str, shown: str) -> None:
    connection = read_connection(address)
    assert connection.shown == shown
    assert SECRET not in repr(connection)


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://ann:12/{SECRET}@host/shop",
        f"postgresql://ann:12?{SECRET}@host/shop",
        f"postgresql://ann:12#{SECRET}@host/shop",
        f"postgresql://ann:{SECRET} 1@host/shop",
        f"postgresql://ann:x:{SECRET}/@host/shop",
        f"postgresql://[ann:{SECRET}@host/shop",
        f"postgresql://ann@host/shop?{SECRET}",
        f"mysql://ann:{SECRET}@host/shop",
        f"ann:{SECRET}@host",
        "sqlite://shop.db",
        "sqlite:///",
    ],
)
def test_an_address_that_cannot_be_read_is_not_shown(address: str) -> None:
    said = refusal(address, "log", "who")
    assert "is not the address of a database" in said
    assert SECRET not in said


@given(password=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12))
def test_no_password_reaches_an_error_line(password: str) -> None:
    """Whatever stands where the password belongs, encoded or not; nothing listens at that port."""
    secret = f"{SECRET}{password}{SECRET}"
    said = refusal(f"postgresql://ann:{secret}@127.0.0.1:1/shop?connect_timeout=2", "log", "who")
    assert SECRET not in said


@given(cuts=st.lists(st.integers(0, 5), max_size=4))
def test_the_digest_is_that_of_the_rows_as_csv(cuts: list[int]) -> None:
    frame = pl.DataFrame({"who": ["a", None, "", 'say "x"', "é"], "what": [1, 2, 3, None, 5]})
    digest = RowDigest()
    edges = [0, *sorted(cuts), 5]
    for start, end in itertools.pairwise(edges):
        digest.add(frame[start:end])
    text = 'a,1\n,2\n"",3\n"say ""x""",\né,5\n'.encode()
    assert (digest.rows, digest.bytes, digest.sha256) == (5, len(text), hashlib.sha256(text).hexdigest())


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.postgres
def test_types_of_postgresql(postgres: PostgresServer) -> None:
    values = {
        "whole": "7", "big": "9007199254740993", "exact": "4.50::numeric", "real": "0.5::float8", "yes": "true",
        "padded": "'x'::char(4)", "id": "'00000000-0000-0000-0000-000000000007'::uuid", "nothing": "NULL",
        "day": "'2020-02-29'::date", "local": "'2020-02-29 12:00'::timestamp",
        "zoned": "'2020-02-29 12:00+02'::timestamptz", "never": "'infinity'::timestamp", "many": "ARRAY[1,2]",
        "document": """'{"a": 1}'::jsonb""", 'Odd "name': "'o'",
    }  # fmt: skip
    query = "SELECT " + ", ".join(
        f'{value} AS "{name.replace(chr(34), chr(34) * 2)}"' for name, value in values.items()
    )
    row = read(postgres.address(), query, *values)
    assert row.select("padded", "id", "exact", "many", "document", "nothing", 'Odd "name').row(0) == (
        "x", "00000000-0000-0000-0000-000000000007", "4.50", "{1,2}", '{"a": 1}', None, "o",
    )  # fmt: skip
    assert row.select("whole", "big", "real", "yes").row(0) == (7, 9007199254740993, 0.5, True)
    assert row.select(pl.col("day", "local", "zoned", "never").cast(pl.Datetime("ms")).dt.epoch("s")).row(0) == (
        1582934400, 1582977600, 1582970400, None,
    )  # fmt: skip


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("selec 1", 'here: syntax error at or near "selec"; write one SELECT, or the name of a table'),
        ("SELECT nope FROM pg_class", 'here: column "nope" does not exist'),
        ("absent", 'here: relation "absent" does not exist'),
        ("-- nothing", "here: is not a query that returns rows"),
        ("SELECT 1 AS who; SELECT 2", "here: cannot insert multiple commands"),
        ("SELECT 1 AS who, 2 AS who", "here: the column 'who' is there twice"),
        ("CREATE TABLE made (who int)", "here: is not a query that returns rows"),
        ("SELECT nextval('counter') AS who", "here: cannot execute nextval() in a read-only transaction"),
        ("SELECT 1 / (who - 400000) AS who FROM generate_series(1, 500000) who", "here: division by zero"),
        ("SELECT who FROM secrets", "here: permission denied for table secrets"),
    ],
)
def test_postgresql_refusals_in_one_line(postgres: PostgresServer, query: str, said: str) -> None:
    postgres.run(
        "CREATE SEQUENCE IF NOT EXISTS counter; CREATE TABLE IF NOT EXISTS secrets (who int);"
        "DO $$ BEGIN CREATE ROLE guest LOGIN PASSWORD 'guest'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        "GRANT ALL ON SEQUENCE counter TO guest"
    )
    guest = postgres.address(password="guest").replace(OWNER, "guest")
    assert refusal(guest, query, "who").startswith(said)


@pytest.mark.postgres
def test_who_may_come_in(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = refusal(postgres.address(password=SECRET), "SELECT 1 AS one", "one")
    assert "password authentication failed" in wrong and "PGPASSWORD" in wrong
    assert SECRET not in wrong
    assert "no password supplied; pass it in the environment" in refusal(postgres.address(password=None), "x", "one")
    assert 'database "nope" does not exist' in refusal(postgres.address(database="nope"), "x", "one")
    gone = refusal("postgresql://ann@127.0.0.1:1/shop", "x", "one")
    assert "Connection refused" in gone and "that the server runs" in gone
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert read(postgres.address(password=None), "SELECT 1 AS one", "one").item() == 1


@pytest.mark.postgres
def test_a_database_in_another_encoding(postgres: PostgresServer) -> None:
    postgres.run("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    postgres.run("CREATE DATABASE raw ENCODING 'SQL_ASCII' TEMPLATE template0")
    assert read(postgres.address(database="latin"), "SELECT chr(233) AS title", "title").item() == "é"
    said = refusal(postgres.address(database="raw"), "SELECT convert_from('\\xe9', 'SQL_ASCII') AS title", "title")
    assert said == 'here: invalid byte sequence for encoding "UTF8": 0xe9'


@pytest.mark.postgres
def test_a_server_that_dies_while_rows_come(mortal_postgres: PostgresServer) -> None:
    numbers = "SELECT generate_series(1, 30000000) AS n"
    with open_query(mortal_postgres.address(), numbers, "here") as opened:
        frames = opened.frames(["n"])
        assert next(frames).is_empty() and next(frames).height > 0
        mortal_postgres.kill()
        with pytest.raises(
            UserError, match=r"^here: .*server closed the connection.*; run again when the server is up$"
        ):
            list(frames)

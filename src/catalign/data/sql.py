"""Queries of a database as streams of frames: PostgreSQL and SQLite through ADBC (the extra `sql`)."""

import contextlib
import hashlib
import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import polars as pl
import pyarrow as pa

from catalign.data.connection import Connection, read_connection, sqlite_file
from catalign.errors import UserError

_SELECT = "write one SELECT, or the name of a table"
_MENDS = {  # by what the database says
    "password": "pass it in the environment variable PGPASSWORD, in ~/.pgpass or in the connection",
    "syntax error": _SELECT,
    "connection to server": "check the address of the database, and that the server runs",
    "closed the connection": "run again when the server is up",
}
_TABLE_NAME = re.compile(r'(?:"[^"]+"|[\w$]+)(?:\.(?:"[^"]+"|[\w$]+))*')
_SQLITE_ROWS = 65_536  # in a batch; the driver's own 1,024 make many small frames
_YEARS = "BETWEEN '0001-01-01' AND '9999-12-31'"  # infinity is no time, and Python counts no other years


@dataclass
class RowDigest:
    """What a stream of rows held: stands for the hash of a file where there is no file.

    Attributes:
        rows: how many rows there were.
        bytes: their length as CSV, without a header.
    """

    rows: int = 0
    bytes: int = 0
    _hash: Any = field(default_factory=hashlib.sha256, repr=False)

    @property
    def sha256(self) -> str:
        """SHA-256 of that CSV in hexadecimal; the same rows in another order have another."""
        return cast(str, self._hash.hexdigest())

    def add(self, frame: pl.DataFrame) -> None:
        """Add the rows of a chunk; how the rows are cut into chunks changes nothing."""
        text = frame.write_csv(include_header=False).encode()
        self._hash.update(text)
        self.rows += frame.height
        self.bytes += len(text)


class OpenQuery:
    """A query whose rows can be read once, on a connection that only reads.

    Attributes:
        columns: the names of its columns.
    """

    def __init__(self, cursor: Any, connection: Connection, text: str, where: str) -> None:
        self._cursor = cursor
        self._connection = connection
        self._text = text
        self._where = where
        self._schema = self._described()
        self.columns: list[str] = self._schema.names

    def frames(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield the rows as they arrive, one frame at least, perhaps empty; only these columns leave the database.

        Numbers, dates and times of PostgreSQL keep their type, everything else is text. SQLite types values and not
        columns, so all is text there, null where it is empty.

        Raises:
            UserError: a column is there twice, the query fails or the connection breaks while rows come, or a text is
                not UTF-8.
        """
        selected = ", ".join(f"{self._expression(column)} AS {_quoted(column)}" for column in columns)
        with _telling(self._where):
            self._cursor.execute(f"SELECT {selected} FROM (\n{self._text}\n) AS source")
            batches = self._cursor.fetch_record_batch()
        yield self._frame(batches.schema.empty_table())
        rows = 0
        while True:
            with _telling(self._where):
                try:
                    batch = batches.read_next_batch()
                except StopIteration:
                    return
            _check_text(batch, rows, self._where)
            yield self._frame(batch)
            rows += batch.num_rows

    def _described(self) -> pa.Schema:
        """The columns of the query and, of PostgreSQL, their types; no row is read."""
        with _telling(self._where):
            if self._connection.kind == "postgresql":
                schema = self._cursor.adbc_execute_schema(self._text)
            else:
                self._cursor.adbc_prepare(self._text)  # on its own first: a mistake is told in the user's own words
                self._cursor.execute(f"SELECT * FROM (\n{self._text}\n) LIMIT 0")
                schema = self._cursor.fetch_record_batch().schema
        if not schema.names:
            raise UserError("is not a query that returns rows", where=self._where, mend=_SELECT)
        return schema

    def _expression(self, column: str) -> str:
        """The SQL that reads a column."""
        if self.columns.count(column) > 1 or f"{column}:1" in self.columns:  # how SQLite calls the second
            raise UserError(f"the column {column!r} is there twice", where=self._where, mend="rename one with AS")
        name = _quoted(column)
        if self._connection.kind == "sqlite":
            return f"COALESCE(CAST({name} AS TEXT), '')"  # the driver would take a leading null for a number
        kind = self._schema.field(column).type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            return name
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return f"CASE WHEN {name} {_YEARS} THEN {name} END"
        return f"CAST({name} AS TEXT)"

    def _frame(self, data: pa.Table | pa.RecordBatch) -> pl.DataFrame:
        frame = cast(pl.DataFrame, pl.from_arrow(data))
        if self._connection.kind == "postgresql":
            return frame
        text = pl.all().cast(pl.String)
        return frame.select(pl.when(text != "").then(text))


@contextlib.contextmanager
def open_query(connection: str, query: str, where: str) -> Iterator[OpenQuery]:
    """Connect and prepare a query; what is left unread is thrown away at the end.

    PostgreSQL runs it in a read-only transaction, SQLite on a file opened for reading.

    Args:
        connection: see `connection.read_connection`.
        query: SQL that returns rows, or the name of a table.
        where: the place for messages.

    Raises:
        UserError: no driver, no such server or file, refused by the server, no query. Its line never holds a password.
    """
    parsed, text = read_connection(connection), _as_query(query, where)
    driver = _driver(parsed.kind)
    if parsed.kind == "sqlite":
        sqlite_file(parsed)
    with _telling(where):
        opened = driver.connect(parsed.address)
    with contextlib.closing(opened), contextlib.closing(opened.cursor()) as cursor:
        if parsed.kind == "sqlite":
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(_SQLITE_ROWS)})
        else:
            cursor.execute("SET TRANSACTION READ ONLY")
        yield OpenQuery(cursor, parsed, text, where)


def _driver(kind: str) -> Any:
    """Import a driver when it is needed: only those who read from a database have it."""
    try:
        return importlib.import_module(f"adbc_driver_{kind}.dbapi")
    except ImportError as error:
        raise UserError(
            f"the driver for {kind} is not installed", where="--connection", mend="pip install 'catalign[sql]'"
        ) from error


@contextlib.contextmanager
def _telling(where: str) -> Iterator[None]:
    """Turn what a driver says into a line for the user."""
    import adbc_driver_manager

    try:
        yield
    except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
        said = _said(str(error))
        mend = next((mend for words, mend in _MENDS.items() if words in said), None)
        raise UserError(said, where=where, mend=mend) from error


def _said(message: str) -> str:
    """What the database says, without the driver's own words around it, the query and the position in it."""
    message = re.split(r"\nLINE \d+:|\nQuery was:|\nquery:|\. SQLSTATE:", message)[0]
    return re.split(r"ERROR:|FATAL:|Failed to [a-z ]+:|\[SQLite\]|\[libpq\]", message)[-1].strip()


def _as_query(query: str, where: str) -> str:
    """The query without the semicolon at its end; the name of a table as a query for all of it."""
    text = query.strip().rstrip(";").strip()
    if not text:
        raise UserError("the query is empty", where=where, mend=_SELECT)
    return f"SELECT * FROM {text}" if _TABLE_NAME.fullmatch(text) else text


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _check_text(batch: pa.RecordBatch, rows: int, where: str) -> None:
    """Refuse text that is not UTF-8: SQLite lets it in."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        at = re.search(r"string index (\d+)", str(error))
        row = f", row {rows + 1 + int(at[1])}" if at else ""
        raise UserError("the text is not UTF-8", where=f"{where}{row}", mend="correct it in the database") from error

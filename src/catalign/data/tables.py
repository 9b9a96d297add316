"""Tables of any usual kind (CSV, TSV, JSON lines, Parquet; gzip or not), chunk by chunk, with row numbers."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from catalign.data.csv_tables import csv_frames, csv_header
from catalign.data.json_tables import json_frames, json_keys
from catalign.data.ledger import Ledger
from catalign.data.options import Query, Table
from catalign.data.sql import RowDigest, open_query
from catalign.data.streams import kind_of, reading
from catalign.errors import UserError

_JSON = (".jsonl", ".ndjson", ".json")
_PARQUET = (".parquet", ".pq")
_ROW = "__row"  # no column of a user is called so
CHUNK_ROWS = 1_000_000


def read_table(table: Table | Query, columns: Mapping[str, str], *, table_name: str, ledger: Ledger) -> pl.DataFrame:
    """Read some columns of a table as one frame; see `read_chunks`."""
    chunks = read_chunks(table, columns, table_name=table_name, ledger=ledger)
    return pl.concat(list(chunks), how="vertical_relaxed")


def read_chunks(
    table: Table | Query, columns: Mapping[str, str], *, table_name: str, ledger: Ledger, rows: int = CHUNK_ROWS
) -> Iterator[pl.DataFrame]:
    """Read some columns of a table, never holding all of it.

    Args:
        table: the files, `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json` (one object per line), `.parquet`; any other name
            is taken for CSV. The text kinds may be gzipped. Or a query.
        columns: name in the result -> name in the file.
        table_name: the name that `ledger` counts the rows under.
        ledger: counts the rows that came in and those that cannot be read, and takes the digest of a query.
        rows: in a frame at most.

    Yields:
        The columns as text (those of Parquet files and databases may have a type; null where a JSON key is absent),
        `file` (Categorical) and `row` (UInt32, see `Ledger`), in the order of the files. One frame at least, perhaps
        empty.

    Raises:
        UserError: no such file, a column is not there, the file is not what its name says, or the query fails.
    """
    wanted = list(dict.fromkeys(columns.values()))
    for file, frames in _parts(table, wanted, table_name, ledger):
        for frame in _gathered(frames, rows):
            ledger.enter(table_name, frame.height)
            yield frame.select(
                *(pl.col(name).alias(key) for key, name in columns.items()),
                file=pl.lit(file, dtype=pl.Categorical),
                row=pl.col(_ROW).cast(pl.UInt32),
            )


def column_names(table: Table | Query) -> list[str]:
    """Return the names of the columns of a query or a table's first file; of JSON lines the keys of the first hundred.

    Raises:
        UserError: it cannot be read.
    """
    if isinstance(table, Query):
        with open_query(table.connection, table.query, str(table)) as query:
            return query.columns
    return _names(table.files[0], table)


def require_columns(where: object, wanted: Sequence[str], present: Sequence[str]) -> None:
    """Check that every wanted column is there.

    Raises:
        UserError: one is not; the line names the nearest one and all that are there.
    """
    for name in wanted:
        if name not in present:
            near = difflib.get_close_matches(name.lower(), [other.lower() for other in present], n=1, cutoff=0.5)
            nearest = [other for other in present if other.lower() in near]
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            shown = ", ".join(present[:30]) + (", ..." if len(present) > 30 else "")
            raise UserError(f"there is no column {name!r}", where=where, mend=f"{hint}the columns are: {shown}")


def _names(path: Path, table: Table) -> list[str]:
    with reading(path):
        kind = kind_of(path)
        if kind in _PARQUET:
            with _open_parquet(path) as file:
                return list(file.schema_arrow.names)
        return json_keys(path, table) if kind in _JSON else csv_header(path, table)[0]


def _parts(
    table: Table | Query, columns: list[str], name: str, ledger: Ledger
) -> Iterator[tuple[str, Iterator[pl.DataFrame]]]:
    """Yield what a table comes from, by the name that `file` has, and its frames."""
    if isinstance(table, Query):
        yield table.name, _query_frames(table, columns, ledger)
        return
    for path in table.files:
        yield path.name, _frames(path, columns, table, name, ledger)


def _query_frames(table: Query, columns: list[str], ledger: Ledger) -> Iterator[pl.DataFrame]:
    digest = ledger.digests[table.name] = RowDigest()
    with open_query(table.connection, table.query, str(table)) as query:
        require_columns(table, columns, query.columns)
        for frame in query.frames(columns):
            yield frame.with_row_index(_ROW, offset=digest.rows + 1)
            digest.add(frame)


def _frames(path: Path, columns: list[str], table: Table, name: str, ledger: Ledger) -> Iterator[pl.DataFrame]:
    """Yield the columns of one file and `_ROW`, in pieces of any size."""
    require_columns(path, columns, _names(path, table))
    with reading(path):
        kind = kind_of(path)
        if kind in _PARQUET:
            yield from _parquet_frames(path, columns)
        elif kind in _JSON:
            yield from json_frames(path, columns, _ROW, table, name, ledger)
        else:
            yield from csv_frames(path, columns, _ROW, table, name, ledger)


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise UserError(f"is not a Parquet file ({error})", where=path) from error


def _parquet_frames(path: Path, columns: list[str]) -> Iterator[pl.DataFrame]:
    number = 1
    with _open_parquet(path) as file:
        empty = cast(pl.DataFrame, pl.from_arrow(file.schema_arrow.empty_table()))
        yield empty.select(columns).with_row_index(_ROW)
        try:
            for batch in file.iter_batches(1 << 17, columns=columns, use_threads=False):
                frame = cast(pl.DataFrame, pl.from_arrow(batch)).select(columns)
                yield frame.with_row_index(_ROW, offset=number)
                number += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"is not a whole Parquet file ({error})", where=path, mend="copy it again") from error


def _gathered(frames: Iterator[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """Put small frames together and cut large ones; one frame at least."""
    held: list[pl.DataFrame] = []
    yielded = False
    for frame in frames:
        held.append(frame)
        if sum(part.height for part in held) >= rows:
            whole = pl.concat(held)
            full = whole.height - whole.height % rows
            yield from whole.head(full).iter_slices(rows)
            held, yielded = [whole.tail(whole.height - full)], True
    rest = pl.concat(held)
    if not (rest.is_empty() and yielded):
        yield rest

"""Tables of any usual kind (CSV, TSV, JSON lines, Parquet; gzip or not), chunk by chunk, with row numbers."""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

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


def read_table(
    table: Table | Query,
    columns: Mapping[str, str],
    *,
    table_name: str,
    ledger: Ledger,
    lists: Collection[str] = (),
) -> pl.DataFrame:
    """Read some columns of a table as one frame; see `read_chunks`."""
    chunks = read_chunks(table, columns, table_name=table_name, ledger=ledger, lists=lists)
    try:
        return pl.concat(list(chunks), how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        what = f"a column has another type in another file ({reason})"
        raise UserError(what, where=table, mend="write all files alike") from error


def read_chunks(
    table: Table | Query,
    columns: Mapping[str, str],
    *,
    table_name: str,
    ledger: Ledger,
    rows: int = CHUNK_ROWS,
    lists: Collection[str] = (),
    optional: Collection[str] = (),
) -> Iterator[pl.DataFrame]:
    """Read some columns of a table, never holding all of it.

    Args:
        table: the files, `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json` (one object per line), `.parquet`; any other name
            is taken for CSV. The text kinds may be gzipped. Or a query.
        columns: name in the result -> name in the file.
        table_name: the name that `ledger` counts the rows under.
        ledger: counts the rows that came in and those that cannot be read, and takes the digest of a query.
        rows: in a frame at most.
        lists: names in the result of columns that may hold lists, where the file is Parquet.
        optional: names in the result of columns that a file may lack; they are null there.

    Yields:
        The columns as text (those of Parquet files and databases may have a type; null where a JSON key is absent),
        `file` (Categorical) and `row` (UInt32, see `Ledger`), in the order of the files. One frame at least, perhaps
        empty.

    Raises:
        UserError: no such file, a column is not there, the file is not what its name says, or the query fails.
    """
    wanted = list(dict.fromkeys(columns.values()))
    _check_names(wanted, table)
    may_lack = {columns[key] for key in optional}
    for file, frames in _parts(table, wanted, may_lack, table_name, ledger):
        for frame in gathered(frames, rows):
            for key, name in columns.items():
                if key not in lists and frame.schema[name].is_nested():
                    mend = "name one of texts, numbers or times"
                    raise UserError(f"the column {name!r} holds lists or objects", where=table, mend=mend)
            ledger.enter(table_name, frame.height)
            yield frame.select(
                *(pl.col(name).alias(key) for key, name in columns.items()),
                file=pl.lit(file, dtype=pl.Categorical),
                row=pl.col(_ROW).cast(pl.UInt32),
            )


def column_names(table: Table | Query) -> list[str]:
    """Return the names of the columns of a query or a table's first file; of JSON lines the keys of the first thousand.

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


def _check_names(columns: Sequence[str], table: Table | Query) -> None:
    """Refuse what stands for other columns in an expression of polars, and what is no name."""
    for name in columns:
        no_text = any("\ud800" <= character <= "\udfff" for character in name)  # half of a pair
        if name in ("", "*") or (name.startswith("^") and name.endswith("$")) or no_text:
            raise UserError(f"a column cannot be called {name!r}", where=table, mend="rename it")


def _names(path: Path, table: Table) -> list[str]:
    with reading(path):
        kind = kind_of(path)
        if kind in _PARQUET:
            with _open_parquet(path) as file:
                return list(file.schema_arrow.names)
        return json_keys(path, table) if kind in _JSON else csv_header(path, table)[0]


def _parts(
    table: Table | Query, columns: list[str], may_lack: set[str], name: str, ledger: Ledger
) -> Iterator[tuple[str, Iterator[pl.DataFrame]]]:
    """Yield what a table comes from, by the name that `file` has, and its frames."""
    if isinstance(table, Query):
        yield table.name, _query_frames(table, columns, ledger)
        return
    for path in table.files:
        yield path.name, _frames(path, columns, may_lack, table, name, ledger)


def _query_frames(table: Query, columns: list[str], ledger: Ledger) -> Iterator[pl.DataFrame]:
    digest = ledger.digests[table.name] = RowDigest()
    with open_query(table.connection, table.query, str(table)) as query:
        require_columns(table, columns, query.columns)
        for frame in query.frames(columns):
            yield frame.with_row_index(_ROW, offset=digest.rows + 1)
            digest.add(frame)


def _frames(
    path: Path, columns: list[str], may_lack: set[str], table: Table, name: str, ledger: Ledger
) -> Iterator[pl.DataFrame]:
    """Yield the columns of one file and `_ROW`, in pieces of any size."""
    names = _names(path, table)
    require_columns(path, [column for column in columns if column not in may_lack], names)
    with reading(path):
        kind = kind_of(path)
        if kind in _JSON:  # a key may occur late
            yield from json_frames(path, columns, _ROW, table, name, ledger)
            return
        there = [column for column in columns if column in names]
        lacking = [pl.lit(None, pl.String).alias(column) for column in columns if column not in names]
        if kind in _PARQUET:
            frames = _parquet_frames(path, there)
        else:
            frames = csv_frames(path, there, _ROW, table, name, ledger)
        for frame in frames:
            yield frame.with_columns(lacking)


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise UserError(f"is not a Parquet file ({error})", where=path) from error


def _parquet_frames(path: Path, columns: list[str]) -> Iterator[pl.DataFrame]:
    number = 1
    with _open_parquet(path) as file:
        yield _frame_of(file.schema_arrow.empty_table(), columns, path).with_row_index(_ROW)
        try:
            for batch in file.iter_batches(1 << 17, columns=columns, use_threads=False):
                frame = _frame_of(pa.Table.from_batches([batch]), columns, path)
                yield frame.with_row_index(_ROW, offset=number)
                number += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"is not a whole Parquet file ({error})", where=path, mend="copy it again") from error


def _frame_of(table: pa.Table, columns: list[str], path: Path) -> pl.DataFrame:
    """Some columns in types that polars knows."""
    arrays = {}
    for name in columns:
        array = table[name]
        if isinstance(array.type, pa.BaseExtensionType):
            array = pa.chunked_array([part.storage for part in array.chunks], array.type.storage_type)
        plain = _plain_type(array.type)
        try:
            arrays[name] = array if plain is None else array.cast(plain)
        except pa.ArrowException as error:
            where = f"{path}, column {name!r}"
            raise UserError(f"{array.type} cannot be read as {plain} ({error})", where=where) from error
    return cast(pl.DataFrame, pl.from_arrow(pa.table(arrays)))


def _plain_type(kind: Any) -> Any:
    """What a type of Arrow that polars cannot read or turn into text is read as; None: it stays."""
    types = pa.types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return pa.string()
    if types.is_binary_view(kind) or types.is_decimal256(kind):
        return pa.string()
    if types.is_duration(kind):
        return pa.int64()
    if types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, "UTC")
    if types.is_fixed_size_list(kind):
        return pa.list_(kind.value_type)
    return pa.list_(pa.struct([kind.key_field, kind.item_field])) if types.is_map(kind) else None


def gathered(frames: Iterator[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
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

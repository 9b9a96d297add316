"""Delimited text, read block by block."""

import codecs
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from catalign.data.ledger import Ledger
from catalign.data.options import Table
from catalign.data.streams import (
    Ended,
    encoding_error,
    first_lines,
    known_encoding,
    open_bytes,
)
from catalign.errors import UserError

BLOCK_BYTES = 1 << 22  # longer than any row should be; pyarrow reads 32 of them ahead
_DELIMITERS = ",\t;|"
_UNIT = "\x1f"  # the separator that ASCII has for this; stands for a delimiter that is not one ASCII character
_END = "\x03\x04\x03"  # a row of our own after the last one: it is missing when a quotation mark stayed open
_SHOWN = 200  # characters of an unreadable row that a reject keeps


def csv_header(path: Path, table: Table) -> tuple[list[str], str]:
    """Return the column names and the delimiter of a CSV file.

    Raises:
        UserError: the file is empty, two columns have one name, or `table.header` is not as long as the first row.
    """
    lines = first_lines(path, table.encoding, 1)
    line = lines[0] if lines else ""
    if not line.strip():
        mend = None if table.header else "the first row must hold the names of the columns"
        raise UserError("is empty", where=path, mend=mend)
    delimiter = table.delimiter
    if delimiter is None or (table.header is None and delimiter not in line):  # one option stands for two tables
        delimiter = max(_DELIMITERS, key=line.count)
    try:
        first = _fields(line, delimiter, table.quoted)
    except csv.Error as error:
        raise UserError(f"the first row is no row of CSV ({error})", where=path) from error
    header = table.header or first
    if len(first) != len(header):
        raise UserError(
            f"has {len(first)} fields in its first row where {len(header)} are expected ({', '.join(header[:6])}...)",
            where=path,
        )
    repeated = [name for name in header if name and header.count(name) > 1]  # nobody reads what has no name
    if repeated:
        raise UserError(f"the column {repeated[0]!r} is there twice", where=path, mend="rename one of them")
    return header, delimiter


def _fields(line: str, delimiter: str, quoted: bool) -> list[str]:
    if _is_replaced(delimiter) or not quoted:
        return line.rstrip("\r\n").split(delimiter)
    return next(csv.reader([line], delimiter=delimiter), [])


def _is_replaced(delimiter: str) -> bool:
    """Whether pyarrow does not take the delimiter, or our own row would hold it."""
    return len(delimiter.encode()) > 1 or delimiter in f'\0"{_END}'


def csv_frames(
    path: Path, columns: Sequence[str], row: str, table: Table, name: str, ledger: Ledger
) -> Iterator[pl.DataFrame]:
    """Yield some columns as text, and `row`, the row number.

    Args:
        path: one file of `table`.
        columns: those wanted; they must be there.
        row: what to call the column of row numbers. The header is row 1; blank lines do not count.
        table: how the file is written.
        name: of the table in `ledger`.
        ledger: counts the rows that have another number of fields than the header.

    Raises:
        UserError: the file is no such table, or not in its encoding.
    """
    header, delimiter = csv_header(path, table)
    ragged = _Ragged(ledger.keep)
    number = 1 if table.header else 2
    last: pl.DataFrame | None = None
    for batch in _batches(path, list(columns), header, delimiter, table, ragged):
        if batch.is_empty():
            continue
        if last is not None:
            yield last
        rows, number = ragged.number(number, batch.height)
        last = batch.with_columns(pl.Series(row, rows))
    if last is None or last.item(-1, 0) != _END:
        mend = "close it, or write it twice where it belongs to the text"
        raise UserError("a quotation mark is opened and never closed", where=f"{path}, row {number - 1}", mend=mend)
    yield last.head(-1)
    if ragged.count:
        examples = [
            {"file": path.name, "row": bad.number, "fields": bad.actual_columns, "text": bad.text[:_SHOWN]}
            for bad in ragged.examples
        ]
        ledger.enter(name, ragged.count)
        ledger.note(name, f"not {len(header)} fields, as the header has", ragged.count, examples)


class _Ragged:
    """The rows that have another number of fields than the header, as the reader meets them."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._numbers: list[int] = []  # of those that `number` has not passed yet
        self.count = 0
        self.examples: list[Any] = []

    def skip(self, row: Any) -> str:
        self.count += 1
        self._numbers.append(row.number)
        if len(self.examples) < self._keep:
            self.examples.append(row)
        return "skip"

    def number(self, first: int, height: int) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int]:
        """Number the next `height` good rows from `first` on; return the numbers and the one that follows."""
        bad = np.array(self._numbers, dtype=np.int64)
        is_good = np.ones(height + bad.size, dtype=np.bool_)
        is_good[bad[bad < first + is_good.size] - first] = False
        good = first + np.flatnonzero(is_good)[:height]
        after = int(good[-1]) + 1
        self._numbers = bad[bad >= after].tolist()
        return good, after


def _batches(
    path: Path, columns: list[str], header: list[str], delimiter: str, table: Table, ragged: _Ragged
) -> Iterator[pl.DataFrame]:
    """Yield what pyarrow reads, the row `_END` last."""
    replaced = _is_replaced(delimiter)
    single = _UNIT if replaced else delimiter
    quoted = table.quoted and not replaced
    ending = ("\n" + single.join([_END] * len(header)) + "\n").encode()
    try:
        with open_bytes(path) as stream:
            plain = known_encoding(table.encoding) == "utf-8"
            text = stream if plain else codecs.EncodedFile(stream, "utf-8", table.encoding)
            old, new = (delimiter.encode(), _UNIT.encode()) if replaced else (b"", b"")
            with pa_csv.open_csv(
                pa.PythonFile(Ended(text, ending, old, new), mode="r"),
                read_options=pa_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=table.header),
                parse_options=pa_csv.ParseOptions(
                    delimiter=single,
                    quote_char='"' if quoted else False,
                    newlines_in_values=quoted,
                    invalid_row_handler=ragged.skip,
                ),
                convert_options=pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(columns, pa.string()), include_columns=columns
                ),
            ) as reader:
                for batch in reader:
                    yield cast(pl.DataFrame, pl.from_arrow(batch))
    except (pa.ArrowException, UnicodeError) as error:
        if isinstance(error, UnicodeError) or "UTF8" in str(error):
            raise encoding_error(path, table.encoding) from error
        if "straddling" in str(error):
            mend = "close it, or write one row per line"
            what = f"a row is longer than {BLOCK_BYTES:,} bytes, or a quotation mark is opened and never closed"
            raise UserError(what, where=path, mend=mend) from error
        raise UserError(f"is not a CSV table ({error})", where=path) from error

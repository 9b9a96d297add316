"""One table of any usual kind (CSV, TSV, JSON lines, Parquet; gzip or not) as text columns, with row numbers."""

import ast
import codecs
import contextlib
import csv
import difflib
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from catalign.data.ledger import Ledger
from catalign.errors import UserError

_JSON = (".jsonl", ".ndjson", ".json")
_ROW, _LINE, _UNREAD = "__row", "__line", "__unread"  # no column of a user is called so
_LITERAL = "{'"  # how a line of Python begins that should have been JSON
_DELIMITERS = ",\t;|"
_END = "\x03end of table\x03"  # a row of our own after the last one: it is missing when a quotation mark stayed open
_BLOCK_BYTES = 1 << 24  # longer than any row should be
_SHOWN = 200  # characters of an unreadable row that a reject keeps
_SAMPLE_LINES = 100  # JSON lines read to learn the names of the columns


def read_table(
    path: Path, columns: Mapping[str, str], *, table: str, ledger: Ledger, encoding: str = "utf-8"
) -> pl.DataFrame:
    """Read some columns of a table.

    Args:
        path: `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json` (one object per line) or `.parquet`; the text kinds also
            with `.gz`. A CSV file needs a header; its delimiter is the one of comma, tab, semicolon and bar that
            the header holds most of.
        columns: name in the result -> name in the file.
        table: the name that `ledger` counts the rows under.
        ledger: counts the rows that came in and those that cannot be read.
        encoding: of CSV files, a Python codec name.

    Returns:
        The columns as text (those of Parquet files keep their type; null where a JSON key is absent), `file`
        (Categorical) and `row` (UInt32, see `Ledger`).

    Raises:
        UserError: no such file, a column is not there, or the file is not what its name says.
    """
    wanted = list(dict.fromkeys(columns.values()))
    with _reading(path):
        kind = _kind(path)
        if kind == ".parquet":
            frame = _read_parquet(path, wanted)
        elif kind in _JSON:
            frame = _read_json_lines(path, wanted, table, ledger)
        else:
            frame = _read_csv(path, wanted, table, ledger, encoding)
    ledger.enter(table, frame.height)
    return frame.select(
        *(pl.col(name).alias(key) for key, name in columns.items()),
        file=pl.lit(path.name, dtype=pl.Categorical),
        row=pl.col(_ROW).cast(pl.UInt32),
    )


def column_names(path: Path, *, encoding: str = "utf-8") -> list[str]:
    """Return the names of the columns of a table; of JSON lines the keys of the first hundred.

    Raises:
        UserError: the file cannot be read.
    """
    with _reading(path):
        kind = _kind(path)
        if kind == ".parquet":
            return _scan_parquet(path).collect_schema().names()
        if kind in _JSON:
            with _open(path) as stream:
                return _json_keys(path, [line.decode(errors="replace") for line in islice(stream, _SAMPLE_LINES)])
        return _csv_header(path, encoding)[0]


def require_columns(path: Path, wanted: Sequence[str], present: Sequence[str]) -> None:
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
            raise UserError(f"there is no column {name!r}", where=path, mend=f"{hint}the columns are: {shown}")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what can go wrong with any file into a line for the user."""
    if not path.is_file():
        raise UserError("no such file", where=path)
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"is not a whole gzip file ({error})", where=path, mend="copy or download it again") from error
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", where=path) from error


def _kind(path: Path) -> str:
    return path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


class _Ended(io.RawIOBase):
    """A byte stream with `ending` after its last byte."""

    def __init__(self, stream: IO[bytes] | codecs.StreamRecoder, ending: bytes) -> None:
        self._stream = stream
        self._ending: bytes | None = ending

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        if not data and self._ending is not None:
            data, self._ending = self._ending, None
        return data


def _csv_header(path: Path, encoding: str) -> tuple[list[str], str]:
    """Return the column names and the delimiter of a CSV file."""
    try:
        with _open(path) as stream, io.TextIOWrapper(stream, encoding=encoding, newline="") as text:
            line = text.readline().removeprefix("\ufeff")
            delimiter = max(_DELIMITERS, key=line.count)
            header = next(csv.reader([line], delimiter=delimiter), [])
    except UnicodeError as error:
        raise _encoding_error(path, encoding) from error
    except LookupError as error:
        raise UserError(f"there is no encoding {encoding!r}", mend="use utf-8, latin-1, cp1252 or another") from error
    if not line.strip():
        raise UserError("is empty", where=path, mend="the first row must hold the names of the columns")
    repeated = [name for name in header if header.count(name) > 1]
    if repeated:
        raise UserError(f"the column {repeated[0]!r} is there twice", where=path, mend="rename one of them")
    return header, delimiter


def _read_csv(path: Path, columns: list[str], table: str, ledger: Ledger, encoding: str) -> pl.DataFrame:
    header, delimiter = _csv_header(path, encoding)
    require_columns(path, columns, header)
    ragged: list[Any] = []

    def skip(row: Any) -> str:
        ragged.append(row)
        return "skip"

    ending = ("\n" + delimiter.join([_END] * len(header)) + "\n").encode()
    try:
        with _open(path) as stream:
            text = stream if encoding == "utf-8" else codecs.EncodedFile(stream, "utf-8", encoding)
            arrow = pa_csv.read_csv(
                pa.PythonFile(_Ended(text, ending), mode="r"),
                read_options=pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
                parse_options=pa_csv.ParseOptions(
                    delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
                ),
                convert_options=pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(columns, pa.string()), include_columns=columns
                ),
            )
    except (pa.ArrowInvalid, UnicodeError) as error:
        if isinstance(error, UnicodeError) or "UTF8" in str(error):
            raise _encoding_error(path, encoding) from error
        raise UserError(f"is not a CSV table ({error})", where=path) from error
    last = 1 + arrow.num_rows + len(ragged)
    frame = cast(pl.DataFrame, pl.from_arrow(arrow))
    if frame.is_empty() or frame.item(-1, 0) != _END:
        raise UserError("a quotation mark is opened and never closed", where=f"{path}, row {last}")
    rows = np.setdiff1d(np.arange(2, last + 1), np.array([row.number for row in ragged], dtype=np.int64))
    frame = frame.with_columns(pl.Series(_ROW, rows))
    if ragged:
        examples = [
            {"file": path.name, "row": row.number, "fields": row.actual_columns, "text": row.text[:_SHOWN]}
            for row in ragged[: ledger.keep]
        ]
        ledger.enter(table, len(ragged))
        ledger.note(table, f"not {len(header)} fields, as the header has", len(ragged), examples)
    return frame.head(-1)


def _encoding_error(path: Path, encoding: str) -> UserError:
    """Find the first line that is not in `encoding`."""
    number, line = 0, b""
    with _open(path) as stream:
        for number, line in enumerate(stream, start=1):  # noqa: B007
            try:
                line.decode(encoding)
            except UnicodeError:
                break
    return UserError(
        f"the text is not {encoding} ({line.strip()[:60]!r})",
        where=f"{path}, line {number}",
        mend="pass its encoding, as --encoding latin-1 (or cp1252, utf-16)",
    )


def _read_json_lines(path: Path, columns: list[str], table: str, ledger: Ledger) -> pl.DataFrame:
    with _open(path) as stream:
        first = [line.decode("utf-8", errors="replace") for line in islice(stream, _SAMPLE_LINES)]
    require_columns(path, columns, _json_keys(path, first))
    line = pl.col(_LINE)
    lines = pl.scan_lines(path, name=_LINE, row_index_name=_ROW, row_index_offset=1, glob=False)
    lines = lines.filter(line.str.strip_chars() != "")
    if any(text.startswith(_LITERAL) for text in first):
        lines = lines.with_columns(line.map_elements(_literal_to_json, return_dtype=pl.String))
    is_object = line.str.starts_with("{") & line.str.json_path_match("$").is_not_null()
    values = (line.str.json_path_match(f'$["{name}"]').alias(name) for name in columns)
    unread = pl.when(~is_object).then(line.str.head(_SHOWN)).alias(_UNREAD)
    try:
        frame = lines.select(_ROW, *values, unread).collect()
    except pl.exceptions.ComputeError as error:
        raise _encoding_error(path, "utf-8") from error
    bad = frame.filter(pl.col(_UNREAD).is_not_null())
    if not bad.is_empty():
        examples = bad.head(ledger.keep).select(file=pl.lit(path.name), row=_ROW, text=_UNREAD)
        ledger.enter(table, bad.height)
        ledger.note(table, "not JSON", bad.height, examples.to_dicts())
    return frame.filter(pl.col(_UNREAD).is_null()).drop(_UNREAD)


def _literal_to_json(line: str) -> str:
    """Turn the Python literal of a line (as in the Amazon metadata of 2014) into JSON; leave any other line."""
    if not line.startswith(_LITERAL):
        return line
    try:
        return json.dumps(ast.literal_eval(line.strip()))
    except (ValueError, SyntaxError, TypeError):
        return line


def _json_keys(path: Path, lines: list[str]) -> list[str]:
    """Return the keys that occur in the first lines, in order of appearance."""
    keys: dict[str, None] = {}
    for line in lines:
        try:
            value = json.loads(_literal_to_json(line))
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict):
            keys |= dict.fromkeys(value)
    if not any(line.strip() for line in lines):
        raise UserError("is empty", where=path)
    if not keys:
        raise UserError(
            f"is not JSON lines: {lines[0][:60]!r}", where=f"{path}, line 1", mend="write one JSON object per line"
        )
    return list(keys)


def _scan_parquet(path: Path) -> pl.LazyFrame:
    try:
        scan = pl.scan_parquet(path, glob=False)
        scan.collect_schema()
    except pl.exceptions.ComputeError as error:
        raise UserError(f"is not a Parquet file ({error})", where=path) from error
    return scan


def _read_parquet(path: Path, columns: list[str]) -> pl.DataFrame:
    scan = _scan_parquet(path)
    require_columns(path, columns, scan.collect_schema().names())
    return scan.select(columns).with_row_index(_ROW, offset=1).collect()

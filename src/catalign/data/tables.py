"""One table of any usual kind (CSV, TSV, JSON lines, Parquet; gzip or not) as text columns, with row numbers."""

import contextlib
import csv
import difflib
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
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
_DELIMITERS = ",\t;|"
_END = "\x03end of table\x03"  # a row of our own after the last one: it is missing when a quotation mark stayed open
_BLOCK_BYTES = 1 << 24  # longer than any row should be
_SAMPLE_LINES = 100  # JSON lines read to learn the names of the columns


def read_table(
    path: Path, columns: Sequence[str], *, table: str, ledger: Ledger, encoding: str = "utf-8"
) -> pl.DataFrame:
    """Read the named columns of a table.

    Args:
        path: `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json` (one object per line) or `.parquet`; the text kinds also
            with `.gz`. A CSV file needs a header; its delimiter is the one of comma, tab, semicolon and bar that
            the header holds most of.
        columns: names of the columns to read; a name may occur twice.
        table: the name that `ledger` counts the rows under.
        ledger: counts the rows that came in and those that cannot be read.
        encoding: of CSV files, a Python codec name.

    Returns:
        `columns` as text (Parquet columns of numbers and times keep their type; null where a JSON key is absent),
        `file` (Categorical) and `row` (UInt32, see `Ledger`).

    Raises:
        UserError: no such file, a column is not there, or the file is not what its name says.
    """
    wanted = list(dict.fromkeys(columns))
    with _reading(path):
        kind = _kind(path)
        if kind == ".parquet":
            frame = _read_parquet(path, wanted)
        elif kind in _JSON:
            frame = _read_json_lines(path, wanted, table, ledger)
        else:
            frame = _read_csv(path, wanted, table, ledger, encoding)
    ledger.enter(table, frame.height)
    return frame.with_columns(file=pl.lit(path.name, dtype=pl.Categorical))


def column_names(path: Path, *, encoding: str = "utf-8") -> list[str]:
    """Return the names of the columns of a table; of JSON lines the keys of the first hundred.

    Raises:
        UserError: the file cannot be read.
    """
    with _reading(path):
        kind = _kind(path)
        if kind == ".parquet":
            return pl.scan_parquet(path).collect_schema().names()
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
    except pl.exceptions.ComputeError as error:
        raise UserError("is not a Parquet file", where=path) from error


def _kind(path: Path) -> str:
    return path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


class _Ended(io.RawIOBase):
    """A byte stream with `ending` after its last byte."""

    def __init__(self, stream: IO[bytes], ending: bytes) -> None:
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

    ending = ("\n" + delimiter.join([_END] * len(header)) + "\n").encode(encoding)
    try:
        with _open(path) as stream:
            arrow = pa_csv.read_csv(
                pa.PythonFile(_Ended(stream, ending), mode="r"),
                read_options=pa_csv.ReadOptions(use_threads=False, encoding=encoding, block_size=_BLOCK_BYTES),
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
    rows = np.setdiff1d(
        np.arange(2, arrow.num_rows + len(ragged) + 2, dtype=np.uint32),
        np.array([row.number for row in ragged], dtype=np.uint32),
    )
    frame = cast(pl.DataFrame, pl.from_arrow(arrow)).with_columns(row=pl.Series(rows, dtype=pl.UInt32))
    if frame.is_empty() or frame.item(-1, 0) != _END:
        raise UserError(
            "a quotation mark is opened and never closed", where=f"{path}, row {rows[-1] + 1 if rows.size else 2}"
        )
    if ragged:
        examples = [
            {"file": path.name, "row": row.number, "fields": row.actual_columns, "text": row.text[:200]}
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
    try:
        with _open(path) as stream:
            text = stream.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text ({error})", where=path) from error
    lines = pl.DataFrame({"text": text.split("\n")}, schema={"text": pl.String}).with_row_index("row", offset=1)
    lines = lines.filter(pl.col("text").str.strip_chars() != "")
    if lines.is_empty():
        raise UserError("is empty", where=path)
    names = _json_keys(path, lines.head(_SAMPLE_LINES)["text"].to_list())
    require_columns(path, columns, names)
    whole = lines.with_columns(
        object=pl.col("text").str.json_path_match("$").is_not_null() & pl.col("text").str.starts_with("{")
    )
    unread = whole.remove("object")
    if not unread.is_empty():
        examples = unread.head(ledger.keep).select("row", text=pl.col("text").str.head(200)).to_dicts()
        ledger.enter(table, unread.height)
        ledger.note(table, "not JSON", unread.height, [{"file": path.name, **example} for example in examples])
    return whole.filter("object").select(
        *(pl.col("text").str.json_path_match(f"$['{name}']").alias(name) for name in columns),
        pl.col("row").cast(pl.UInt32),
    )


def _json_keys(path: Path, lines: list[str]) -> list[str]:
    """Return the keys that occur in the first lines, in order of appearance."""
    keys: dict[str, None] = {}
    for line in lines:
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict):
            keys |= dict.fromkeys(value)
    if not keys:
        raise UserError(
            f"is not JSON lines: {lines[0][:60]!r}", where=f"{path}, line 1", mend="write one JSON object per line"
        )
    return list(keys)


def _read_parquet(path: Path, columns: list[str]) -> pl.DataFrame:
    scan = pl.scan_parquet(path)
    require_columns(path, columns, scan.collect_schema().names())
    return scan.select(columns).with_row_index("row", offset=1).with_columns(pl.col("row").cast(pl.UInt32)).collect()

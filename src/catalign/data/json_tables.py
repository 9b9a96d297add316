"""One JSON object per line, read block by block; Python literals too (Amazon metadata of 2014, Steam)."""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from catalign.data.ledger import Ledger
from catalign.data.options import Table
from catalign.data.streams import first_lines, line_blocks, open_bytes, reading
from catalign.errors import UserError

_LITERAL = ("{'", "{u'", '{u"')  # how a line of Python begins that should have been JSON
_SAMPLE_LINES = 1_000  # read to learn the names of the columns; few games of Amazon 2014 have a title
_SHOWN = 200  # characters of an unreadable line that a reject keeps
LONGEST_DOCUMENT = 1 << 30  # bytes of a JSON document, which is held as a whole
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)")
_LINE, _UNREAD, _INNER = "__line", "__unread", "__inner"  # no key of a user is called so


def json_keys(path: Path, table: Table) -> list[str]:
    """Return the keys that occur in the first lines, in order of appearance; with `table.nested` also those inside.

    Raises:
        UserError: there is no line, or none of the first is an object.
    """
    lines = first_lines(path, table.encoding, _SAMPLE_LINES)
    keys: dict[str, None] = {}
    for line in lines:
        try:
            value = json.loads(_literal_to_json(line))
        except (ValueError, RecursionError):  # also numbers of more digits than Python reads
            continue
        if isinstance(value, dict):
            inner = value.get(table.nested) if table.nested else None
            rows = [row for row in inner if isinstance(row, dict)] if isinstance(inner, list) else []
            keys |= dict.fromkeys([key for one in (value, *rows) for key in one])
    if not any(line.strip() for line in lines):
        raise UserError("is empty", where=path)
    if not keys:
        raise UserError(
            f"is not JSON lines: {lines[0][:60]!r}", where=f"{path}, line 1", mend="write one JSON object per line"
        )
    return list(keys)


def json_frames(
    path: Path, columns: Sequence[str], row: str, table: Table, name: str, ledger: Ledger
) -> Iterator[pl.DataFrame]:
    """Yield some columns as text (null where a key is absent), and `row`, the line number.

    Args:
        path: one file of `table`.
        columns: those wanted.
        row: what to call the column of line numbers.
        table: how the file is written.
        name: of the table in `ledger`.
        ledger: counts the lines that are no objects.

    Raises:
        UserError: the file is not in its encoding, or a line never ends.
    """
    number = 1
    nested = [table.nested] if table.nested else []
    for lines in line_blocks(path, table.encoding):
        frame = pl.DataFrame({_LINE: lines}, schema={_LINE: pl.String}).with_row_index(row, offset=number)
        number += len(lines)
        frame = frame.with_columns(pl.col(_LINE).str.strip_chars()).filter(pl.col(_LINE) != "")
        frame = frame.with_columns(_literals_to_json(frame[_LINE]))
        wanted = [*columns, *nested]
        values = (pl.col(_LINE).str.json_path_match(_path_of(column, path)).alias(column) for column in wanted)
        frame = frame.with_columns(values)
        frame = frame.with_columns(_unread(frame, wanted)).drop(_LINE)
        bad = frame.filter(pl.col(_UNREAD).is_not_null())
        if not bad.is_empty():
            examples = bad.head(ledger.keep).select(file=pl.lit(path.name), row=row, text=_UNREAD)
            ledger.enter(name, bad.height)
            ledger.note(name, "not JSON", bad.height, examples.to_dicts())
        frame = frame.filter(pl.col(_UNREAD).is_null()).drop(_UNREAD)
        yield _unfolded(frame, columns, table.nested, path) if table.nested else frame


def _path_of(key: str, file: Path) -> str:
    """The JSON path of a key."""
    if "\\" in key or not {'"', "'"} - set(key):
        mend = "rename the key: one with a backslash or both quotation marks cannot be named"
        raise UserError(f"cannot read the key {key!r}", where=file, mend=mend)
    return f"$['{key}']" if '"' in key else f'$["{key}"]'


def read_document(path: Path) -> str:
    """Return the text of a JSON document, gzipped or not, without a byte order mark, for `parse_json`.

    Raises:
        UserError: it cannot be read, is not UTF-8 or is larger than 1 GB.
    """
    with reading(path), open_bytes(path) as stream:
        data = stream.read(LONGEST_DOCUMENT + 1)
    if len(data) > LONGEST_DOCUMENT:
        raise UserError(f"has more than {LONGEST_DOCUMENT:,} bytes", where=path, mend="write one object per line")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"is not JSON ({error})", where=path) from error


def parse_json(text: str, where: object, *, pairs: bool = False) -> Any:
    """Parse JSON; an escaped half of a surrogate pair, which is no character, becomes U+FFFD.

    Args:
        text: what to parse.
        where: the place for a message.
        pairs: objects become lists of (key, value), so that repeated keys are seen.

    Raises:
        UserError: it is not JSON, or nests or counts further than Python does.
    """
    if "\\ud" in text or "\\uD" in text:
        text = _ESCAPE.sub(lambda found: "\\ufffd" if found[1] else found[0], text)
    try:
        return json.loads(text, object_pairs_hook=list if pairs else None)
    except (ValueError, RecursionError) as error:
        raise UserError(f"is not JSON ({error})", where=where) from error


def _unread(frame: pl.DataFrame, keys: Sequence[str]) -> pl.Series:
    """The beginning of each line that is no JSON object, null where it is one."""
    line = pl.col(_LINE)
    is_object = line.str.starts_with("{") & line.str.json_path_match("$").is_not_null()
    # only lines without any of the keys are in question: parsing all of them once more takes as long as a column
    doubtful = frame.select(_LINE, doubtful=pl.all_horizontal(pl.col(key).is_null() for key in keys))
    shown = pl.when(pl.col("doubtful")).then(pl.when(~is_object).then(line.str.head(_SHOWN)))
    if not doubtful["doubtful"].any():
        return pl.Series(_UNREAD, [None] * frame.height, dtype=pl.String)
    return doubtful.select(shown.alias(_UNREAD))[_UNREAD]


def _unfolded(frame: pl.DataFrame, columns: Sequence[str], nested: str, path: Path) -> pl.DataFrame:
    """Give every object of a list its own row, with the keys of the object that holds it."""
    inner = pl.List(pl.Struct(dict.fromkeys(columns, pl.String)))
    try:
        objects = frame[nested].str.json_decode(inner)
    except pl.exceptions.ComputeError as error:
        what = f"{nested!r} is not always a list of objects"
        raise UserError(what, where=path, mend="their keys must be texts or numbers") from error
    rows = frame.with_columns(objects.alias(_INNER)).explode(_INNER).filter(pl.col(_INNER).is_not_null())
    own = (pl.coalesce(pl.col(_INNER).struct[column], pl.col(column)).alias(column) for column in columns)
    return rows.with_columns(own).select(pl.exclude(_INNER, *([] if nested in columns else [nested])))


def _literals_to_json(lines: pl.Series) -> pl.Series:
    literal = lines.str.contains(r"""^\{(u?'|u")""")
    if not literal.any():
        return lines
    read = lines.filter(literal).map_elements(_literal_to_json, return_dtype=pl.String)
    return lines.clone().scatter(literal.arg_true(), read)


def _literal_to_json(line: str) -> str:
    """Turn the Python literal of a line into JSON, without running it; leave any other line."""
    if not line.startswith(_LITERAL):
        return line
    try:
        return json.dumps(ast.literal_eval(line.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return line

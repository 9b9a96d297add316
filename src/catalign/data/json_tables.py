"""One JSON object per line, read block by block; Python literals too (Amazon metadata of 2014, Steam)."""

import ast
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from catalign.data.ledger import Ledger
from catalign.data.streams import first_lines, line_blocks
from catalign.errors import UserError

_LITERAL = ("{'", "{u'", '{u"')  # how a line of Python begins that should have been JSON
_SAMPLE_LINES = 100  # read to learn the names of the columns
_SHOWN = 200  # characters of an unreadable line that a reject keeps
_LINE, _UNREAD = "__line", "__unread"  # no key of a user is called so


def json_keys(path: Path, encoding: str) -> list[str]:
    """Return the keys that occur in the first lines, in order of appearance.

    Raises:
        UserError: there is no line, or none of the first is an object.
    """
    lines = first_lines(path, encoding, _SAMPLE_LINES)
    keys: dict[str, None] = {}
    for line in lines:
        try:
            value = json.loads(_literal_to_json(line))
        except (json.JSONDecodeError, RecursionError):
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


def json_frames(
    path: Path, columns: Sequence[str], row: str, encoding: str, name: str, ledger: Ledger
) -> Iterator[pl.DataFrame]:
    """Yield some columns as text (null where a key is absent), and `row`, the line number.

    Args:
        path: the file.
        columns: those wanted.
        row: what to call the column of line numbers.
        encoding: of the file.
        name: of the table in `ledger`.
        ledger: counts the lines that are no objects.

    Raises:
        UserError: the file is not in its encoding, or a line never ends.
    """
    number = 1
    for lines in line_blocks(path, encoding):
        frame = pl.DataFrame({_LINE: lines}, schema={_LINE: pl.String}).with_row_index(row, offset=number)
        number += len(lines)
        frame = frame.with_columns(pl.col(_LINE).str.strip_chars()).filter(pl.col(_LINE) != "")
        frame = frame.with_columns(_literals_to_json(frame[_LINE]))
        line = pl.col(_LINE)
        is_object = line.str.starts_with("{") & line.str.json_path_match("$").is_not_null()
        values = (line.str.json_path_match(f'$["{column}"]').alias(column) for column in columns)
        frame = frame.select(row, *values, pl.when(~is_object).then(line.str.head(_SHOWN)).alias(_UNREAD))
        bad = frame.filter(pl.col(_UNREAD).is_not_null())
        if not bad.is_empty():
            examples = bad.head(ledger.keep).select(file=pl.lit(path.name), row=row, text=_UNREAD)
            ledger.enter(name, bad.height)
            ledger.note(name, "not JSON", bad.height, examples.to_dicts())
        yield frame.filter(pl.col(_UNREAD).is_null()).drop(_UNREAD)


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

"""Cleaning of titles and values: expressions over whole columns."""

import html
from collections.abc import Callable, Collection

import polars as pl

_TAGS = (
    "a|abbr|b|big|blockquote|br|center|code|div|em|font|h[1-6]|hr|i|img|input|label|li|ol|option|p|pre|s|select|small|"
    "span|strike|strong|sub|sup|table|tbody|td|th|tr|tt|u|ul"
)
_SCRIPT = r"(?is)<(script|style)\b.*?(?:</(?:script|style)\s*>|$)"
_TAG = rf"(?is)</?(?:{_TAGS})(?:\s[^<>]*)?/?>"
_CUT_TAG = rf"(?is)<(?:{_TAGS})\s[^<>]*=[^<>]*$"  # an opening tag that the source cut short
_ENTITY = r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
_INVISIBLE = r"[\p{Cc}\p{Zl}\p{Zp}\u{200B}\u{2060}\u{FEFF}\u{FFFD}]"

SECONDS_BELOW = 1e11  # the year 5138 in seconds, March 1973 in milliseconds
MILLISECONDS_BELOW = 1e14
MICROSECONDS_BELOW = 1e17


def clean_titles(
    titles: pl.Series, *, without: Collection[str] = (), note: Callable[[str, pl.Series, pl.Series], None] | None = None
) -> pl.Series:
    """Return titles as a person would write them, by the rules of `TITLE_CHANGES` in their order.

    HTML entities become the characters they stand for (twice, since shops escape twice), known HTML tags go (a script
    or style with its content, also a tag that was cut short), control characters become blanks, runs of white space
    become one blank and those at the ends go, accents are composed (Unicode NFC).
    Angle brackets that are no HTML tag stay (`I <3 You`, `Dune <Limited>`).

    Args:
        titles: text, null where there is none.
        without: names of rules that are not applied.
        note: is told the name of every rule applied, the titles before it and after it.

    Returns:
        The cleaned titles, null where nothing is left.
    """
    for name, change in TITLE_CHANGES.items():
        if name not in without:
            before, titles = titles, change(titles)
            if note is not None:
                note(name, before, titles)
    return titles.to_frame("title").select(blank_to_null(pl.col("title")))["title"]


def _without_entities(titles: pl.Series) -> pl.Series:
    for _ in range(2):
        found = titles.str.extract_all(_ENTITY).explode(empty_as_null=False).unique().drop_nulls()
        if found.is_empty():
            break
        titles = titles.str.replace_many(found.to_list(), [html.unescape(entity) for entity in found])
    return titles


def _without_tags(titles: pl.Series) -> pl.Series:
    return titles.str.replace_all(_SCRIPT, " ").str.replace_all(_TAG, " ").str.replace_all(_CUT_TAG, " ")


TITLE_CHANGES: dict[str, Callable[[pl.Series], pl.Series]] = {
    "html-entities": _without_entities,
    "html-tags": _without_tags,
    "control-characters": lambda titles: titles.str.replace_all(_INVISIBLE, " "),
    "white-space": lambda titles: titles.str.replace_all(r"\s+", " ").str.strip_chars(),
    "composed-accents": lambda titles: titles.str.normalize("NFC"),
}
"""What cleaning does to titles: name of the rule -> change; `rules` explains them."""


def blank_to_null(text: pl.Expr) -> pl.Expr:
    """Null where `text` is empty or white space."""
    return pl.when(text.str.strip_chars() != "").then(text)


def as_text(column: pl.Expr) -> pl.Expr:
    """The column as text, null where it is blank; numbers of Parquet files become their digits."""
    return blank_to_null(column.cast(pl.String))


def id_text(column: pl.Series) -> pl.Series:
    """Ids as text, null where they are blank; whole numbers that a file keeps as floats lose their `.0`.

    pandas writes a column of integers as floats where one of them is missing.
    """
    text = column.to_frame().select(as_text(pl.col(column.name)))[column.name]
    return text.str.replace(r"^(-?\d+)\.0$", "${1}") if column.dtype.is_float() else text


def as_number(column: pl.Expr) -> pl.Expr:
    """The column as Float64, null where it is not a finite number."""
    number = column.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def read_numbers(column: pl.Series) -> pl.Series:
    """Return numbers or text as Float64, null where a value is no finite number."""
    frame = column.to_frame("number")
    if column.dtype.is_integer() or column.dtype == pl.Float64:  # other fractions keep their digits only as text
        number = pl.col("number").cast(pl.Float64)
        return frame.select(pl.when(number.is_finite()).then(number))["number"]
    return frame.select(number=as_number(pl.col("number")))["number"]


def as_milliseconds(column: pl.Series) -> pl.Series:
    """Return times as milliseconds since 1970, null where a value is no time.

    Numbers are taken by the magnitude of the column's median: below 1e11 seconds, below 1e14 milliseconds, below 1e17
    microseconds, else nanoseconds. Text is read as ISO 8601 (`2018-03-01`, `2018-03-01 12:30`,
    `2018-03-01T12:30:05.5Z`, `...+02:00`); without an offset it is UTC. Dates and times of Parquet files are
    taken as they are.

    Args:
        column: text, numbers, dates or times.

    Returns:
        Int64, as long as `column`.
    """
    return in_milliseconds(read_times(column))


def read_times(column: pl.Series) -> pl.DataFrame:
    """Read times whose unit is not known yet, so that a table can be read in parts and its unit be told by the whole.

    Args:
        column: text, numbers, dates or times.

    Returns:
        `time` (Float64, null where a value is no time): a number as it stands or, where `unit_known` (Boolean),
        milliseconds.
    """
    frame = column.to_frame("time")
    if column.dtype in (pl.Date, pl.Datetime):
        moment = pl.col("time").cast(pl.Datetime("ms")).dt.epoch("ms").cast(pl.Float64)
        return frame.select(moment, unit_known=pl.lit(True))
    read = frame.select(time=read_numbers(column), unit_known=pl.lit(False))
    if read["time"].null_count() == column.null_count():
        return read
    is_text = read["time"].is_null()
    text = pl.when(is_text).then(pl.col("time").cast(pl.String))
    moments = frame.select(time=_iso_to_milliseconds(text).cast(pl.Float64))["time"]
    return read.select(pl.col("time").fill_null(moments), unit_known=is_text)


def in_milliseconds(times: pl.DataFrame) -> pl.Series:
    """Turn what `read_times` returns into Int64 milliseconds; the numbers' median tells their unit."""
    numbers = times.remove("unit_known")["time"]
    median = numbers.abs().median()
    size = float(median) if isinstance(median, int | float) else 0.0
    if size < SECONDS_BELOW:
        factor = 1e3
    elif size < MILLISECONDS_BELOW:
        factor = 1.0
    elif size < MICROSECONDS_BELOW:
        factor = 1e-3
    else:
        factor = 1e-6
    scaled = pl.when("unit_known").then("time").otherwise(pl.col("time") * factor)
    return times.select(time=scaled.round(0).cast(pl.Int64, strict=False))["time"]


def _iso_to_milliseconds(text: pl.Expr) -> pl.Expr:
    part = text.str.strip_chars().str.extract_groups(
        r"^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2}(?:\.\d+)?)?)? ?(Z|z|UTC|[+-]\d{2}:?\d{2})?$"
    )
    offset = part.struct[3].fill_null("+00:00").str.replace("^(Z|z|UTC)$", "+00:00")
    whole = pl.concat_str(
        part.struct[0], pl.lit("T"), part.struct[1].fill_null("00:00"), part.struct[2].fill_null(":00"), offset
    )
    return whole.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", strict=False, time_unit="ms", time_zone="UTC").dt.epoch("ms")

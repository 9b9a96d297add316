"""Cleaning of titles and values: expressions over whole columns."""

import html
import re

import polars as pl

_TAGS = (
    "a|abbr|b|big|blockquote|br|center|code|div|em|font|h[1-6]|hr|i|img|input|label|li|ol|option|p|pre|s|select|small|"
    "span|strike|strong|sub|sup|table|tbody|td|th|tr|tt|u|ul"
)
_SCRIPT = r"(?is)<(script|style)\b.*?(?:</(?:script|style)\s*>|$)"
_TAG = rf"(?is)</?(?:{_TAGS})(?:\s[^<>]*)?/?>"
_CUT_TAG = rf"(?is)<(?:{_TAGS})\s[^<>]*=[^<>]*$"  # an opening tag that the source cut short
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_INVISIBLE = r"[\p{Cc}\p{Zl}\p{Zp}\u{200B}\u{2060}\u{FEFF}\u{FFFD}]"

SECONDS_BELOW = 1e11  # the year 5138 in seconds, March 1973 in milliseconds
MILLISECONDS_BELOW = 1e14
MICROSECONDS_BELOW = 1e17


def clean_titles(titles: pl.Series) -> pl.Series:
    """Return titles as a person would write them.

    In this order: HTML entities become the characters they stand for (twice, since shops escape twice), known HTML tags
    go (a script or style with its content, also a tag that was cut short), control characters become blanks, runs of
    white space become one blank, blanks at the ends go, accents are composed (Unicode NFC).
    Angle brackets that are no HTML tag stay (`I <3 You`, `Dune <Limited>`).

    Args:
        titles: text, null where there is none.

    Returns:
        The cleaned titles, null where nothing is left.
    """
    escaped = titles.is_not_null() & titles.str.contains("&", literal=True)
    if escaped.any():
        plain = titles.filter(escaped).map_elements(_unescape, return_dtype=pl.String)
        titles = titles.clone().scatter(escaped.arg_true(), plain)
    expression = (
        pl.col("title")
        .str.replace_all(_SCRIPT, " ")
        .str.replace_all(_TAG, " ")
        .str.replace_all(_CUT_TAG, " ")
        .str.replace_all(_INVISIBLE, " ")
        .str.replace_all(r"\s+", " ")
        .str.strip_chars()
        .str.normalize("NFC")
    )
    return titles.alias("title").to_frame().select(blank_to_null(expression))["title"]


def _unescape(title: str) -> str:
    for _ in range(2):
        title = _ENTITY.sub(lambda entity: html.unescape(entity[0]), title)
    return title


def blank_to_null(text: pl.Expr) -> pl.Expr:
    """Null where `text` is empty or white space."""
    return pl.when(text.str.strip_chars() != "").then(text)


def as_text(column: pl.Expr) -> pl.Expr:
    """The column as text, null where it is blank; numbers of Parquet files become their digits."""
    return blank_to_null(column.cast(pl.String))


def as_number(column: pl.Expr) -> pl.Expr:
    """The column as Float64, null where it is not a finite number."""
    number = column.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


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
    frame = column.alias("time").to_frame()
    if column.dtype in (pl.Date, pl.Datetime):
        return frame.select(pl.col("time").cast(pl.Datetime("ms")).dt.epoch("ms"))["time"]
    number = frame.select(as_number(pl.col("time")))["time"]
    median = number.abs().median()
    size = float(median) if isinstance(median, int | float) else 0.0
    if size < SECONDS_BELOW:
        factor = 1e3
    elif size < MILLISECONDS_BELOW:
        factor = 1.0
    elif size < MICROSECONDS_BELOW:
        factor = 1e-3
    else:
        factor = 1e-6
    milliseconds = (number * factor).round(0).cast(pl.Int64, strict=False)
    if number.null_count() == column.null_count():
        return milliseconds.alias("time")
    return frame.select(pl.coalesce(milliseconds, _iso_to_milliseconds(pl.col("time").cast(pl.String))))["time"]


def _iso_to_milliseconds(text: pl.Expr) -> pl.Expr:
    part = text.str.strip_chars().str.extract_groups(
        r"^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2}(?:\.\d+)?)?)? ?(Z|z|UTC|[+-]\d{2}:?\d{2})?$"
    )
    offset = part.struct[3].fill_null("+00:00").str.replace("^(Z|z|UTC)$", "+00:00")
    whole = pl.concat_str(
        part.struct[0], pl.lit("T"), part.struct[1].fill_null("00:00"), part.struct[2].fill_null(":00"), offset
    )
    return whole.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", strict=False, time_unit="ms", time_zone="UTC").dt.epoch("ms")

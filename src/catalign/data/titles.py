"""Title strategies: metadata in a title, its length, and what tells items of one title apart.

They come in this order: `TitleFormat`, then `shorten_to_words` or `shorten_to_tokens`, then (for the items that stay)
`distinguish`, because a shorter title may be another item's too.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.data.cleaning import blank_to_null, clean_titles
from catalign.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TITLE = "title"
ITEM_ID = "item id"  # what `distinguish` calls the last resort in its counts
LONGEST_MARK = 60  # characters; a longer value (a description, a list of pictures) is no mark
_OWN = {"file", "row", "order"}  # columns of a table as read that are no metadata
_FORMAT = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{([^{}\[\]]+)\}|[{}\[\]]|[^{}\[\]]+")
_WORD = r"\s*\S+"
_DANGLING = " ,;:/|&+([{-–—"  # not left at the end of a title that was cut

CountTokens: TypeAlias = Callable[[list[str]], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class _Part:
    """Text and fields in their order; an optional part is left out where one of its fields is missing."""

    optional: bool
    pieces: list[tuple[bool, str]]  # whether it is a field; its name or the text


class TitleFormat:
    """How a title is written, such as `{title}[ by {brand}]`.

    `{name}` stands for the title, the `item_id` or a kept metadata column. A part in square brackets is left out where
    a field in it is missing; where a field outside brackets is missing the item has its title alone, so no words are
    left dangling. Doubled brackets stand for themselves.

    Attributes:
        fields: the names in it.

    Raises:
        UserError: brackets that do not close, or no `{title}` outside square brackets.
    """

    def __init__(self, text: str) -> None:
        self._where = f"--title-format {text!r}"
        self._parts = list(self._parse(text))
        self.fields = [name for part in self._parts for is_field, name in part.pieces if is_field]
        if (True, TITLE) not in [piece for part in self._parts if not part.optional for piece in part.pieces]:
            raise UserError(
                "does not hold {title} outside square brackets",
                where=self._where,
                mend="for example '{title}[ by {brand}]'",
            )

    def _parse(self, text: str) -> list[_Part]:
        parts = [_Part(optional=False, pieces=[])]
        for match in _FORMAT.finditer(text):
            token, field = match[0], match[1]
            if token == "[" and not parts[-1].optional:
                parts.append(_Part(optional=True, pieces=[]))
            elif token == "]" and parts[-1].optional:
                parts.append(_Part(optional=False, pieces=[]))
            elif token in "[]{}":
                raise UserError(
                    f"the bracket {token} at character {match.start() + 1} has no partner",
                    where=self._where,
                    mend=f"write {token * 2} for the character itself; optional parts hold no others",
                )
            elif field is not None:
                parts[-1].pieces.append((True, field))
            else:
                parts[-1].pieces.append((False, token[:1] if token in ("{{", "}}", "[[", "]]") else token))
        if parts[-1].optional:
            raise UserError("a square bracket is not closed", where=self._where)
        return [part for part in parts if part.pieces]

    def write(self, items: pl.DataFrame, *, clean: bool) -> tuple[pl.Series, int]:
        """Write the titles of items that have one.

        Args:
            items: `item_id`, `title` and metadata.
            clean: clean the metadata as titles are.

        Returns:
            The titles, and how many items have their title alone because a field is missing.

        Raises:
            UserError: a field that is no column of the items, or one that holds objects.
        """
        for name in self.fields:
            _check_field(name, items, self._where)
        other = [name for name in dict.fromkeys(self.fields) if name not in (TITLE, "item_id")]
        values = items.select(TITLE, "item_id", *(plain_text(items[name], clean=clean) for name in other))
        whole = values.select(pl.concat_str(*(_write_part(part) for part in self._parts)).alias(TITLE))[TITLE]
        return whole.fill_null(items[TITLE]), whole.null_count()


def _check_field(name: str, items: pl.DataFrame, where: str) -> None:
    fields = [column for column in items.columns if column not in _OWN]
    if name not in fields:
        raise UserError(
            f"there is no field {name!r}", where=where,
            mend=f"choose from {', '.join(fields)}, or keep a column of the items with --metadata",
        )  # fmt: skip
    if not writable(items[name]):
        raise UserError(f"the column {name!r} holds objects", where=where, mend="take a column of text or numbers")


def _write_part(part: _Part) -> pl.Expr:
    text = pl.concat_str(*(pl.col(piece) if is_field else pl.lit(piece) for is_field, piece in part.pieces))
    return text.fill_null("") if part.optional else text


def plain_text(column: pl.Series, *, clean: bool) -> pl.Series:
    """A metadata column as text, a list (also one of texts in JSON) as its members with commas; null where nothing is.

    Args:
        column: as `writable` allows it.
        clean: clean the text as titles are.
    """
    if isinstance(column.dtype, pl.List):
        column = column.cast(pl.List(pl.String)).list.join(", ")
    text = pl.col(column.name)
    members = text.str.slice(2, text.str.len_chars() - 4).str.replace_all(r'"\s*,\s*"', ", ")
    is_list = text.str.starts_with('["') & text.str.ends_with('"]')
    shown = pl.when(text != "[]").then(pl.when(is_list).then(members).otherwise(text))
    plain = column.cast(pl.String).to_frame().select(blank_to_null(shown).alias(column.name))[column.name]
    return clean_titles(plain).alias(column.name) if clean else plain


def writable(column: pl.Series) -> bool:
    """Whether a column can be part of a title: text, numbers, or lists of these."""
    dtype = column.dtype.inner if isinstance(column.dtype, pl.List) else column.dtype
    return not dtype.is_nested()


def shorten_to_words(titles: pl.Series, most: int) -> pl.Series:
    """Keep the first `most` words of titles; separators that would then end a title go too."""
    return titles.to_frame("title").select(
        pl.when(pl.col("title").str.count_matches(_WORD) > most)
        .then(_leading_words(pl.col("title"), pl.lit(most)))
        .otherwise("title")
        .alias(titles.name)
    )[titles.name]


def shorten_to_tokens(titles: pl.Series, most: int, count_tokens: CountTokens) -> pl.Series:
    """Keep as many whole words of titles as have at most `most` tokens, but never less than the first word.

    Args:
        titles: without null.
        most: tokens, the end token not counted.
        count_tokens: how many tokens each text has.
    """
    long = np.flatnonzero(count_tokens(titles.to_list()) > most)
    frame = titles.gather(long).alias("title").to_frame()
    low = np.ones(len(long), dtype=np.int64)
    high = frame["title"].str.count_matches(_WORD).to_numpy().astype(np.int64) - 1

    def first(words: npt.NDArray[np.int64]) -> pl.Series:
        return frame.select(_leading_words(pl.col("title"), pl.lit(pl.Series(words))))["title"]

    while (low < high).any():  # the longest beginning that fits, found by halving
        middle = (low + high + 1) // 2
        fits = count_tokens(first(middle).to_list()) <= most
        low, high = np.where(fits, middle, low), np.where(fits, high, np.maximum(middle - 1, low))
    return titles.clone().scatter(long, first(low))


def _leading_words(title: pl.Expr, words: pl.Expr) -> pl.Expr:
    cut = title.str.extract_all(_WORD).list.head(words).list.join("")
    bare = cut.str.strip_chars_end(_DANGLING)
    return pl.when(bare != "").then(bare).otherwise(cut)


def distinguish(
    items: pl.DataFrame, *, clean: bool, settled: pl.Series | None = None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Give items that share a title something in a bracket that tells them apart, so that no two share one.

    The metadata columns are asked in their order: where the items of a title differ in one, each gets its value (an
    item without a value, or with a very long one, keeps its title); those that still share a title go on to the next
    column. What is left gets its item id.

    Args:
        items: `item_id`, `title`, metadata; perhaps `file`, `row`.
        clean: clean the metadata as titles are.
        settled: true for items whose title is not to change; only they may share one in the end.

    Returns:
        The items with their titles, and how many items got a mark from each column (`item id` for the ids).
    """
    fixed = pl.repeat(False, items.height, eager=True) if settled is None else settled
    frame = pl.DataFrame({"item_id": items["item_id"], "base": items[TITLE], TITLE: items[TITLE], "fixed": fixed})
    frame = frame.with_columns(marks=pl.lit(""))
    counts: dict[str, int] = {}
    for column in items.drop("item_id", TITLE, *_OWN, strict=False):
        if not writable(column) or not frame[TITLE].is_duplicated().any():
            continue
        value = plain_text(column, clean=clean).alias("value")
        frame = frame.with_columns(pl.when(value.str.len_chars() <= LONGEST_MARK).then(value).alias("value"))
        differs = pl.col("value").n_unique().over(TITLE) > 1
        frame = _mark(frame, differs & pl.col("value").is_not_null(), "value", column.name, counts)
    while (frame[TITLE].is_duplicated() & ~frame["fixed"]).any():
        frame = _mark(frame, pl.col(TITLE).is_duplicated(), "item_id", ITEM_ID, counts)
    return items.with_columns(frame[TITLE]), counts


def _mark(frame: pl.DataFrame, chosen: pl.Expr, column: str, name: str, counts: dict[str, int]) -> pl.DataFrame:
    """Add a column's values to the marks of the chosen items that are not fixed, and count them under `name`."""
    frame = frame.with_columns(chosen=chosen & ~pl.col("fixed"))
    marked = int(frame["chosen"].sum())
    if marked:
        counts[name] = counts.get(name, 0) + marked
    separator = pl.when(pl.col("marks") == "").then(pl.lit("")).otherwise(pl.lit(", "))
    marks = pl.when("chosen").then(pl.concat_str("marks", separator, column)).otherwise("marks")
    frame = frame.with_columns(marks=marks)
    bracket = pl.concat_str("base", pl.lit(" ("), "marks", pl.lit(")"))
    return frame.with_columns(pl.when(pl.col("marks") == "").then("base").otherwise(bracket).alias(TITLE))


def load_tokenizer(name_or_folder: str) -> "PreTrainedTokenizerBase":
    """Load a Hugging Face tokenizer.

    Raises:
        UserError: there is none.
    """
    from transformers import AutoTokenizer  # takes a second, and most datasets need none

    if Path(name_or_folder).is_dir() and not (Path(name_or_folder) / "tokenizer_config.json").is_file():
        raise UserError("holds no tokenizer (no tokenizer_config.json)", where=name_or_folder)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name_or_folder)
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"cannot be loaded as a tokenizer ({reason})", where=name_or_folder) from error
    return tokenizer


def token_counter(tokenizer: "PreTrainedTokenizerBase") -> CountTokens:
    """Count tokens as prompts do: nothing is added, and what looks like a special token is text."""

    def count(texts: Sequence[str]) -> npt.NDArray[np.int64]:
        if not texts:
            return np.zeros(0, dtype=np.int64)
        encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
        return np.fromiter(map(len, encoded["input_ids"]), dtype=np.int64, count=len(texts))

    return count

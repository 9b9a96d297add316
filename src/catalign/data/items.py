"""The item table: ids, titles, and the rules for missing, repeated and duplicate ones."""

from dataclasses import dataclass

import polars as pl

from catalign.data.cleaning import as_text, clean_titles, id_text
from catalign.data.dataset import TitleCounts
from catalign.data.ledger import Ledger
from catalign.data.options import TitleOptions
from catalign.data.titles import (
    TITLE,
    TitleFormat,
    distinguish,
    load_tokenizer,
    shorten_to_tokens,
    shorten_to_words,
    token_counter,
)
from catalign.errors import UserError

NUMBER = r"^[+-]?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?$"  # not 007, which is a name, nor what a number cannot hold


@dataclass(frozen=True)
class ItemTable:
    """The settled item table.

    Attributes:
        frame: `item_id`, `title`, metadata, `file`, `row`, in the order of the source.
        known: every id of the source: `source_id`, and `item_id`, the id it goes by now (null: it has no title).
        changed: titles that cleaning changed.
        missing: items without a title.
        alone: items with their title alone, because a field of the title format is missing.
        shortened: titles that were cut.
    """

    frame: pl.DataFrame
    known: pl.DataFrame
    changed: int
    missing: int
    alone: int = 0
    shortened: int = 0


def settle_items(raw: pl.DataFrame, options: TitleOptions, ledger: Ledger, *, may_be_empty: bool = False) -> ItemTable:
    """Clean and write the titles and apply the rules for items; `finish_titles` follows when it is known which stay.

    A repeated id keeps its first row that has a title.

    Args:
        raw: `item_id`, `title`, metadata, `file`, `row`, as read.
        options: the rules.
        ledger: counts what is dropped under `items`.
        may_be_empty: whether it is no mistake if nothing is left.

    Raises:
        UserError: no item with a title is left, or the items lack a field of the title format.
    """
    read = raw.with_columns(id_text(raw["item_id"]), as_text(pl.col(TITLE)))
    read = read.with_columns(order=pl.int_range(pl.len()))
    read = ledger.drop("items", read, pl.col("item_id").is_null(), "no item id")
    titles = _cleaned(read, options, ledger) if options.clean else read[TITLE]
    changed = int((titles != read[TITLE]).sum())
    read = read.with_columns(titles.alias(TITLE))
    first = pl.col("order").sort_by(pl.col(TITLE).is_null(), "order").first().over("item_id")
    read = ledger.drop("items", read, pl.col("order") != first, "repeated item id")
    missing = read[TITLE].null_count()
    if options.missing_titles == "id":
        read = read.with_columns(pl.col(TITLE).fill_null(pl.col("item_id")))
    untitled = read.filter(pl.col(TITLE).is_null()).select(source_id="item_id", item_id=pl.lit(None, pl.String))
    read = ledger.drop("items", read, pl.col(TITLE).is_null(), "no title")
    titles, alone = TitleFormat(options.title_format).write(read, clean=options.clean)
    cut = shorten(titles, options)
    read = read.with_columns(cut.alias(TITLE))
    goes_by = pl.col("item_id").first().over(TITLE) if options.duplicate_titles == "merge" else pl.col("item_id")
    known = read.select(source_id="item_id", item_id=goes_by)
    read = ledger.drop("items", read, pl.col("item_id") != goes_by, "title of an earlier item (merged)")
    if read.is_empty() and not may_be_empty:
        raise UserError(f"no item is left ({ledger.reasons('items')})", mend="check the id and title columns")
    return ItemTable(
        read.drop("order"), pl.concat([known, untitled]), changed, missing, alone, int((cut != titles).sum())
    )


def _cleaned(read: pl.DataFrame, options: TitleOptions, ledger: Ledger) -> pl.Series:
    """Clean the titles; the ledger is told what every rule changed."""

    def note(rule: str, before: pl.Series, after: pl.Series) -> None:
        ledger.change("items", rule, read["item_id"], before, after)

    return clean_titles(read[TITLE], without=options.without_rules, note=note)


def shorten(titles: pl.Series, options: TitleOptions) -> pl.Series:
    """Cut titles to the length that the options ask for, if they do.

    Raises:
        UserError: there is no such tokenizer.
    """
    if options.title_words is not None:
        return shorten_to_words(titles, options.title_words)
    if options.title_tokens is not None and options.tokenizer is not None:
        return shorten_to_tokens(titles, options.title_tokens, token_counter(load_tokenizer(options.tokenizer)))
    return titles


def finish_titles(table: ItemTable, items: pl.DataFrame, options: TitleOptions) -> tuple[pl.DataFrame, TitleCounts]:
    """Tell apart the kept items that share a title, if asked to, and count what was met.

    Args:
        table: as `settle_items` returned it.
        items: its rows that stay.
        options: the rules.

    Returns:
        The items with their final titles, and the counts.
    """
    if options.duplicate_titles != "distinguish":
        return items, title_counts(table, items)
    items, marks = distinguish(items, clean=options.clean)
    return items, title_counts(table, items, marks)


def with_numbers(items: pl.DataFrame) -> pl.DataFrame:
    """Columns of metadata whose every text is a number, as numbers: CSV knows text only, filters know ranges.

    Args:
        items: `item_id`, `title`, metadata; an empty text is a missing value.
    """
    metadata = [name for name, dtype in items.schema.items() if dtype == pl.String and name not in ("item_id", TITLE)]
    texts = items.select(pl.col(metadata).str.strip_chars().replace("", None))
    are_numbers = texts.select(pl.all().str.contains(NUMBER).all() & pl.all().is_not_null().any())
    numeric = [column.name for column in are_numbers if column.item()]
    whole = texts.select(~pl.col(numeric).str.contains(".", literal=True).any()).row(0, named=True) if numeric else {}
    return items.with_columns(texts[name].cast(pl.Int64 if whole[name] else pl.Float64) for name in numeric)


def title_counts(table: ItemTable, items: pl.DataFrame, marks: dict[str, int] | None = None) -> TitleCounts:
    """Count what the titles met and what the kept items share; `marks` as `distinguish` counts them."""
    sizes = items[TITLE].value_counts(name="items").filter(pl.col("items") > 1)["items"]
    return TitleCounts(
        changed=table.changed, missing=table.missing, items_sharing=int(sizes.sum()), titles_shared=sizes.len(),
        alone=table.alone, shortened=table.shortened, distinguished=marks or {},
    )  # fmt: skip

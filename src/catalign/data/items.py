"""The item table: ids, titles, and the rules for missing, repeated and duplicate ones."""

from dataclasses import dataclass

import polars as pl

from catalign.data.cleaning import as_text, clean_titles
from catalign.data.dataset import TitleCounts
from catalign.data.ledger import Ledger
from catalign.data.options import TitleOptions
from catalign.errors import UserError


@dataclass(frozen=True)
class ItemTable:
    """The settled item table.

    Attributes:
        frame: `item_id`, `title`, metadata, `file`, `row`, in the order of the source.
        known: every id of the source: `source_id`, and `item_id`, the id it goes by now (null: it has no title).
        changed: titles that cleaning changed.
        missing: items without a title.
    """

    frame: pl.DataFrame
    known: pl.DataFrame
    changed: int
    missing: int


def settle_items(raw: pl.DataFrame, options: TitleOptions, ledger: Ledger) -> ItemTable:
    """Clean the titles and apply the rules for items.

    A repeated id keeps its first row that has a title.

    Args:
        raw: `item_id`, `title`, metadata, `file`, `row`, as read.
        options: the rules.
        ledger: counts what is dropped under `items`.

    Raises:
        UserError: no item with a title is left.
    """
    read = raw.with_columns(as_text(pl.col("item_id")), as_text(pl.col("title")))
    read = read.with_columns(order=pl.int_range(pl.len()))
    read = ledger.drop("items", read, pl.col("item_id").is_null(), "no item id")
    titles = clean_titles(read["title"]) if options.clean else read["title"]
    changed = int((titles != read["title"]).sum())
    read = read.with_columns(titles.alias("title"))
    first = pl.col("order").sort_by(pl.col("title").is_null(), "order").first().over("item_id")
    read = ledger.drop("items", read, pl.col("order") != first, "repeated item id")
    missing = read["title"].null_count()
    if options.missing_titles == "id":
        read = read.with_columns(pl.col("title").fill_null(pl.col("item_id")))
    known = read.select(
        source_id="item_id", item_id=pl.when(pl.col("title").is_not_null()).then("item_id"), title="title"
    )
    read = ledger.drop("items", read, pl.col("title").is_null(), "no title")
    if options.duplicate_titles == "merge":
        merged = pl.when(pl.col("title").is_not_null()).then(pl.col("item_id").first().over("title"))
        known = known.with_columns(merged.alias("item_id"))
        duplicate = pl.col("item_id") != pl.col("item_id").first().over("title")
        read = ledger.drop("items", read, duplicate, "title of an earlier item (merged)")
    if read.is_empty():
        raise UserError(f"no item is left ({ledger.reasons('items')})", mend="check the id and title columns")
    return ItemTable(read.drop("order"), known.drop("title"), changed, missing)


def title_counts(table: ItemTable, items: pl.DataFrame) -> TitleCounts:
    """Count what cleaning met and what the kept items share."""
    sizes = items["title"].value_counts(name="items").filter(pl.col("items") > 1)["items"]
    return TitleCounts(
        changed=table.changed, missing=table.missing, items_sharing=int(sizes.sum()), titles_shared=sizes.len()
    )

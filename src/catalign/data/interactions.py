"""The table of interactions: read, parsed, filtered, put in order."""

import polars as pl

from catalign.data.cleaning import as_milliseconds, as_number, as_text
from catalign.data.filters import k_core, repeated_pairs
from catalign.data.items import ItemTable
from catalign.data.ledger import Ledger
from catalign.data.options import TableOptions, TableSource
from catalign.data.splits import given_names
from catalign.data.tables import read_table
from catalign.errors import UserError

_TABLE = "interactions"


def read_interactions(source: TableSource, ledger: Ledger) -> pl.DataFrame:
    """Read the table, or the three tables of given splits.

    Returns:
        `user_id`, `source_id` (the item as the source calls it), `time`, `rating`, `split`, `file`, `row`, as read;
        what was not asked for is null.
    """
    columns = {"user_id": source.user, "source_id": source.item}
    optional = {"time": source.time, "rating": source.rating, "split": source.split_column}
    columns |= {key: name for key, name in optional.items() if name is not None}
    absent = [pl.lit(None, pl.String).alias(key) for key, name in optional.items() if name is None]
    parts = []
    for split, table in {"train": source.interactions, "valid": source.valid, "test": source.test}.items():
        if table is None:
            continue
        read = read_table(table, columns, table_name=_TABLE, ledger=ledger)
        part = read.with_columns(as_text(pl.col("user_id")), as_text(pl.col("source_id")), *absent)
        part = part.select("user_id", "source_id", "time", "rating", "split", "file", "row")
        parts.append(part if source.test is None else part.with_columns(split=pl.lit(split)))
    return pl.concat(parts, how="vertical_relaxed")


def parse_interactions(log: pl.DataFrame, source: TableSource, options: TableOptions, ledger: Ledger) -> pl.DataFrame:
    """Parse times, ratings and splits; rows that cannot be read are dropped, counted under `interactions`.

    Args:
        log: as `read_interactions` returns it.
        source: which columns there are.
        options: whether the split is given.
        ledger: counts what is dropped.

    Returns:
        `log` with `timestamp` (Int64 milliseconds) and `score` (Float64), each null if unknown, and `split`.
    """
    log = ledger.drop(_TABLE, log, pl.col("user_id").is_null(), "no user id")
    log = ledger.drop(_TABLE, log, pl.col("source_id").is_null(), "no item id")
    if source.time is None:
        log = log.with_columns(timestamp=pl.lit(None, pl.Int64))
    else:
        log = log.with_columns(as_milliseconds(log["time"]).alias("timestamp"))
        log = ledger.drop(_TABLE, log, as_text(pl.col("time")).is_null(), "no timestamp")
        log = ledger.drop(_TABLE, log, pl.col("timestamp").is_null(), "timestamp is neither a number nor ISO 8601")
    log = log.with_columns(score=as_number(pl.col("rating")))
    unreadable = pl.col("score").is_null() & as_text(pl.col("rating")).is_not_null()
    log = ledger.drop(_TABLE, log, unreadable, "rating is not a number")
    if options.split == "given":
        log = log.with_columns(named=given_names(pl.col("split")))
        log = ledger.drop(_TABLE, log, pl.col("named").is_null(), "split is none of train, valid, test")
        log = log.drop("split").rename({"named": "split"})
    return log


def filter_interactions(log: pl.DataFrame, table: ItemTable, options: TableOptions, ledger: Ledger) -> pl.DataFrame:
    """Keep the interactions that the rules allow: ratings, known items, repeated pairs, k-core, in this order.

    Args:
        log: as `parse_interactions` returns it.
        table: the settled items.
        options: the rules.
        ledger: counts what is dropped.

    Returns:
        `user_id`, `item_id`, `timestamp`, `rating` (Float32), `split`, `order` (UInt32, as in the source).
    """
    if options.min_rating is not None:
        log = ledger.drop(_TABLE, log, pl.col("score").is_null(), "no rating")
        log = ledger.drop(_TABLE, log, pl.col("score") < options.min_rating, f"rating below {options.min_rating:g}")
    log = log.join(table.known.with_columns(known=True), on="source_id", how="left", maintain_order="left")
    log = ledger.drop(_TABLE, log, pl.col("known").is_null(), "item not in the item table")
    log = ledger.drop(_TABLE, log, pl.col("item_id").is_null(), "item without a title")
    log = log.with_columns(order=pl.int_range(pl.len(), dtype=pl.UInt32))
    if options.duplicates != "keep" and not log.is_empty():
        log = log.with_columns(repeated=repeated_pairs(log, options.duplicates))
        log = ledger.drop(_TABLE, log, pl.col("repeated"), "repeated (user, item) pair")
    if options.k_core > 1 and not log.is_empty():
        numbers = log.select(pl.col("user_id", "item_id").rank("dense") - 1)
        stays = k_core(numbers["user_id"].to_numpy(), numbers["item_id"].to_numpy(), options.k_core)
        log = ledger.drop(_TABLE, log, pl.lit(~pl.Series(stays)), f"outside the {options.k_core}-core")
    rating = pl.col("score").cast(pl.Float32).alias("rating")
    return log.select("user_id", "item_id", "timestamp", rating, "split", "order")


def in_user_order(log: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Put each user's rows together in time order (ties as in the file), users by first appearance; number the items.

    Returns:
        `user`, `user_id`, `item` (UInt32), `timestamp`, `rating`, `split`, `position`.
    """
    numbers = items.select("item_id").with_row_index("item")
    users = log.select("user_id").unique(maintain_order=True).with_row_index("user")
    log = log.join(numbers, on="item_id").join(users, on="user_id").sort("user", "timestamp", "order")
    position = pl.int_range(pl.len(), dtype=pl.UInt32).over("user")
    return log.with_columns(position=position).drop("item_id", "order")


def nothing_left(source: TableSource, table: ItemTable, ledger: Ledger) -> UserError:
    """Say why every interaction was dropped, with a row of the most common reason."""
    reasons = ledger.dropped.get(_TABLE, {})
    if not reasons:
        return UserError("the table has no rows", where=source.interactions)
    worst = max(reasons, key=lambda reason: reasons[reason])
    example = next(reject for reject in ledger.rejects if reject["reason"] == worst)
    shown = {
        key: example.get(key) for key in ("user_id", "source_id", "time", "rating", "split", "text") if key in example
    }
    mend = "check the column options and the filters"
    if worst == "item not in the item table":
        mend = f"ids are compared as text; the items have ids such as {table.known.item(0, 'source_id')!r}"
    return UserError(
        f"no interaction is left ({ledger.reasons(_TABLE)}; for example {shown})",
        where=f"{source.interactions}, row {example['row']}",
        mend=mend,
    )

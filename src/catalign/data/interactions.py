"""The table of interactions: read chunk by chunk and turned into numbers, then filtered and put in order as a whole.

Text is held for one chunk at a time, so that fifty million interactions are a few columns of numbers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from catalign.data.cleaning import as_text, id_text, in_milliseconds, read_numbers, read_times
from catalign.data.filters import k_core, repeated_pairs
from catalign.data.items import ItemTable
from catalign.data.ledger import Ledger
from catalign.data.numbering import Numbering
from catalign.data.options import TableOptions, TableSource
from catalign.data.privacy import hash_users
from catalign.data.rules import reason_of
from catalign.data.splits import given_names
from catalign.data.tables import CHUNK_ROWS, read_chunks
from catalign.errors import UserError

_TABLE = "interactions"
_NOT_A_TIME = "unreadable-time"


@dataclass(frozen=True)
class Log:
    """Interactions as numbers.

    Attributes:
        frame: `user` (UInt32, a row of `users`), `item` (UInt32, a row of the items), `timestamp` (Int64 milliseconds,
            null if unknown), `rating` (Float32, null if unknown), `split`; and more columns on the way.
        users: the ids of the users.
    """

    frame: pl.DataFrame
    users: pl.Series


def read_interactions(
    source: TableSource,
    table: ItemTable,
    options: TableOptions,
    ledger: Ledger,
    *,
    rows: int = CHUNK_ROWS,
    step: Callable[[str], None] = lambda _: None,
    salt: bytes | None = None,
) -> Log:
    """Read the table, or the three tables of given splits, and drop what every row for itself gives cause to.

    Args:
        source: the tables.
        table: the settled items.
        options: the rules.
        ledger: counts the rows read and dropped.
        rows: how many are read at a time.
        step: is told how far it has come.
        salt: hashes the user ids; None: they stay as they are.

    Returns:
        In the order of the source, also with `source` (UInt32, the row of `table.known`), `file` and `row`.
    """
    users = Numbering()
    number = pl.int_range(pl.len(), dtype=pl.UInt32)
    known = table.known.with_columns(source=number).join(
        table.frame.select("item_id", item=number), on="item_id", how="left", maintain_order="left"
    )
    parts = []
    step("reading the interactions")
    for chunk in _chunks(source, ledger, rows):
        parts.append(_numbered(_sound_rows(chunk, known, source, options, ledger), users))
        step(f"reading the interactions: {ledger.rows_in[_TABLE]:,} rows")
    frame = pl.concat(parts, rechunk=True)
    parts.clear()  # they would double what is held
    frame = frame.with_columns(in_milliseconds(frame.select("time", "unit_known")).alias("timestamp"))
    ids = users.texts()
    log = Log(frame, ids if salt is None else hash_users(ids, salt))  # each user once
    if _NOT_A_TIME not in options.without_rules:  # a number may turn out too large when the unit is known
        unreadable = pl.col("time").is_not_null() & pl.col("timestamp").is_null()
        log = drop_interactions(log, table, unreadable, reason_of(_NOT_A_TIME, options), ledger)
    return Log(log.frame.drop("time", "unit_known"), log.users)


def _chunks(source: TableSource, ledger: Ledger, rows: int) -> Iterator[pl.DataFrame]:
    """Yield `user_id`, `source_id`, `time`, `rating`, `split`, `file`, `row`; what was not asked for is null."""
    columns = {"user_id": source.user, "source_id": source.item}
    optional = {"time": source.time, "rating": source.rating, "split": source.split_column}
    columns |= {key: name for key, name in optional.items() if name is not None}
    absent = {key: pl.lit(None, pl.String) for key, name in optional.items() if name is None}
    for split, table in {"train": source.interactions, "valid": source.valid, "test": source.test}.items():
        if table is None:
            continue
        given = absent if source.test is None else absent | {"split": pl.lit(split)}
        for chunk in read_chunks(table, columns, table_name=_TABLE, ledger=ledger, rows=rows):
            chunk = chunk.with_columns(id_text(chunk["user_id"]), id_text(chunk["source_id"])).with_columns(**given)
            yield chunk.select("user_id", "source_id", "time", "rating", "split", "file", "row")


def _sound_rows(
    chunk: pl.DataFrame, known: pl.DataFrame, source: TableSource, options: TableOptions, ledger: Ledger
) -> pl.DataFrame:
    """Parse times, ratings and splits, look the items up, drop the rows that cannot be used."""
    times = read_times(chunk["time"]).rename({"time": "read_time"})
    read = chunk.with_columns(*times, score=read_numbers(chunk["rating"]), named=given_names(pl.col("split")))
    read = read.join(known.drop("item_id"), on="source_id", how="left", maintain_order="left")
    score, has_rating = pl.col("score"), as_text(pl.col("rating")).is_not_null()
    causes = {"without-user": pl.col("user_id").is_null(), "without-item": pl.col("source_id").is_null()}
    if source.time is not None:
        causes |= {"without-time": as_text(pl.col("time")).is_null(), _NOT_A_TIME: pl.col("read_time").is_null()}
    if source.rating is not None:
        causes |= {"unreadable-rating": score.is_null() & has_rating}
    if options.split == "given":
        causes |= {"unknown-split": pl.col("named").is_null()}
    if options.min_rating is not None:
        causes |= {"unrated": score.is_null(), "min-rating": score < options.min_rating}
    causes |= {"unknown-item": pl.col("source").is_null(), "untitled": pl.col("item").is_null()}
    conditions = {
        reason_of(name, options): cause for name, cause in causes.items() if name not in options.without_rules
    }
    return ledger.sift(_TABLE, read, conditions)


def _numbered(rows: pl.DataFrame, users: Numbering) -> pl.DataFrame:
    """The columns of `Log` before the unit of the times is known, and what finds a row again."""
    return rows.select(
        "source",
        "item",
        "unit_known",
        "row",
        "file",
        user=users.numbers(rows["user_id"]),
        time="read_time",
        rating=pl.col("score").cast(pl.Float32),
        split="named",
    )


def filter_interactions(log: Log, table: ItemTable, options: TableOptions, ledger: Ledger) -> Log:
    """Drop what the whole log gives cause to: repeated pairs, then what is outside the k-core."""
    if options.duplicates != "keep":
        repeated = pl.lit(repeated_pairs(log.frame, options.duplicates))
        log = drop_interactions(log, table, repeated, reason_of("repeated-pairs", options), ledger)
    if options.k_core > 1:
        stays = k_core(log.frame["user"].to_numpy(), log.frame["item"].to_numpy(), options.k_core)
        log = drop_interactions(log, table, pl.lit(pl.Series(~stays)), reason_of("k-core", options), ledger)
    return log


def drop_interactions(log: Log, table: ItemTable, condition: pl.Expr, reason: str, ledger: Ledger) -> Log:
    """Drop rows of which numbers are left; the rejects file shows their ids, times and ratings as understood."""

    def show(rows: pl.DataFrame) -> pl.DataFrame:
        ids = {"user_id": log.users.gather(rows["user"]), "source_id": table.known["source_id"].gather(rows["source"])}
        return rows.select(**ids, timestamp="timestamp", rating="rating", split="split", file="file", row="row")

    return Log(ledger.sift(_TABLE, log.frame, {reason: condition}, show), log.users)


def without_unused(log: Log, items: pl.DataFrame, ledger: Ledger) -> tuple[Log, pl.DataFrame]:
    """Drop the items that no interaction is left of, and number the others anew."""
    used = np.bincount(log.frame["item"].to_numpy(), minlength=items.height) > 0
    items = ledger.drop("items", items, pl.lit(pl.Series(~used)), "no interaction left")
    number = (np.cumsum(used) - 1).astype(np.uint32)
    return Log(log.frame.with_columns(item=number[log.frame["item"].to_numpy()]), log.users), items


def in_user_order(log: Log) -> Log:
    """Put each user's rows together in time order (ties as in the source), users by first appearance.

    Returns:
        Only the columns of `Log`, and `position` (UInt32, from 0 within the user).
    """
    appeared = log.frame["user"].unique(maintain_order=True)
    number = np.zeros(len(log.users), dtype=np.uint32)
    number[appeared.to_numpy()] = np.arange(len(appeared), dtype=np.uint32)
    frame = log.frame.select("item", "timestamp", "rating", "split", user=number[log.frame["user"].to_numpy()])
    frame = frame.sort("user", "timestamp", maintain_order=True)
    counts = np.bincount(frame["user"].to_numpy(), minlength=len(appeared))
    begins = np.repeat((np.cumsum(counts) - counts).astype(np.uint32), counts)
    position = pl.Series(np.arange(frame.height, dtype=np.uint32) - begins)
    return Log(frame.with_columns(position=position), log.users.gather(appeared))


def nothing_left(source: TableSource, table: ItemTable, ledger: Ledger) -> UserError:
    """Say why every interaction was dropped, with a row of the most common reason."""
    reasons = ledger.dropped.get(_TABLE, {})
    if not reasons:
        return UserError("the table has no rows", where=source.interactions)
    worst = max(reasons, key=lambda reason: (reasons[reason], reason))
    example = ledger.examples(_TABLE, worst)[0]
    kept = ("user_id", "source_id", "time", "timestamp", "rating", "split", "text")
    shown = {key: example.get(key) for key in kept if key in example}
    mend = "check the column options and the filters"
    if worst == "item not in the item table":
        mend = f"ids are compared as text; the items have ids such as {table.known.item(0, 'source_id')!r}"
    return UserError(
        f"no interaction is left ({ledger.reasons(_TABLE)}; for example {shown})",
        where=f"{source.interactions}, row {example['row']}",
        mend=mend,
    )

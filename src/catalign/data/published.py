"""Published windows in terms of item indices, and the interactions behind them."""

import polars as pl

from catalign.data.items import ItemTable
from catalign.data.ledger import Ledger
from catalign.errors import UserError


def index_windows(
    windows: pl.DataFrame, table: ItemTable, ledger: Ledger, *, history: int, min_history: int
) -> pl.DataFrame:
    """Turn ids into item indices; order and content stay.

    Items without a title leave the histories. A window is dropped, counted under `windows`, when it names an id that
    the item table lacks, when its target has no title, or when fewer than `min_history` items of its history are left.

    Args:
        windows: as `sources.window_files.PublishedWindows` holds them.
        table: the settled items.
        ledger: counts what is dropped.
        history: longer histories keep their last items.
        min_history: at least this many.

    Returns:
        `user_id`, `history` (list of UInt32), `target` (UInt32), `timestamp`, `split`.

    Raises:
        UserError: no window is left.
    """

    def drop(frame: pl.DataFrame, condition: pl.Expr, reason: str) -> pl.DataFrame:
        return ledger.drop("windows", frame, condition, reason)

    numbers = table.frame.select("item_id").with_row_index("item")
    known = table.known.join(numbers, on="item_id", how="left").select("source_id", "item", known=True)
    windows = drop(windows, pl.col("user_id").is_null(), "no user id")
    windows = windows.with_columns(window=pl.int_range(pl.len()))
    items = windows.select("window", pl.col("history").alias("source_id")).explode("source_id", empty_as_null=False)
    items = items.join(known, on="source_id", how="left", maintain_order="left")
    unknown = items.filter(pl.col("known").is_null())["window"].unique()
    histories = items.drop_nulls("item").group_by("window", maintain_order=True).agg(pl.col("item"))
    windows = windows.join(known, left_on="target", right_on="source_id", how="left", maintain_order="left")
    windows = drop(windows, pl.col("known").is_null(), "target not in the item table")
    windows = drop(windows, pl.col("window").is_in(unknown.implode()), "history holds an item not in the item table")
    windows = drop(windows, pl.col("item").is_null(), "target without a title")
    windows = windows.rename({"item": "target_item"}).join(histories, on="window", how="left", maintain_order="left")
    length = pl.col("item").list.len().fill_null(0)
    windows = drop(windows, length < min_history, f"fewer than {min_history} items of history")
    if windows.is_empty():
        raise UserError(f"no window is left ({ledger.reasons('windows')})", mend="check that the files belong together")
    return windows.select(
        "user_id",
        pl.col("item").list.tail(history).alias("history"),
        pl.col("target_item").alias("target"),
        "timestamp",
        "split",
    )


def rebuild_interactions(windows: pl.DataFrame) -> pl.DataFrame:
    """Rebuild the interactions that the windows were cut from.

    Where each window of a user continues the one before it (its history is the end of that one's history and target),
    they are the history of the first window and then every target. For other users they are the distinct (user, item)
    pairs in order of first appearance. An interaction takes the split of the window it first appears in, and a target's
    timestamp; of items only seen in histories the time is unknown.

    Args:
        windows: `user_id`, `history`, `target`, `timestamp`, `split`, each user's in time order.

    Returns:
        `user_id`, `item`, `timestamp`, `rating` (null), `split`; users in order of first appearance.
    """
    users = windows.select("user_id").unique(maintain_order=True).with_row_index("user")
    windows = windows.join(users, on="user_id", maintain_order="left").with_row_index("window")
    windows = windows.with_columns(sequence=pl.concat_list("history", "target"))
    before = pl.col("sequence").shift(1).over("user")
    windows = windows.with_columns(
        first=before.is_null(),
        chained=(before.list.tail(pl.col("history").list.len()) == pl.col("history")).fill_null(True),
    ).with_columns(chained=pl.col("chained").all().over("user"))
    whole = pl.col("first") | ~pl.col("chained")
    rows = windows.select(
        "user", "user_id", "window", "chained", "timestamp", "split",
        item=pl.when(whole).then("sequence").otherwise(pl.col("sequence").list.tail(1)),
    )  # fmt: skip
    rows = rows.explode("item", empty_as_null=False).with_columns(
        timestamp=pl.when(pl.int_range(pl.len()).over("window") == pl.len().over("window") - 1).then("timestamp")
    )
    rows = rows.sort("user", maintain_order=True).with_row_index("order")
    again = ~pl.col("chained") & (pl.col("order") != pl.col("order").first().over("user", "item"))
    return rows.remove(again).select("user_id", "item", "timestamp", rating=pl.lit(None, pl.Float32), split="split")

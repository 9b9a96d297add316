"""From sources to a dataset folder."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import polars as pl

from catalign.data.cleaning import as_milliseconds, as_number, as_text
from catalign.data.dataset import Card, Dataset, SourceFile, SplitCounts, load_dataset, write_card, write_tables
from catalign.data.filters import k_core, repeated_pairs
from catalign.data.items import ItemTable, settle_items, title_counts
from catalign.data.layouts import PublishedWindows, read_windows
from catalign.data.ledger import Ledger
from catalign.data.options import TableOptions, TableSource, WindowOptions
from catalign.data.published import index_windows, rebuild_interactions
from catalign.data.splits import SPLIT_TYPE, SPLITS, chronological, given_names, leave_one_out
from catalign.data.tables import read_table
from catalign.data.windows import sliding_windows
from catalign.errors import UserError
from catalign.files import sha256_of, whole_folder

Step = Callable[[str], None]


def prepare_tables(
    source: TableSource, options: TableOptions, output: Path, *, overwrite: bool = False, step: Step = lambda _: None
) -> Dataset:
    """Make a dataset folder of a table of interactions and a table of items.

    Args:
        source: the tables.
        options: the rules.
        output: the folder to make.
        overwrite: replace a folder that is there.
        step: is told what is being done, for progress.

    Raises:
        UserError: a table cannot be read, the options do not go together, or nothing is left to train or test on.
    """
    _check_options(source, options)
    ledger = Ledger()
    with whole_folder(output, overwrite=overwrite) as folder:
        step("reading the items")
        table = settle_items(_read_items(source, ledger), options, ledger)
        step("reading the interactions")
        log = _read_interactions(source, ledger)
        step("filtering")
        log = _filter_interactions(log, table, source, options, ledger)
        items = table.frame
        if not options.keep_unused:
            unused = ~pl.col("item_id").is_in(log["item_id"].unique().implode())
            items = ledger.drop("items", items, unused, "no interaction left")
        step("splitting")
        log, rule, warnings = _split(_in_user_order(log, items), options)
        step("making windows")
        windows = sliding_windows(log, history=options.history, min_history=options.min_history)
        paths = [path for path in (source.items, source.interactions, source.valid, source.test) if path is not None]
        card_options = options.model_dump(mode="json") | {"columns": _column_options(source)}
        step("writing")
        _write(folder, items, log, windows, table, ledger, "tables", paths, card_options, rule, warnings)
    return load_dataset(output)


def prepare_windows(
    folder: Path,
    layout: str,
    options: WindowOptions,
    output: Path,
    *,
    train_file: str | None = None,
    overwrite: bool = False,
    step: Step = lambda _: None,
) -> Dataset:
    """Make a dataset folder of a published window layout; its windows stay as they are, in their order.

    Windows go, counted, when their target has no title or when nothing of their history is left.

    Args:
        folder: the published files.
        layout: `msl` or `d3`.
        options: the rules.
        output: the folder to make.
        train_file: name of the training table, if not the usual one.
        overwrite: replace a folder that is there.
        step: is told what is being done, for progress.

    Raises:
        UserError: a file cannot be read, or a split is empty.
    """
    ledger = Ledger()
    with whole_folder(output, overwrite=overwrite) as partial:
        step("reading the windows")
        published: PublishedWindows = read_windows(folder, layout, ledger, train_file=train_file)
        step("settling the items")
        table = settle_items(published.items, options, ledger)
        step("indexing the windows")
        windows = index_windows(
            published.windows, table, ledger, history=options.history, min_history=options.min_history
        )
        step("rebuilding the interactions")
        log = rebuild_interactions(windows)
        step("writing")
        card_options = options.model_dump(mode="json") | {"train_file": train_file}
        _write(
            partial, table.frame, log, windows, table, ledger, layout, published.paths, card_options,
            published.split_rule, published.warnings,
        )  # fmt: skip
    return load_dataset(output)


def _check_options(source: TableSource, options: TableOptions) -> None:
    given = source.split_column is not None or (source.valid is not None and source.test is not None)
    if options.split == "given" and not given:
        raise UserError("--split given needs to know the splits", mend="pass --split-column, or --valid and --test")
    if options.split != "given" and (given or source.valid is not None or source.test is not None):
        raise UserError(f"--split {options.split} does not go with given splits", mend="pass --split given")
    if options.split == "chronological" and source.time is None:
        raise UserError(
            "a chronological split needs timestamps", mend="pass --time COLUMN, or another --split (they leak)"
        )
    if options.min_rating is not None and source.rating is None:
        raise UserError("--min-rating needs ratings", mend="pass --rating COLUMN")
    taken = {"item_id", "title", "file", "row", "order"} & set(source.metadata)
    if taken:
        raise UserError(f"metadata cannot be named {min(taken)!r}", where=source.items, mend="rename the column")


def _read_items(source: TableSource, ledger: Ledger) -> pl.DataFrame:
    columns = [source.item_id, source.title, *source.metadata]
    read = read_table(source.items, columns, table="items", ledger=ledger, encoding=source.encoding)
    return read.select(
        pl.col(source.item_id).alias("item_id"), pl.col(source.title).alias("title"), *source.metadata, "file", "row"
    )


def _read_interactions(source: TableSource, ledger: Ledger) -> pl.DataFrame:
    """Return `user_id`, `source_id`, `time`, `rating`, `split`, `file`, `row`; what was not asked for is null."""
    optional = {"time": source.time, "rating": source.rating, "split": source.split_column}
    columns = [source.user, source.item, *(name for name in optional.values() if name is not None)]
    files = {"train": source.interactions, "valid": source.valid, "test": source.test}
    parts = []
    for split, path in files.items():
        if path is None:
            continue
        read = read_table(path, columns, table="interactions", ledger=ledger, encoding=source.encoding)
        part = read.select(
            as_text(pl.col(source.user)).alias("user_id"),
            as_text(pl.col(source.item)).alias("source_id"),
            *((pl.lit(None, pl.String) if name is None else pl.col(name)).alias(key) for key, name in optional.items()),
            "file",
            "row",
        )
        parts.append(part if source.test is None else part.with_columns(split=pl.lit(split)))
    return pl.concat(parts, how="vertical_relaxed")


def _filter_interactions(
    log: pl.DataFrame, table: ItemTable, source: TableSource, options: TableOptions, ledger: Ledger
) -> pl.DataFrame:
    """Return `user_id`, `item_id`, `timestamp`, `rating`, `split`, `order` of the rows that stay."""

    def drop(frame: pl.DataFrame, condition: pl.Expr, reason: str) -> pl.DataFrame:
        return ledger.drop("interactions", frame, condition, reason)

    log = drop(log, pl.col("user_id").is_null(), "no user id")
    log = drop(log, pl.col("source_id").is_null(), "no item id")
    if source.time is not None:
        log = log.with_columns(as_milliseconds(log["time"]).alias("timestamp"))
        log = drop(log, as_text(pl.col("time")).is_null(), "no timestamp")
        log = drop(log, pl.col("timestamp").is_null(), "timestamp is neither a number nor ISO 8601")
    else:
        log = log.with_columns(timestamp=pl.lit(None, pl.Int64))
    log = log.with_columns(score=as_number(pl.col("rating")).cast(pl.Float32))
    log = drop(log, pl.col("score").is_null() & as_text(pl.col("rating")).is_not_null(), "rating is not a number")
    if options.min_rating is not None:
        log = drop(log, pl.col("score").is_null(), "no rating")
        log = drop(log, pl.col("score") < options.min_rating, f"rating below {options.min_rating:g}")
    if options.split == "given":
        log = log.with_columns(named=given_names(pl.col("split")))
        log = drop(log, pl.col("named").is_null(), "split is none of train, valid, test")
        log = log.drop("split").rename({"named": "split"})
    log = log.join(table.known.with_columns(known=True), on="source_id", how="left", maintain_order="left")
    log = drop(log, pl.col("known").is_null(), "item not in the item table")
    log = drop(log, pl.col("item_id").is_null(), "item without a title")
    log = log.with_row_index("order")
    if options.duplicates != "keep" and not log.is_empty():
        log = log.with_columns(repeated=repeated_pairs(log, options.duplicates))
        log = drop(log, pl.col("repeated"), "repeated (user, item) pair")
    if options.k_core > 1 and not log.is_empty():
        numbers = log.select(pl.col("user_id", "item_id").rank("dense") - 1)
        stays = k_core(numbers["user_id"].to_numpy(), numbers["item_id"].to_numpy(), options.k_core)
        log = drop(log, pl.lit(~pl.Series(stays)), f"outside the {options.k_core}-core")
    if log.is_empty():
        raise UserError(
            f"no interaction is left ({ledger.reasons('interactions')})",
            where=source.interactions,
            mend="check the column options and the filters",
        )
    return log.select("user_id", "item_id", "timestamp", rating="score", split="split", order="order")


def _in_user_order(log: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Put each user's rows together in time order (ties as in the file), users by first appearance; number the items.

    Returns:
        `user`, `user_id`, `item` (UInt32), `timestamp`, `rating`, `split`, `position`.
    """
    numbers = items.select("item_id").with_row_index("item")
    users = log.select("user_id").unique(maintain_order=True).with_row_index("user")
    log = log.join(numbers, on="item_id").join(users, on="user_id").sort("user", "timestamp", "order")
    position = pl.int_range(pl.len(), dtype=pl.UInt32).over("user")
    return log.with_columns(position=position).drop("item_id", "order")


def _split(log: pl.DataFrame, options: TableOptions) -> tuple[pl.DataFrame, str, list[str]]:
    """Return the interactions with their `split`, the rule in words, warnings."""
    if options.split == "given":
        return log.with_columns(pl.col("split").cast(SPLIT_TYPE)), "given by the source", []
    if options.split == "leave-one-out":
        rule = "leave-one-out: each user's last interaction is test, the one before it validation"
        warning = (
            "leave-one-out leaks: training holds interactions later than those tested; "
            "do not compare its metrics with those of a chronological split"
        )
        return log.with_columns(split=leave_one_out(log)), rule, [warning]
    split = chronological(log, min_history=options.min_history)
    rule = "global chronological: windows in order of their target's time, cut 8:1:1 at two instants"
    return log.with_columns(split=split), rule, []


def _column_options(source: TableSource) -> dict[str, object]:
    return source.model_dump(mode="json", exclude={"interactions", "items", "valid", "test"})


def _write(
    folder: Path,
    items: pl.DataFrame,
    log: pl.DataFrame,
    windows: pl.DataFrame,
    table: ItemTable,
    ledger: Ledger,
    layout: str,
    paths: list[Path],
    options: dict[str, object],
    rule: str,
    warnings: list[str],
) -> None:
    """Write the tables and the card, unless a split is empty."""
    by_split = {split: windows.filter(pl.col("split") == split).drop("split") for split in SPLITS}
    empty = [split for split in SPLITS if by_split[split].is_empty()]
    if empty:
        counts = ", ".join(f"{split} {by_split[split].height:,}" for split in SPLITS)
        raise UserError(
            f"no window is left in {' and '.join(empty)} (windows: {counts}; dropped: "
            f"{ledger.reasons('windows' if 'windows' in ledger.rows_in else 'interactions')})",
            where=paths[-1],
            mend="loosen the filters, or choose another --split",
        )
    items = items.drop("file", "row")
    log = log.select("user_id", "item", "timestamp", "rating", "split")
    warm = log.filter(pl.col("split") == "train")["item"].unique().implode()
    in_split = dict(log["split"].cast(pl.String).value_counts().iter_rows())
    splits = {
        split: SplitCounts(
            windows=frame.height,
            interactions=in_split.get(split, 0),
            cold_targets=frame.remove(pl.col("target").is_in(warm)).height,
        )
        for split, frame in by_split.items()
    }
    files = write_tables(folder, items, log, by_split, ledger)
    card = Card(
        catalign=version("catalign"),
        layout=layout,
        sources=[SourceFile(name=path.name, bytes=path.stat().st_size, sha256=sha256_of(path)) for path in paths],
        options=options,
        split_rule=rule,
        users=log["user_id"].n_unique(),
        items=items.height,
        interactions=log.height,
        splits=splits,
        titles=title_counts(table, items),
        rows_in=ledger.rows_in,
        rows_kept={name: ledger.kept(name) for name in ledger.rows_in},
        dropped=ledger.dropped,
        warnings=warnings,
        files=files,
    )
    write_card(folder, card)

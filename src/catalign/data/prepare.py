"""From sources to a dataset folder."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import polars as pl

from catalign.data.dataset import CARD, Card, Dataset, SourceFile, SplitCounts, load_dataset, write_card, write_tables
from catalign.data.fewshot import read_fewshot
from catalign.data.interactions import (
    filter_interactions,
    in_user_order,
    nothing_left,
    parse_interactions,
    read_interactions,
)
from catalign.data.items import ItemTable, finish_titles, settle_items
from catalign.data.layouts import FEWSHOT, PublishedWindows, read_windows
from catalign.data.ledger import Ledger
from catalign.data.options import FewshotOptions, TableOptions, TableSource, TitleOptions, WindowOptions
from catalign.data.published import index_windows, rebuild_interactions
from catalign.data.splits import SPLITS, chronological, leave_one_out
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
    if overwrite:
        _check_replaceable(output)
    ledger = Ledger()
    with whole_folder(output, overwrite=overwrite) as folder:
        step("reading the items")
        table = settle_items(_read_items(source, ledger), options, ledger)
        step("reading the interactions")
        log = read_interactions(source, ledger)
        log = parse_interactions(log, source, options, ledger)
        step("filtering")
        log = filter_interactions(log, table, options, ledger)
        if log.is_empty():
            raise nothing_left(source, table, ledger)
        items = table.frame
        if not options.keep_unused:
            unused = ~pl.col("item_id").is_in(log["item_id"].unique().implode())
            items = ledger.drop("items", items, unused, "no interaction left")
        step("splitting")
        log, rule, warnings = _split(in_user_order(log, items), options)
        step("making windows")
        windows = sliding_windows(log, history=options.history, min_history=options.min_history)
        tables = (source.items, source.interactions, source.valid, source.test)
        paths = [path for table in tables if table is not None for path in table.files]
        card_options = options.model_dump(mode="json") | {"columns": _column_options(source)}
        step("writing")
        _write(folder, _Made(table, items, log, windows, "tables", paths, card_options, rule, warnings), ledger)
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
    if overwrite:
        _check_replaceable(output)
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
        rule, warnings = published.split_rule, published.warnings
        made = _Made(table, table.frame, log, windows, layout, published.paths, card_options, rule, warnings)
        _write(partial, made, ledger)
    return load_dataset(output)


def prepare_fewshot(
    folder: Path, options: FewshotOptions, output: Path, *, overwrite: bool = False, step: Step = lambda _: None
) -> Dataset:
    """Make a dataset folder of one domain of the few-shot files of DMPO; see `fewshot`.

    Its windows carry `negatives` too, and it has no validation windows. Interactions are the history and the target of
    every user, in this order, without times.

    Args:
        folder: the published files.
        options: the domain and the rules.
        output: the folder to make.
        overwrite: replace a folder that is there.
        step: is told what is being done, for progress.

    Raises:
        UserError: a file cannot be read, or no window is left to train or test on.
    """
    if overwrite:
        _check_replaceable(output)
    ledger = Ledger()
    with whole_folder(output, overwrite=overwrite) as partial:
        step("reading the prompts")
        read = read_fewshot(folder, options, ledger)
        step("rebuilding the interactions")
        windows = read.windows
        log = rebuild_interactions(windows.drop("negatives", "target_first", "target_first_sft"))
        step("writing")
        longest = options.history or int(windows["history"].list.len().to_numpy().max(initial=1))
        card_options = options.model_dump(mode="json") | {"history": longest}
        rule = f"as published ({', '.join(path.name for path in read.paths)}); there is no validation split"
        made = _Made(
            read.table, read.table.frame, log, windows, FEWSHOT, read.paths, card_options, rule, read.warnings,
            may_be_empty=("valid",),
        )  # fmt: skip
        _write(partial, made, ledger)
    return load_dataset(output)


def _check_replaceable(output: Path) -> None:
    """Refuse to overwrite a folder that is no dataset."""
    if output.exists() and not (output / CARD).is_file() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError("is not a dataset folder, so it is not replaced", where=output, mend="choose another folder")


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
    columns = {"item_id": source.item_id, "title": source.title} | {name: name for name in source.metadata}
    return read_table(source.items, columns, table_name="items", ledger=ledger)


def _split(log: pl.DataFrame, options: TableOptions) -> tuple[pl.DataFrame, str, list[str]]:
    """Return the interactions with their `split`, the rule in words, warnings."""
    if options.split == "given":
        return log, "given by the source", _warn_of_mixed_times(log)
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


def _warn_of_mixed_times(log: pl.DataFrame) -> list[str]:
    """Warn where a given split puts validation or test interactions before a user's training ones."""
    order = pl.col("split").to_physical()
    mixed = log.filter((order < order.cum_max().over("user")) & (pl.col("position") > 0)).height
    if not mixed:
        return []
    return [
        f"the given split is not in time order: {mixed:,} interactions come after one of a later split of the same "
        "user, so histories show what is to be predicted elsewhere"
    ]


def _column_options(source: TableSource) -> dict[str, object]:
    return source.model_dump(mode="json", exclude={"interactions", "items", "valid", "test"})


@dataclass(frozen=True)
class _Made:
    """What a dataset folder is written from."""

    table: ItemTable
    items: pl.DataFrame
    log: pl.DataFrame
    windows: pl.DataFrame
    layout: str
    paths: list[Path]
    options: dict[str, object]
    split_rule: str
    warnings: list[str]
    may_be_empty: tuple[str, ...] = ()


def _write(folder: Path, made: _Made, ledger: Ledger) -> None:
    """Write the tables and the card, unless a split is empty."""
    windows = {split: made.windows.filter(pl.col("split") == split).drop("split") for split in SPLITS}
    needed = {split: frame for split, frame in windows.items() if split not in made.may_be_empty}
    _check_splits(needed, made.paths[1], ledger)
    log = made.log.select("user_id", "item", "timestamp", "rating", "split")
    warm = log.filter(pl.col("split") == "train")["item"].unique().implode()
    in_split = dict(log["split"].cast(pl.String).value_counts().iter_rows())
    splits = {
        split: SplitCounts(
            windows=frame.height,
            interactions=in_split.get(split, 0),
            cold_targets=frame.remove(pl.col("target").is_in(warm)).height,
        )
        for split, frame in windows.items()
    }
    items, titles = finish_titles(made.table, made.items, TitleOptions.model_validate(made.options))
    files = write_tables(folder, items.drop("file", "row"), log, windows, ledger)
    card = Card(
        catalign=version("catalign"),
        layout=made.layout,
        sources=[SourceFile(name=path.name, bytes=path.stat().st_size, sha256=sha256_of(path)) for path in made.paths],
        options=made.options,
        split_rule=made.split_rule,
        users=log["user_id"].n_unique(),
        items=made.items.height,
        interactions=log.height,
        splits=splits,
        titles=titles,
        rows_in=ledger.rows_in,
        rows_kept={name: ledger.kept(name) for name in ledger.rows_in},
        dropped=ledger.dropped,
        warnings=made.warnings,
        files=files,
    )
    write_card(folder, card)


def _check_splits(windows: dict[str, pl.DataFrame], source: Path, ledger: Ledger) -> None:
    empty = [split for split in windows if windows[split].is_empty()]
    if empty:
        counts = ", ".join(f"{split} {frame.height:,}" for split, frame in windows.items())
        dropped = ledger.reasons("windows" if "windows" in ledger.rows_in else "interactions")
        raise UserError(
            f"no window is left in {' and '.join(empty)} (windows: {counts}; dropped: {dropped})",
            where=source,
            mend="loosen the filters, or choose another --split",
        )

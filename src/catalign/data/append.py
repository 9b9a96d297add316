"""New interactions and items for a prepared dataset: its sources are not read again, and what is there stays.

Items keep their indices and windows their rows. A known user's history goes on: only the last items of it are needed,
so reading costs by the size of what is added; the old tables are copied through, slice by slice. What would change the
past is dropped and counted: interactions that are already there (same user, item and time) or earlier than their user's
last one. The k-core is not applied: a new item with one buyer is what was asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from catalign.data.cleaning import id_text
from catalign.data.dataset import CARD, Appended, Card, Dataset, TitleCounts, load_dataset
from catalign.data.dataset_writer import DatasetTables, digests, source_record
from catalign.data.filters import repeated_pairs
from catalign.data.interactions import Log, drop_interactions, in_user_order, read_interactions
from catalign.data.items import ItemTable, settle_items, title_counts
from catalign.data.ledger import Ledger
from catalign.data.options import Query, Table, TableOptions, TableSource
from catalign.data.prepare import Step, files_of, ledger_for
from catalign.data.privacy import FINGERPRINT, check_salt
from catalign.data.rules import reason_of
from catalign.data.splits import SPLIT_TYPE, SPLITS
from catalign.data.tables import CHUNK_ROWS, column_names, read_table
from catalign.data.titles import TITLE, distinguish
from catalign.data.windows import sliding_windows
from catalign.data.writing import write_parquet
from catalign.errors import UserError
from catalign.files import whole_folder, write_json

Place = Literal["time", "train", "valid", "test"]
THERE, EARLIER = "already there", "earlier than the user's last interaction"
_MERGED = "title of an earlier item (merged)"


@dataclass(frozen=True)
class Addition:
    """What is added, and how.

    Attributes:
        interactions: a table of interactions, or None.
        items: a table of items, or None.
        columns: names of columns (`user`, `item`, `time`, `rating`, `item_id`, `title`) that differ from those that
            the dataset was prepared with.
        split: where new interactions and their windows go: `time` cuts them at the dataset's own instants, the
            others are splits. None: `time` after a chronological split, else `test`.
        keep_unused: keep new items without an interaction; None: as the dataset did. Without interactions all stay.
        salt: the one that the dataset's user ids were hashed with.
    """

    interactions: Table | Query | None = None
    items: Table | Query | None = None
    columns: dict[str, str] = field(default_factory=dict)
    split: Place | None = None
    keep_unused: bool | None = None
    salt: bytes | None = None


def append(
    folder: Path,
    addition: Addition,
    output: Path | None,
    *,
    step: Step = lambda _: None,
    rows: int = CHUNK_ROWS,
) -> Dataset:
    """Add interactions and items to a dataset.

    Args:
        folder: the dataset folder.
        addition: what to add.
        output: the dataset folder to make; None replaces `folder`, whole or not at all.
        step: is told what is being done, for progress.
        rows: how many interactions are read and written at a time; the result does not depend on it.

    Raises:
        UserError: nothing new is in the tables, they cannot be read, or the dataset cannot grow.
    """
    dataset = load_dataset(folder)
    source, options = _source(dataset, addition), _options(dataset)
    check_salt(dataset.card.options.get(FINGERPRINT), addition.salt, folder)
    place = _place(dataset, options, addition.split)
    ledger = ledger_for(addition.salt)
    step("reading the items")
    table = _all_items(dataset.items, source if addition.items else None, options, ledger)
    log = _no_log()
    if addition.interactions is not None:
        log = read_interactions(source, table, options, ledger, rows=rows, step=step, salt=addition.salt)
    step("looking up the users")
    past = _past(dataset, log.users)
    log = _new_rows(log, past, table, options, ledger)
    keep_unused = options.keep_unused if addition.keep_unused is None else addition.keep_unused
    if not keep_unused and addition.interactions is not None:
        log, table = _without_unused(log, table, dataset.card.items, ledger)
    if log.frame.is_empty() and table.frame.height == dataset.card.items:
        dropped = "; ".join(f"{name}: {ledger.reasons(name)}" for name in ledger.rows_in)
        raise UserError(f"nothing is new ({dropped})", where=source.interactions, mend="the dataset stays as it is")
    log = in_user_order(log)
    past = _numbered(past, log.users)
    new = _placed(log.frame, past, dataset, place)
    with whole_folder(output or folder.resolve(), overwrite=output is None) as partial:
        step("writing")
        _write(partial, dataset, _Growth(addition, place, table, Log(new, log.users), past, options), ledger, rows)
    return load_dataset(output or folder)


def _source(dataset: Dataset, addition: Addition) -> TableSource:
    """The tables to read, with the columns of the dataset; a table that is not given is not read."""
    given = addition.interactions or addition.items
    if given is None:
        raise UserError("nothing to append", where=dataset.folder, mend="pass --interactions, --items or both")
    if dataset.scan_windows("test").collect_schema().names() != ["user_id", "history", "target", "timestamp"]:
        raise UserError(f"a dataset of the layout {dataset.card.layout} cannot grow", where=dataset.folder)
    recorded = dataset.card.options.get("columns") or {}
    usual = {key: recorded.get(key) for key in ("user", "item", "time", "rating", "item_id", TITLE)}
    columns: dict[str, Any] = {key: name for key, name in {**usual, **addition.columns}.items() if name is not None}
    columns.setdefault("item_id", columns.get("item"))
    asked = {
        "user": addition.interactions,
        "item": addition.interactions,
        "item_id": addition.items,
        TITLE: addition.items,
    }
    for option, table in asked.items():
        if table is not None and columns.get(option) is None:
            present = ", ".join(column_names(table))
            name = option.replace("_", "-")
            raise UserError(f"--{name} is not given", where=table, mend=f"choose from its columns: {present}")
    metadata = [name for name in dataset.items.columns if name not in ("item_id", TITLE)]
    unread = {key: "" for key in asked if columns.get(key) is None}
    return TableSource(interactions=given, items=addition.items or given, metadata=metadata, **{**columns, **unread})


def _options(dataset: Dataset) -> TableOptions:
    """The rules that the dataset was prepared with; the split is not read from the tables."""
    options = TableOptions.model_validate(dataset.card.options)
    return options.model_copy(update={"split": "leave-one-out"}) if options.split == "given" else options


def _place(dataset: Dataset, options: TableOptions, asked: Place | None) -> Place:
    cut = dataset.card.layout == "tables" and options.split == "chronological"
    if asked == "time" and not cut:
        raise UserError(
            "its split has no instants to cut at", where=dataset.folder, mend="pass --split train, valid or test"
        )
    return asked or ("time" if cut else "test")


def _no_log() -> Log:
    schema: dict[str, Any] = {
        "user": pl.UInt32,
        "item": pl.UInt32,
        "timestamp": pl.Int64,
        "rating": pl.Float32,
        "split": SPLIT_TYPE,
    }
    return Log(pl.DataFrame(schema=schema), pl.Series("user_id", [], dtype=pl.String))


def _all_items(old: pl.DataFrame, source: TableSource | None, options: TableOptions, ledger: Ledger) -> ItemTable:
    """The old items and the new ones after them; new titles are written by the rules of the dataset."""
    there = old.select(source_id="item_id", item_id="item_id")
    if source is None:
        return ItemTable(old, there, 0, 0)
    names = {"item_id": source.item_id, TITLE: source.title} | {name: name for name in source.metadata}
    raw = read_table(source.items, names, table_name="items", ledger=ledger, lists=source.metadata)
    raw = raw.with_columns(id_text(raw["item_id"]))
    raw = ledger.drop("items", raw, pl.col("item_id").is_in(old["item_id"].implode()), THERE)
    new = settle_items(raw, options, ledger, may_be_empty=True)
    frame, known = new.frame, new.known
    if options.duplicate_titles == "merge":
        twins = frame.join(old.select(TITLE, twin="item_id"), on=TITLE).select("item_id", "twin")
        known = known.join(twins, on="item_id", how="left").select("source_id", pl.coalesce("twin", "item_id"))
        known = known.rename({"twin": "item_id"})
        frame = ledger.drop("items", frame, pl.col("item_id").is_in(twins["item_id"].implode()), _MERGED)
    try:
        fitting = frame.select(pl.col(name).cast(dtype) for name, dtype in old.schema.items())
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"its columns are not of the types of the dataset's ({reason})", where=source.items) from error
    frame = pl.concat([old, fitting.with_columns(frame["file"], frame["row"])], how="diagonal")
    return ItemTable(frame, pl.concat([there, known]), new.changed, new.missing, new.alone, new.shortened)


def _past(dataset: Dataset, users: pl.Series) -> pl.DataFrame:
    """The interactions of those of `users` that the dataset knows, in their order.

    Returns:
        `user` (a row of `users`), `user_id`, `item`, `timestamp`, `at` (the row among all interactions).
    """
    scan = pl.scan_parquet(dataset.folder / "interactions.parquet").select("user_id", "item", "timestamp")
    numbers = users.alias("user_id").to_frame().with_row_index("user").lazy()
    return scan.with_row_index("at").join(numbers, on="user_id").collect(engine="streaming").sort("at")


def _numbered(past: pl.DataFrame, users: pl.Series) -> pl.DataFrame:
    """`past` with `user` as a row of these `users`; the others go."""
    numbers = users.alias("user_id").to_frame().with_row_index("user")
    return past.drop("user").join(numbers, on="user_id", maintain_order="left")


def _new_rows(log: Log, past: pl.DataFrame, table: ItemTable, options: TableOptions, ledger: Ledger) -> Log:
    """Drop what is already there and what would change the past."""
    last = past.group_by("user").agg(last=pl.col("timestamp").max())
    same = past.select("user", "item", "timestamp", there=pl.lit(True)).unique()
    pairs = past.select("user", "item", paired=pl.lit(True)).unique()
    frame = log.frame.join(same, on=["user", "item", "timestamp"], how="left", maintain_order="left")
    frame = frame.join(pairs, on=["user", "item"], how="left", maintain_order="left")
    frame = frame.join(last, on="user", how="left", maintain_order="left")
    log = drop_interactions(Log(frame, log.users), table, pl.col("there"), THERE, ledger)
    log = drop_interactions(log, table, pl.col("timestamp") < pl.col("last"), EARLIER, ledger)
    if options.duplicates != "keep":
        reason = reason_of("repeated-pairs", options)
        log = drop_interactions(log, table, pl.col("paired"), reason, ledger)
        log = drop_interactions(log, table, pl.lit(repeated_pairs(log.frame, options.duplicates)), reason, ledger)
    return log


def _without_unused(log: Log, table: ItemTable, old: int, ledger: Ledger) -> tuple[Log, ItemTable]:
    """Drop the new items that nobody chose, and number those that stay anew."""
    used = np.bincount(log.frame["item"].to_numpy(), minlength=table.frame.height) > 0
    used[:old] = True
    frame = ledger.drop("items", table.frame, pl.lit(pl.Series(~used)), "no interaction left")
    number = (np.cumsum(used) - 1).astype(np.uint32)
    log = Log(log.frame.with_columns(item=number[log.frame["item"].to_numpy()]), log.users)
    return log, ItemTable(frame, table.known, table.changed, table.missing, table.alone, table.shortened)


def _placed(new: pl.DataFrame, past: pl.DataFrame, dataset: Dataset, place: Place) -> pl.DataFrame:
    """Give new rows their `split`, their `position` behind the user's past and `at`, the old row that they follow."""
    ends = past.group_by("user").agg(at=pl.col("at").max(), before=pl.len())
    new = new.join(ends, on="user", how="left", maintain_order="left").with_columns(
        pl.col("at").fill_null(dataset.card.interactions), pl.col("position") + pl.col("before").fill_null(0)
    )
    if place != "time":
        return new.with_columns(split=pl.lit(place, SPLIT_TYPE))
    first = _own_instants(dataset)
    test_from = first["test"]
    valid_from = first.get("valid", test_from)
    time, names = pl.col("timestamp"), [pl.lit(split, SPLIT_TYPE) for split in SPLITS]
    split = pl.when(time < valid_from).then(names[0]).when(time < test_from).then(names[1]).otherwise(names[2])
    return new.with_columns(split=split)


def _own_instants(dataset: Dataset) -> dict[str, int]:
    """Where the dataset was cut when it was prepared, whatever has been appended since."""
    kept: dict[str, int] | None = dataset.card.options.get("instants")
    return kept or _instants(dataset)["first"]


def _instants(dataset: Dataset) -> dict[str, dict[str, int]]:
    """The `first` and the `last` time of every split that has one."""
    scan = pl.scan_parquet(dataset.folder / "interactions.parquet").drop_nulls("timestamp").group_by("split")
    times = scan.agg(first=pl.col("timestamp").min(), last=pl.col("timestamp").max()).collect(engine="streaming")
    return {end: dict(times.select("split", end).iter_rows()) for end in ("first", "last")}


@dataclass(frozen=True)
class _Growth:
    """What is written: `table` holds the old items and the new, `log` the new rows as `_placed` returns them."""

    addition: Addition
    place: Place
    table: ItemTable
    log: Log
    past: pl.DataFrame
    options: TableOptions


def _write(folder: Path, dataset: Dataset, growth: _Growth, ledger: Ledger, rows: int) -> None:
    card, log = dataset.card, growth.log
    items, titles = _titles(growth, card)
    write_parquet(items, folder / "items.parquet")
    windows = _windows(log, growth.past, growth.options)
    nothing = dataset.scan_windows("train").head(0).collect().with_columns(split=pl.lit("train"))
    with DatasetTables.open(folder, items.height) as tables:
        for part in _merged(dataset, log, rows):
            tables.add(part, nothing)
        for split in SPLITS:
            for start in range(0, card.splits[split].windows, rows):
                there = dataset.scan_windows(split).slice(start, rows).collect()
                tables.add(part.clear(), there.with_columns(split=pl.lit(split)))
        tables.add(part.clear(), windows)
    ledger.write(folder / "rejects.jsonl")
    rejects = dataset.folder / "rejects.jsonl"
    with (folder / "rejects.jsonl").open("r+b") as file:
        added = file.read()
        file.seek(0)
        file.write((rejects.read_bytes() if rejects.is_file() else b"") + added)
    splits = tables.split_counts()
    made = [table for table in (growth.addition.interactions, growth.addition.items) if table is not None]
    record = Appended(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        catalign=version("catalign"),
        sources=[source_record(part, ledger) for table in made for part in files_of(table)],
        split=growth.place,
        items=items.height - card.items,
        users=len(log.users) - growth.past["user"].n_unique(),
        interactions=log.frame.height,
        windows={split: splits[split].windows - card.splits[split].windows for split in SPLITS},
        rows_in=ledger.rows_in,
        dropped=ledger.dropped,
    )
    changed = {
        "options": card.options | {"instants": _own_instants(dataset)},
        "items": items.height,
        "users": card.users + record.users,
        "interactions": card.interactions + record.interactions,
        "splits": splits,
        "titles": titles,
        "appended": [*card.appended, record],
        "warnings": list(dict.fromkeys([*card.warnings, *_warnings(dataset, growth)])),
        "files": digests(folder),
    }
    write_json(folder / CARD, card.model_copy(update=changed).model_dump(mode="json"))


def _titles(growth: _Growth, card: Card) -> tuple[pl.DataFrame, TitleCounts]:
    """The items with their final titles, of which the old ones stay, and the counts of all."""
    items = growth.table.frame.drop("file", "row", strict=False)
    marks: dict[str, int] = {}
    if growth.options.duplicate_titles == "distinguish":
        old = pl.Series(np.arange(items.height) < card.items)
        items, marks = distinguish(items, clean=growth.options.clean, settled=old)
    counts, before = title_counts(growth.table, items, marks), card.titles
    summed = {
        name: getattr(counts, name) + getattr(before, name) for name in ("changed", "missing", "alone", "shortened")
    }
    told = {name: before.distinguished.get(name, 0) + marks.get(name, 0) for name in {**before.distinguished, **marks}}
    return items, counts.model_copy(update={**summed, "distinguished": told})


def _windows(log: Log, past: pl.DataFrame, options: TableOptions) -> pl.DataFrame:
    """The windows of the new rows; their histories reach into the past."""
    from_end = pl.len().over("user") - pl.int_range(pl.len()).over("user")
    recent = past.filter(from_end <= options.history).select(
        "user", "item", "timestamp", position=pl.lit(0, pl.UInt32), split=pl.lit(None, SPLIT_TYPE)
    )  # at position 0 they are no targets
    both = pl.concat([recent, log.frame.select(recent.columns)]).sort("user", maintain_order=True)
    windows = sliding_windows(both, history=options.history, min_history=options.min_history)
    return windows.select(log.users.gather(windows["user"]).alias("user_id"), pl.exclude("user"))


def _merged(dataset: Dataset, log: Log, rows: int) -> Iterator[pl.DataFrame]:
    """All interactions, slice by slice: the new ones behind the last old one of their user, new users at the end."""
    columns = ("user_id", "item", "timestamp", "rating", "split")
    new = log.frame.with_columns(log.users.gather(log.frame["user"]).alias("user_id"), pl.col("split").cast(pl.String))
    scan = pl.scan_parquet(dataset.folder / "interactions.parquet").select(columns).with_row_index("at")
    for start in range(0, dataset.card.interactions, rows):
        old = scan.slice(start, rows).collect()
        mine = new.filter(pl.col("at").is_between(start, start + old.height - 1)).select(old.columns)
        yield pl.concat([old, mine]).sort("at", maintain_order=True).select(columns)
    yield new.filter(pl.col("at") >= dataset.card.interactions).select(columns)


def _warnings(dataset: Dataset, growth: _Growth) -> list[str]:
    """Warn where a chronological split is none any more."""
    if dataset.card.layout != "tables" or growth.options.split != "chronological" or growth.place == "time":
        return []
    instants, own = _instants(dataset), SPLITS.index(growth.place)
    time = pl.col("timestamp")
    amiss = [time <= instants["last"][split] for split in SPLITS[:own] if split in instants["last"]]
    amiss += [time >= instants["first"][split] for split in SPLITS[own + 1 :] if split in instants["first"]]
    count = growth.log.frame.filter(pl.any_horizontal(amiss)).height if amiss else 0
    if not count:
        return []
    return [
        f"{count:,} interactions appended to {growth.place} lie in the time of another split, so the split is not "
        "chronological any more: do not compare its metrics with those of a chronological one"
    ]

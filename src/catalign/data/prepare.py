"""From sources to a dataset folder."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl

from catalign.data.dataset import CARD, Dataset, load_dataset
from catalign.data.dataset_writer import Made, write_dataset
from catalign.data.fewshot import read_fewshot
from catalign.data.interactions import (
    Log,
    filter_interactions,
    in_user_order,
    nothing_left,
    read_interactions,
    without_unused,
)
from catalign.data.items import settle_items
from catalign.data.layouts import FEWSHOT, read_windows
from catalign.data.ledger import Ledger
from catalign.data.options import FewshotOptions, Query, Table, TableOptions, TableSource, WindowOptions
from catalign.data.privacy import FINGERPRINT, fingerprint, hash_users
from catalign.data.published import index_windows, rebuild_interactions
from catalign.data.rules import FEWSHOT_RULES, ITEM_RULES, RULES, TITLE_RULES, WINDOW_RULES
from catalign.data.sources.window_files import PublishedWindows
from catalign.data.splits import chronological, leave_one_out, out_of_time_order
from catalign.data.tables import CHUNK_ROWS, read_table
from catalign.data.windows import sliding_windows
from catalign.errors import UserError
from catalign.files import whole_folder

Step = Callable[[str], None]
FORMATS = "formats"  # in the options of dataset.json


def prepare_tables(
    source: TableSource,
    options: TableOptions,
    output: Path,
    *,
    overwrite: bool = False,
    step: Step = lambda _: None,
    rows: int = CHUNK_ROWS,
    salt: bytes | None = None,
) -> Dataset:
    """Make a dataset folder of a table of interactions and a table of items.

    Args:
        source: the tables.
        options: the rules.
        output: the folder to make.
        overwrite: replace a folder that is there.
        step: is told what is being done, for progress.
        rows: how many interactions are read and written at a time; the result does not depend on it.
        salt: hashes the user ids, see `privacy`; None: they stay as they are.

    Raises:
        UserError: a table cannot be read, the options do not go together, or nothing is left to train or test on.
    """
    options = source.with_defaults(options)
    _check_options(source, options)
    if overwrite:
        _check_replaceable(output)
    ledger = ledger_for(salt)
    with whole_folder(output, overwrite=overwrite) as folder:
        step("reading the items")
        table = settle_items(_read_items(source, ledger), options, ledger)
        log = read_interactions(source, table, options, ledger, rows=rows, step=step, salt=salt)
        step("filtering")
        log = filter_interactions(log, table, options, ledger)
        if log.frame.is_empty():
            raise nothing_left(source, table, ledger)
        items = table.frame
        if not options.keep_unused:
            log, items = without_unused(log, items, ledger)
        step("ordering")
        log = in_user_order(log)
        step("splitting")
        log, rule, warnings = _split(log, options)
        tables = (source.items, source.interactions, source.valid, source.test)
        made = Made(
            table,
            items,
            _slices(log, options, rows, step),
            users=len(log.users),
            layout="tables",
            sources=[part for table in tables if table is not None for part in files_of(table)],
            options={
                **options.model_dump(mode="json"),
                "columns": _column_options(source),
                FORMATS: _format_options(source),
                **_privacy_options(salt),
            },
            settings=options,
            rules=RULES,
            split_rule=rule,
            warnings=[*source.warnings, *warnings],
        )
        write_dataset(folder, made, ledger)
    return load_dataset(output)


def files_of(table: Table | Query) -> Sequence[Path | Query]:
    """The files of a table; a query stands for itself."""
    return [table] if isinstance(table, Query) else table.files


def _slices(log: Log, options: TableOptions, rows: int, step: Step) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Yield interactions and windows, of so many rows at a time: the lists of all windows are never in memory."""
    rows = max(1, rows * 10 // max(options.history, 10))  # long histories make long lists
    for start in range(0, log.frame.height, rows):
        step(f"writing: {start:,} of {log.frame.height:,} interactions")
        windows = sliding_windows(
            log.frame, history=options.history, min_history=options.min_history, start=start, rows=rows
        )
        part = log.frame.slice(start, rows)
        yield _with_ids(part, log.users), _with_ids(windows, log.users)
    step("reckoning checksums")


def _with_ids(frame: pl.DataFrame, users: pl.Series) -> pl.DataFrame:
    return frame.select(users.gather(frame["user"]).alias("user_id"), pl.exclude("user"))


def prepare_windows(
    folder: Path,
    layout: str,
    options: WindowOptions,
    output: Path,
    *,
    train_file: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
    step: Step = lambda _: None,
    salt: bytes | None = None,
) -> Dataset:
    """Make a dataset folder of a published window layout; its windows stay as they are, in their order.

    Windows go, counted, when their target has no title or when nothing of their history is left.

    Args:
        folder: the published files.
        layout: one of `layouts.WINDOW_LAYOUTS`.
        options: the rules.
        output: the folder to make.
        train_file: name of the training table, if not the usual one.
        name: of one of several sets in the folder.
        overwrite: replace a folder that is there.
        step: is told what is being done, for progress.
        salt: hashes the user ids, see `privacy`; None: they stay as they are.

    Raises:
        UserError: a file cannot be read, or a split is empty.
    """

    def read(ledger: Ledger) -> PublishedWindows:
        return read_windows(folder, layout, ledger, train_file=train_file, name=name)

    which = {"train_file": train_file, "name": name}
    return prepare_published(read, layout, options, output, which=which, overwrite=overwrite, step=step, salt=salt)


def prepare_published(
    read_published: Callable[[Ledger], PublishedWindows],
    layout: str,
    options: WindowOptions,
    output: Path,
    *,
    which: dict[str, str | None],
    overwrite: bool = False,
    step: Step = lambda _: None,
    salt: bytes | None = None,
) -> Dataset:
    """Make a dataset folder of windows that are cut already; see `prepare_windows`.

    Args:
        read_published: reads them; what it drops it counts in the ledger.
        layout: what the dataset's card says of where they come from.
        options: the rules.
        output: the folder to make.
        which: further options of the reading, for the card.
        overwrite: replace a folder that is there.
        step: is told what is being done, for progress.
        salt: hashes the user ids, see `privacy`; None: they stay as they are.

    Raises:
        UserError: a file cannot be read, or a split is empty.
    """
    _check_title_rules(options.without_rules)
    if overwrite:
        _check_replaceable(output)
    ledger = ledger_for(salt)
    with whole_folder(output, overwrite=overwrite) as partial:
        step("reading the windows")
        published = read_published(ledger)
        read = published.windows
        if salt is not None:
            read = read.with_columns(hash_users(read["user_id"], salt))
        step("settling the items")
        table = settle_items(published.items, options, ledger)
        step("indexing the windows")
        windows = index_windows(read, table, ledger, history=options.history, min_history=options.min_history)
        step("rebuilding the interactions")
        log = rebuild_interactions(windows)
        step("writing")
        made = Made(
            table,
            table.frame,
            [(log, windows)],
            users=log["user_id"].n_unique(),
            layout=layout,
            sources=published.paths,
            options=options.model_dump(mode="json") | which | _privacy_options(salt),
            settings=options,
            rules=(*TITLE_RULES, *ITEM_RULES, *WINDOW_RULES),
            split_rule=published.split_rule,
            warnings=published.warnings,
        )
        write_dataset(partial, made, ledger)
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
    _check_title_rules(options.without_rules)
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
        made = Made(
            read.table,
            read.table.frame,
            [(log, windows)],
            users=log["user_id"].n_unique(),
            layout=FEWSHOT,
            sources=read.paths,
            options=options.model_dump(mode="json") | {"history": longest},
            settings=read.settings,
            rules=(*TITLE_RULES, *ITEM_RULES, *FEWSHOT_RULES),
            split_rule=f"as published ({', '.join(path.name for path in read.paths)}); there is no validation split",
            warnings=read.warnings,
            may_be_empty=("valid",),
        )
        write_dataset(partial, made, ledger)
    return load_dataset(output)


def ledger_for(salt: bytes | None) -> Ledger:
    """A ledger whose rejects name no person, if user ids are hashed: unreadable lines may hold an id."""
    return Ledger() if salt is None else Ledger(hidden=("user_id", "text"))


def _privacy_options(salt: bytes | None) -> dict[str, object]:
    return {} if salt is None else {FINGERPRINT: fingerprint(salt)}


def _check_replaceable(output: Path) -> None:
    """Refuse to overwrite a folder that is no dataset."""
    if output.exists() and not (output / CARD).is_file() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError("is not a dataset folder, so it is not replaced", where=output, mend="choose another folder")


def _check_title_rules(without: list[str]) -> None:
    foreign = set(without) - {rule.name for rule in TITLE_RULES}
    if foreign:
        raise UserError(
            f"the rule {min(foreign)!r} is for tables of interactions", mend="these windows are cut already"
        )


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
    untimed = {"without-time", "unreadable-time"} & set(options.without_rules)
    if options.split == "chronological" and untimed:
        raise UserError(
            f"a chronological split needs every time, so the rule {min(untimed)!r} stays on",
            mend="pass another --split",
        )
    if options.min_rating is not None and source.rating is None:
        raise UserError("--min-rating needs ratings", mend="pass --rating COLUMN")
    taken = {"item_id", "title", "file", "row", "order"} & set(source.metadata)
    if taken:
        raise UserError(f"metadata cannot be named {min(taken)!r}", where=source.items, mend="rename the column")


def _read_items(source: TableSource, ledger: Ledger) -> pl.DataFrame:
    columns = {"item_id": source.item_id, "title": source.title} | {name: name for name in source.metadata}
    return read_table(source.items, columns, table_name="items", ledger=ledger, lists=source.metadata)


def _split(log: Log, options: TableOptions) -> tuple[Log, str, list[str]]:
    """Return the interactions with their `split`, the rule in words, warnings."""
    if options.split == "given":
        mixed = out_of_time_order(log.frame)
        warning = (
            f"the given split is not in time order: {mixed:,} interactions come after one of a later split of the same "
            "user, so histories show what is to be predicted elsewhere"
        )
        return log, "given by the source", [warning] if mixed else []
    if options.split == "leave-one-out":
        rule = "leave-one-out: each user's last interaction is test, the one before it validation"
        warning = (
            "leave-one-out leaks: training holds interactions later than those tested; "
            "do not compare its metrics with those of a chronological split"
        )
        return Log(log.frame.with_columns(split=leave_one_out(log.frame)), log.users), rule, [warning]
    split = chronological(log.frame, min_history=options.min_history)
    rule = "global chronological: windows in order of their target's time, cut 8:1:1 at two instants"
    return Log(log.frame.with_columns(split=split), log.users), rule, []


def _column_options(source: TableSource) -> dict[str, object]:
    return source.model_dump(mode="json", exclude={"interactions", "items", "valid", "test"})


def _format_options(source: TableSource) -> dict[str, object]:
    """How the files are written, where not as usual: `append` reads others like them."""
    tables = {"interactions": source.interactions, "items": source.items}
    return {
        name: table.model_dump(mode="json", exclude={"files"}, exclude_defaults=True)
        for name, table in tables.items()
        if isinstance(table, Table)
    }

"""Writing a dataset folder, slice by slice."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.data.dataset import CARD, Card, SourceFile, SourceQuery, SplitCounts
from catalign.data.items import ItemTable, finish_titles, with_numbers
from catalign.data.ledger import Ledger
from catalign.data.options import Query, TitleOptions
from catalign.data.rules import Rule, accounts
from catalign.data.splits import SPLITS
from catalign.data.writing import ParquetSlices, write_parquet
from catalign.errors import UserError
from catalign.files import sha256_of, write_json


@dataclass(frozen=True)
class Made:
    """What a dataset folder is written from.

    Attributes:
        table: the settled items.
        items: those of them that stay, whose rows the interactions and windows name.
        slices: interactions (`user_id`, `item`, `timestamp`, `rating`, `split`) and windows (`user_id`, `history`,
            `target`, `timestamp`, `split`, perhaps more) in their order, some at a time.
        users: how many users there are.
        layout: of the source.
        sources: the files and queries read; messages name the second.
        options: what the card tells.
        settings: what the items were settled with.
        rules: those that could have applied.
        split_rule: in words.
        warnings: what a reader of results should know.
        may_be_empty: splits that need no windows.
    """

    table: ItemTable
    items: pl.DataFrame
    slices: Iterable[tuple[pl.DataFrame, pl.DataFrame]]
    users: int
    layout: str
    sources: Sequence[Path | Query]
    options: dict[str, object]
    settings: TitleOptions
    rules: tuple[Rule, ...]
    split_rule: str
    warnings: list[str]
    may_be_empty: tuple[str, ...] = ()


def write_dataset(folder: Path, made: Made, ledger: Ledger) -> None:
    """Write the tables and the card.

    Raises:
        UserError: a split has no window.
    """
    items, titles = finish_titles(made.table, made.items, made.settings)
    write_parquet(with_numbers(items.drop("file", "row")), folder / "items.parquet")
    with DatasetTables.open(folder, items.height) as tables:
        for log, windows in made.slices:
            tables.add(log, windows)
    splits = tables.split_counts()
    _check_splits({split: splits[split].windows for split in SPLITS}, made, ledger)
    rules = accounts(made.rules, made.settings.model_dump() | made.options, ledger)
    ledger.write(folder / "rejects.jsonl")
    card = Card(
        catalign=version("catalign"),
        layout=made.layout,
        sources=[source_record(source, ledger) for source in made.sources],
        options=made.options,
        split_rule=made.split_rule,
        users=made.users,
        items=items.height,
        interactions=sum(counts.interactions for counts in splits.values()),
        splits=splits,
        titles=titles,
        rows_in=ledger.rows_in,
        rows_kept={name: ledger.kept(name) for name in ledger.rows_in},
        dropped=ledger.dropped,
        rules=rules,
        warnings=made.warnings,
        files=digests(folder),
    )
    write_json(folder / CARD, card.model_dump(mode="json"))


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def source_record(source: Path | Query, ledger: Ledger) -> SourceFile:
    """What the card says of a file or of the rows that a query gave."""
    if isinstance(source, Path):
        return SourceFile(name=source.name, bytes=source.stat().st_size, sha256=sha256_of(source))
    digest = ledger.digests[source.name]
    return SourceQuery(**source.model_dump(mode="json"), rows=digest.rows, bytes=digest.bytes, sha256=digest.sha256)


class DatasetTables:
    """The interactions and the windows of each split, being written, and counts of what they hold."""

    def __init__(self, interactions: ParquetSlices, windows: dict[str, ParquetSlices], items: int) -> None:
        self._interactions, self._windows = interactions, windows
        self._rows = dict.fromkeys(SPLITS, 0)
        self._chosen_I = np.zeros(items, dtype=np.int64)  # in training
        self._targets_I: dict[str, npt.NDArray[np.int64]] = {split: np.zeros(items, dtype=np.int64) for split in SPLITS}

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, items: int) -> Iterator["DatasetTables"]:
        """Begin the tables of a folder that has `items` items."""
        (folder / "windows").mkdir()
        with contextlib.ExitStack() as stack:
            interactions = stack.enter_context(ParquetSlices(folder / "interactions.parquet"))
            windows = {
                split: stack.enter_context(ParquetSlices(folder / "windows" / f"{split}.parquet")) for split in SPLITS
            }
            yield cls(interactions, windows, items)

    def add(self, log: pl.DataFrame, windows: pl.DataFrame) -> None:
        """Write more interactions and windows."""
        columns = ("user_id", "item", "timestamp", "rating", pl.col("split").cast(pl.String))
        self._interactions.write(log.select(columns))
        for split in SPLITS:
            mine = log.filter(pl.col("split") == split)["item"].to_numpy()
            self._rows[split] += len(mine)
            if split == "train":
                self._chosen_I += np.bincount(mine, minlength=len(self._chosen_I))
            part = windows.filter(pl.col("split") == split).drop("split")
            self._windows[split].write(part)
            self._targets_I[split] += np.bincount(part["target"].to_numpy(), minlength=len(self._chosen_I))

    def split_counts(self) -> dict[str, SplitCounts]:
        """What each split holds."""
        return {
            split: SplitCounts(
                windows=int(self._targets_I[split].sum()),
                interactions=self._rows[split],
                cold_targets=int(self._targets_I[split][self._chosen_I == 0].sum()),
            )
            for split in SPLITS
        }


def _check_splits(windows: dict[str, int], made: Made, ledger: Ledger) -> None:
    empty = [split for split, count in windows.items() if count == 0 and split not in made.may_be_empty]
    if empty:
        needed = [split for split in windows if split not in made.may_be_empty]
        counts = ", ".join(f"{split} {windows[split]:,}" for split in needed)
        dropped = ledger.reasons("windows" if "windows" in ledger.rows_in else "interactions")
        raise UserError(
            f"no window is left in {' and '.join(empty)} (windows: {counts}; dropped: {dropped})",
            where=made.sources[1],
            mend="loosen the filters, or choose another --split",
        )

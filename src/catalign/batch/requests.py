"""Requests: people read from files, each row checked, the items of the catalogue as indices.

Columns of the input: the user's key, `history`, and what a row may say for itself: `k`, `filters` (JSON), `exclude`,
`candidates` and `catalogue`. See `columns.py` for how each is read.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import polars as pl

from catalign.batch import columns as read
from catalign.batch.settings import BatchSettings
from catalign.catalogue.catalogue import Catalogue
from catalign.data.ledger import Ledger
from catalign.data.options import Table
from catalign.data.streams import kind_of
from catalign.data.tables import column_names, read_chunks, read_table
from catalign.errors import UserError

CHECKED_AT_ONCE = 65_536  # rows
OF_A_ROW = ("k", "filters", "exclude", "candidates", "catalogue")
LISTS = ("history", "exclude", "candidates")
ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "user": pl.String,
    "history": pl.List(pl.UInt32),
    "k": pl.UInt32,
    "filters": pl.String,
    "exclude": pl.List(pl.UInt32),
    "candidates": pl.List(pl.UInt32),
    "catalogue": pl.String,
    "file": pl.String,
    "row": pl.UInt32,
}


def input_files(source: Path) -> list[Path]:
    """The files of an input: a file, the tables in a folder (not those whose names begin with . or _), or a pattern.

    Raises:
        UserError: there is none.
    """
    if not source.is_dir():
        return Table.of(source).files
    found = sorted(path for path in source.rglob("*") if path.is_file() and kind_of(path) in ENDINGS)
    shown = [path for path in found if not any(name[0] in "._" for name in path.relative_to(source).parts)]
    if not shown:
        raise UserError("holds no table", where=source, mend=f"a table ends in {', '.join(ENDINGS)}")
    return shown


class Rejects:
    """The rows that cannot be answered: the first is refused, or all are written down and counted.

    Args:
        path: JSON lines with file, row, user, column and reason.
        skip: write them down.

    Attributes:
        counts: rejected rows by the column that is wrong.
    """

    def __init__(self, path: Path, *, skip: bool) -> None:
        self._path, self._skip = path, skip
        self.counts: dict[str, int] = {}

    def add(self, rejected: pl.DataFrame) -> None:
        """Take rows of file, row, user, column and reason.

        Raises:
            UserError: there is one, and they are not skipped.
        """
        if rejected.is_empty():
            return
        if not self._skip:
            first = rejected.row(0, named=True)
            mend = "mend it, or pass --bad-rows skip"
            what = f"{first['column']} {first['reason']}"
            raise UserError(what, where=f"{first['file']}, row {first['row']}", mend=mend)
        for column, rows in rejected["column"].value_counts().iter_rows():
            self.counts[column] = self.counts.get(column, 0) + rows
        with self._path.open("ab") as file:
            rejected.write_ndjson(file)


class RequestReader:
    """Reads requests and checks them.

    Args:
        catalogue: the items that can be named and recommended.
        settings: how rows are read.
        catalogues: the names that rows may use.
        rejects: takes the rows that cannot be answered.
    """

    def __init__(
        self, catalogue: Catalogue, settings: BatchSettings, catalogues: Collection[str], rejects: Rejects
    ) -> None:
        self._catalogue, self._settings, self._catalogues = catalogue, settings, catalogues
        self._rejects = rejects

    def read(self, path: Path) -> Iterator[pl.DataFrame]:
        """The good rows of a file, in frames of `SCHEMA`.

        Raises:
            UserError: the file cannot be read, a column is absent or of another kind, or a row is refused.
        """
        asked = {"user": self._settings.user} | {name: name for name in ("history", *OF_A_ROW)}
        ledger = Ledger(keep=2**62)
        chunks = read_chunks(
            Table(files=[path]), asked, table_name="requests", ledger=ledger, rows=CHECKED_AT_ONCE, lists=LISTS,
            optional=OF_A_ROW,
        )  # fmt: skip
        for chunk in chunks:
            self._unreadable(path, ledger)
            good, bad = self._check(chunk.with_columns(file=pl.lit(str(path))))
            self._rejects.add(bad)
            yield good
        self._unreadable(path, ledger)

    def unread(self, path: Path) -> list[str]:
        """The columns of a file that nobody reads."""
        known = {self._settings.user, "history", *OF_A_ROW}
        return [name for name in column_names(Table(files=[path])) if name not in known]

    def _check(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The good rows, and file, row, user, column and reason of the others."""
        catalogue, delimiter = self._catalogue, self._settings.delimiter
        try:
            checked = {
                "user": read.read_users(rows["user"]),
                "history": read.read_history(rows["history"], catalogue, delimiter),
                "k": read.read_counts(rows["k"], self._settings.k, len(catalogue)),
                "filters": read.read_filters(rows["filters"], catalogue),
                "exclude": read.read_items(rows["exclude"], catalogue, delimiter),
                "candidates": read.read_candidates(rows["candidates"], catalogue, delimiter),
                "catalogue": read.read_catalogues(rows["catalogue"], self._catalogues),
            }
        except UserError as error:
            raise UserError(str(error), where=rows["file"][0]) from error
        columns = [pl.when(reason.is_not_null()).then(pl.lit(name)) for name, (_, reason) in checked.items()]
        frame = pl.DataFrame([values.alias(name) for name, (values, _) in checked.items()]).with_columns(
            rows["file"], rows["row"], pl.coalesce(columns).alias("column"),
            read.first_reason(*(reason for _, reason in checked.values())),
        )  # fmt: skip
        bad = frame.filter(pl.col("column").is_not_null()).select("file", "row", "user", "column", "reason")
        good = frame.filter(pl.col("column").is_null())
        return good.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items()), bad

    def _unreadable(self, path: Path, ledger: Ledger) -> None:
        """Reject the lines that are no rows."""
        found = [(str(path), one["row"], None, "line", f"is {one['reason']}: {one['text']}") for one in ledger.rejects]
        ledger.rejects.clear()
        names = {"file": pl.String, "row": pl.UInt32, "user": pl.String, "column": pl.String, "reason": pl.String}
        self._rejects.add(pl.DataFrame(found, schema=names, orient="row"))


def read_named_items(table: Path, catalogue: Catalogue) -> pl.Series:
    """The items of a named catalogue: a table with a column `item_id` of ids or titles.

    Raises:
        UserError: it cannot be read, names an item that is not there, or none.
    """
    text = read_table(Table.of(table), {"item_id": "item_id"}, table_name="catalogue", ledger=Ledger())["item_id"]
    items = catalogue.find_all(text.cast(pl.String))
    if items.null_count() or items.is_empty():
        unknown = text.filter(items.is_null())
        what = f'no item has the id or title "{unknown[0]}"' if len(unknown) else "names no item"
        raise UserError(what, where=table, mend="take it out of the list" if len(unknown) else None)
    return items.unique().sort()

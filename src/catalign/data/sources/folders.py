"""Finding files in a folder as it was downloaded: any case, gzipped or not, one of several sets by name."""

from collections.abc import Collection, Sequence
from pathlib import Path

from catalign.data.options import Table
from catalign.data.streams import line_blocks, reading
from catalign.data.tables import column_names
from catalign.errors import UserError

TABLE_ENDINGS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
"""Of the tables that a folder in a known layout may hold."""


def plain_name(path: Path) -> str:
    """The name of a file in small letters, without `.gz`."""
    return path.name.lower().removesuffix(".gz")


def files_in(folder: Path) -> dict[str, Path]:
    """Plain name -> file, in order of name; hidden files are left out, an unpacked file stands before a packed one."""
    if not folder.is_dir():
        return {}
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    packed = [path for path in files if path.suffix.lower() == ".gz"]
    unpacked = [path for path in files if path.suffix.lower() != ".gz"]
    return dict(sorted((plain_name(path), path) for path in [*packed, *unpacked]))


def find(folder: Path, *names: str) -> Path | None:
    """The first of `names` (without `.gz`, in any case) that the folder holds."""
    files = files_in(folder)
    return next((files[name.lower()] for name in names if name.lower() in files), None)


def need(folder: Path, *names: str) -> Path:
    """The first of `names` that the folder holds.

    Raises:
        UserError: it holds none.
    """
    path = find(folder, *names)
    if path is None:
        raise UserError(f"there is no {names[0]}", where=folder, mend="put the files of the set into one folder")
    return path


def table_named(folder: Path, stem: str) -> Path | None:
    """The table `stem.csv` of the folder, or of another kind of table."""
    return find(folder, *(stem + ending for ending in TABLE_ENDINGS))


def choose(names: Collection[str], name: str | None, folder: Path, what: str) -> str:
    """Pick one of several sets: the only one, or the one called `name`, or the only one whose name begins so.

    Raises:
        UserError: none or several fit.
    """
    if not names:
        raise UserError(f"holds no {what}", where=folder)
    wanted = "" if name is None else name.lower()
    fitting = [one for one in names if one.lower() == wanted] or [
        one for one in names if one.lower().startswith(wanted)
    ]
    if len(fitting) != 1:
        holds = f"holds several {what}" if fitting else f"holds no {what} called {name!r}"
        raise UserError(holds, where=folder, mend=f"choose one with --name ({', '.join(fitting or names)})")
    return fitting[0]


def text_encoding(path: Path) -> str:
    """`utf-8`, or `latin-1` if the file is not that; for sets that are published in either."""
    try:
        with reading(path):
            for _ in line_blocks(path, "utf-8"):
                pass
    except UserError:
        return "latin-1"
    return "utf-8"


def column(table: Table, *names: str) -> str:
    """The column of a table that is called like the first of `names`, whatever the case.

    Raises:
        UserError: there is none.
    """
    present = column_names(table)
    found = column_like(present, *names)
    if found is None:
        shown = ", ".join(present[:30])
        raise UserError(f"there is no column {names[0]!r}", where=table, mend=f"the columns are: {shown}")
    return found


def column_like(present: Sequence[str], *names: str) -> str | None:
    """The first of `names` among the columns `present`, whatever the case."""
    lower = {other.lower(): other for other in reversed(present)}
    return next((lower[name.lower()] for name in names if name.lower() in lower), None)

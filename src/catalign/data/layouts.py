"""Recognising the folders that people come with, and handing them to their source.

`recognise` says which layout a folder is in. A layout is two tables (`table_source`), windows that were cut already
(`read_windows`), or the few-shot files of DMPO (`fewshot.py`); `docs/data.md` has the list. A `Source` from outside
the package reads what is in none of them.
"""

from pathlib import Path
from typing import Protocol

from catalign.data.fewshot import ANY_SFT_FILE
from catalign.data.ledger import Ledger
from catalign.data.options import TableSource
from catalign.data.sources import amazon, d3, instructions, lastfm, llara, movielens, msl, recbole, shop, steam
from catalign.data.sources.window_files import PublishedWindows
from catalign.errors import UserError
from catalign.plugins import load

FEWSHOT = "dmpo"
WINDOW_LAYOUTS = ("msl", "d3", "bigrec", "minionerec", "llara", "instructions")
TABLE_LAYOUTS = ("shop", "movielens", "amazon", "lastfm", "steam", "recbole")
LAYOUTS = (*WINDOW_LAYOUTS, FEWSHOT, *TABLE_LAYOUTS)

_D3_FAMILY = ("d3", "bigrec", "minionerec")
_HAVE_TRAIN_FILE = ("msl", *_D3_FAMILY)
_HAVE_SETS = ("msl", *_D3_FAMILY, "instructions", "amazon", "recbole")
_TABLES = {
    "recbole": recbole, "movielens": movielens, "lastfm": lastfm, "steam": steam, "shop": shop, "amazon": amazon
}  # fmt: skip
_KNOWN = (
    "id2name4Rec.json, info.txt or id2name.txt beside tables of windows; rec_*_sft_ranking.json; instructions as "
    "train.json; ratings.csv with movies.csv; reviews with meta_*; X.inter with X.item; interactions.csv with items.csv"
)


class Source(Protocol):
    """Reads a folder of some kind; those in `data/sources` that need nothing but the folder are such functions.

        def diary(folder):
            return TableSource(
                interactions=Table.of(folder / "plays.csv"), user="listener", item="track", time="at",
                items=Table.of(folder / "tracks.csv"), item_id="track", title="name",
            )

        catalign data prepare my/folder --layout my_package.sources:diary --output ds

    It says where things are and what they are called; the rows of tables are read, checked and counted elsewhere.
    """

    def __call__(self, folder: Path) -> TableSource | PublishedWindows:
        """Return two tables and what their columns are called, or windows that were cut already.

        Args:
            folder: what the user named; it need not be there.

        Returns:
            Tables, which are read, cleaned, filtered and split like any other; or windows, which stay as they are.

        Raises:
            UserError: something is missing in the folder.
        """


def outside_source(folder: Path, name: str) -> TableSource | PublishedWindows:
    """What a source from outside the package makes of a folder.

    Raises:
        UserError: there is no such source, it does not fit the protocol, or the folder does not suit it.
    """
    source: Source = load(name, Source, where="--layout")
    found = source(folder)
    if not isinstance(found, TableSource | PublishedWindows):
        mend = "a TableSource or PublishedWindows is expected"
        raise UserError(f"gives {type(found).__name__}", where=f"--layout {name}", mend=mend)
    return found


def recognise(folder: Path) -> str:
    """Return the name of the layout that `folder`, or the only known folder in it, is in.

    Raises:
        UserError: it is no folder, or in none of them, or it holds several.
    """
    if not folder.is_dir():
        raise UserError("no such folder", where=folder, mend="pass tables with --interactions and --items")
    layout = _layout_of(folder)
    if layout is not None:
        return layout
    inside = _layouts_inside(folder)
    if len(inside) > 1:
        known = " or ".join(f"{path} ({layout})" for path, layout in inside.items())
        raise UserError("holds several sets", where=folder, mend=f"pass {known}")
    if not inside:
        mend = f"pass --interactions and --items with the names of their columns (known: {_KNOWN})"
        raise UserError("is in no known layout", where=folder, mend=mend)
    return next(iter(inside.values()))


def place_of(folder: Path, layout: str) -> Path:
    """Return `folder`, or the only folder in it that is in `layout` where `folder` itself is not."""
    inside = [] if _layout_of(folder) == layout else _layouts_inside(folder).items()
    places = [path for path, name in inside if name == layout]
    return places[0] if len(places) == 1 else folder


def _layouts_inside(folder: Path) -> dict[Path, str]:
    inside = {path: _layout_of(path) for path in sorted(folder.iterdir()) if path.is_dir()} if folder.is_dir() else {}
    return {path: layout for path, layout in inside.items() if layout is not None}


def _layout_of(folder: Path) -> str | None:
    if msl.recognises(folder):
        return "msl"
    if any(folder.glob(ANY_SFT_FILE)):
        return FEWSHOT
    if llara.recognises(folder):
        return "llara"
    family = d3.family(folder)
    if family is not None:
        return family
    for layout, source in _TABLES.items():
        if source.recognises(folder):
            return layout
    return "instructions" if instructions.recognises(folder) else None


def table_source(folder: Path, layout: str, *, name: str | None = None) -> TableSource:
    """Return the tables of a folder in one of `TABLE_LAYOUTS`.

    Args:
        folder: where the files lie.
        layout: what `recognise` says, or the user.
        name: of one of several sets, as a category of Amazon.

    Raises:
        UserError: a table is missing, or `name` names none.
    """
    _check_name(layout, name)
    folder = place_of(folder, layout)
    if layout == "amazon":
        return amazon.source(folder, name)
    if layout == "recbole":
        return recbole.source(folder, name)
    if layout == "movielens":
        return movielens.source(folder)
    if layout == "lastfm":
        return lastfm.source(folder)
    return steam.source(folder) if layout == "steam" else shop.source(folder)


def read_windows(
    folder: Path, layout: str, ledger: Ledger, *, train_file: str | None = None, name: str | None = None
) -> PublishedWindows:
    """Read a folder in one of `WINDOW_LAYOUTS`.

    Args:
        folder: where the files lie.
        layout: what `recognise` says, or the user.
        ledger: counts rows under `items` and `windows`.
        train_file: name of the training table, if not the usual one.
        name: of one of several sets.

    Raises:
        UserError: a file or column is missing or unreadable, or `name` names none.
    """
    _check_name(layout, name)
    if train_file is not None and layout not in _HAVE_TRAIN_FILE:
        raise UserError(f"--train-file goes with the layouts {', '.join(_HAVE_TRAIN_FILE)}")
    folder = place_of(folder, layout)
    if layout == "msl":
        return msl.read(folder, ledger, train_file=train_file, name=name)
    if layout in _D3_FAMILY:
        return d3.read(folder, ledger, train_file=train_file, name=name)
    if layout == "llara":
        return llara.read(folder, ledger)
    return instructions.read(folder, ledger, name=name)


def _check_name(layout: str, name: str | None) -> None:
    if name is not None and layout not in _HAVE_SETS:
        raise UserError(f"--name goes with the layouts {', '.join(_HAVE_SETS)}", where=layout)

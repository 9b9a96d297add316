"""`catalign data fetch`: public data sets from their publishers."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.progress import Progress
from rich.table import Column, Table

from catalign.data.download import Told
from catalign.data.fetch import fetch
from catalign.data.public_sets import FAMILIES, SETS, find_set
from catalign.progress import console, progress_bar, results

_MEGABYTE = 1_000_000


def fetch_command(
    name: Annotated[str | None, typer.Argument(help="Which set; leave out to see all.")] = None,
    output: Annotated[Path | None, typer.Option(help="The folder; default the name of the set.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Download it even if it is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """Download a public data set from its publisher; without NAME: list them.

    catalign data fetch movielens-1m

    catalign data fetch amazon-2023:Gift_Cards --output gift-cards
    """
    if name is None:
        _print_sets(as_json)
        return
    wanted = find_set(name)
    folder = output or Path(wanted.name.replace(":", "-"))
    with progress_bar() as progress:
        fetched = fetch(wanted, folder, again=again, told=_bars(progress))
    console.print(f"{wanted.name}: {wanted.about}; terms: {wanted.terms} ({wanted.page})", markup=False, soft_wrap=True)
    for note in fetched.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    if as_json:
        results.print_json(data={"folder": str(folder), "set": wanted.name, "files": fetched.files})
        return
    size = sum(file["bytes"] for file in fetched.files) / _MEGABYTE
    what = "was there already" if fetched.already else f"{len(fetched.files)} files, {size:,.1f} MB downloaded"
    results.print(f"{folder}: {what}", markup=False, soft_wrap=True)
    console.print(f"next: catalign data prepare {folder} --output DATASET", markup=False, soft_wrap=True)


def _bars(progress: Progress) -> Callable[[str], Told]:
    """A bar in megabytes for each file, from its first bytes on."""

    def of_file(name: str) -> Told:
        bar = progress.add_task(f"{name}, MB", total=None, note="")

        def tell(done: int, total: int | None) -> None:
            progress.update(bar, completed=done // _MEGABYTE, total=None if total is None else -(-total // _MEGABYTE))

        return tell

    return of_file


def _print_sets(as_json: bool) -> None:
    rows = [(known.name, known.about, known.size, known.terms, known.page) for known in SETS.values()]
    rows += [
        (f"{known.name}:CATEGORY", known.about, known.size, known.terms, known.page) for known in FAMILIES.values()
    ]
    if as_json:
        results.print_json(
            data=[dict(zip(("name", "about", "size", "terms", "page"), row, strict=True)) for row in rows]
        )
        return
    table = Table(Column("name", no_wrap=True), "what", "download", "terms", box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row[:-1])
    results.print(table)

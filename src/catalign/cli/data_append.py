"""`catalign data append`: new interactions and items for a prepared dataset."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from catalign.cli.data_report import appended_line
from catalign.cli.data_tables import table_place
from catalign.data.append import Addition
from catalign.data.append import append as append_to
from catalign.data.dataset import load_dataset
from catalign.data.options import Query, Table
from catalign.data.prepare import FORMATS
from catalign.data.privacy import FINGERPRINT, read_salt
from catalign.errors import UserError
from catalign.progress import console, results

Columns = "Columns, where they differ from those that the dataset was prepared with"


def append(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder made by catalign data prepare.")],
    interactions: Annotated[Path | None, typer.Option(help="Table of interactions, or a glob of several.")] = None,
    items: Annotated[Path | None, typer.Option(help="Table of items; those already there stay as they are.")] = None,
    connection: Annotated[str | None, typer.Option(help="Of a database, for the queries.")] = None,
    interactions_query: Annotated[str | None, typer.Option(help="SELECT of the new interactions.")] = None,
    items_query: Annotated[str | None, typer.Option(help="SELECT of the items.")] = None,
    output: Annotated[Path | None, typer.Option(help="The dataset folder to make.")] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Change the dataset itself instead.")] = False,
    split: Annotated[
        Literal["time", "train", "valid", "test"] | None,
        typer.Option(
            help="Where they go. Default time, the own instants of a chronological split (what is newest is tested "
            "on), else test."
        ),
    ] = None,
    keep_unused: Annotated[
        bool | None, typer.Option("--keep-unused/--drop-unused", help="New items nobody touched; default as prepared.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Column of the user.", rich_help_panel=Columns)] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item id.", rich_help_panel=Columns)] = None,
    time: Annotated[str | None, typer.Option(help="Column of the time.", rich_help_panel=Columns)] = None,
    rating: Annotated[str | None, typer.Option(help="Column of the rating.", rich_help_panel=Columns)] = None,
    item_id: Annotated[str | None, typer.Option(help="Column of the id in the items.", rich_help_panel=Columns)] = None,
    title: Annotated[str | None, typer.Option(help="Column of the title.", rich_help_panel=Columns)] = None,
    encoding: Annotated[str | None, typer.Option(help="Of CSV files; default utf-8.", rich_help_panel=Columns)] = None,
    salt_file: Annotated[
        Path | None, typer.Option(help="Of hashed user ids: holds the salt; default the variable CATALIGN_SALT.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was added as JSON.")] = False,
) -> None:
    """Add new interactions and items to a dataset; old items keep their numbers, old windows stay.

    catalign data append ds --interactions week.csv --items items.csv --output ds2
    """
    if (output is None) != in_place:
        raise UserError("where to?", where=dataset, mend="pass --output NEW_DATASET, or --in-place, not both")
    if output is not None and output.exists():
        raise UserError("already exists", where=output, mend="choose another folder")
    options = load_dataset(dataset).card.options
    hashed = options.get(FINGERPRINT) is not None
    columns = {"user": user, "item": item, "time": time, "rating": rating, "item_id": item_id, "title": title}
    how: dict[str, Any] = {} if encoding is None else {"encoding": encoding}
    places = {
        "interactions": table_place("interactions", interactions, interactions_query, connection),
        "items": table_place("items", items, items_query, connection),
    }
    formats = options.get(FORMATS, {})
    tables = {
        name: place if isinstance(place, Query) else Table.of(place, **{**formats.get(name, {}), **how})
        for name, place in places.items()
        if place is not None
    }
    addition = Addition(
        **tables,
        columns={key: name for key, name in columns.items() if name is not None},
        split=split,
        keep_unused=keep_unused,
        salt=read_salt(salt_file) if hashed or salt_file is not None else None,
    )
    with console.status("starting") as status:
        grown = append_to(dataset, addition, output, step=status.update)
    record = grown.card.appended[-1]
    if as_json:
        results.print_json(data=record.model_dump(mode="json"))
        return
    for warning in grown.card.warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)
    results.print(appended_line(grown, record), markup=False, soft_wrap=True)

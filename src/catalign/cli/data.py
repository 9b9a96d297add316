"""`catalign data`: prepare, inspect, sample; `fetch` and `rules` have modules of their own."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from catalign.cli.data_append import append
from catalign.cli.data_fetch import fetch_command
from catalign.cli.data_report import print_description, summary_line
from catalign.cli.data_rules import joined, rule_options, rules_command
from catalign.cli.data_tables import table_place
from catalign.data.dataset import Dataset, load_dataset
from catalign.data.fewshot import DOMAINS
from catalign.data.inspect import describe
from catalign.data.layouts import FEWSHOT, LAYOUTS, WINDOW_LAYOUTS, outside_source, place_of, recognise, table_source
from catalign.data.options import FewshotOptions, Query, Table, TableOptions, TableSource, WindowOptions
from catalign.data.prepare import Step, prepare_fewshot, prepare_published, prepare_tables, prepare_windows
from catalign.data.privacy import read_salt
from catalign.data.store import write_store
from catalign.data.tables import column_names
from catalign.errors import UserError
from catalign.plugins import is_outside
from catalign.progress import console, results

app = typer.Typer(help="Make, look at and generate dataset folders.", no_args_is_help=True)
app.command("fetch")(fetch_command)
app.command("rules")(rules_command)

Columns = "Columns of your tables"
Rules = "Rules"
Titles = "Titles"
Privacy = "Privacy"
Database = "Tables of a database"
Source = Annotated[Path | None, typer.Argument(help="A folder in a known layout; leave out to pass two tables.")]
Output = Annotated[Path, typer.Option(help="The folder to make.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.command()
def prepare(
    output: Output,
    folder: Source = None,
    layout: Annotated[
        str | None,
        typer.Option(help=f"Take FOLDER for this layout: {', '.join(LAYOUTS)}; or a source of your own, MODULE:NAME."),
    ] = None,
    train_file: Annotated[str | None, typer.Option(help="Training table in FOLDER, if not the usual one.")] = None,
    domain: Annotated[
        str | None, typer.Option(help=f"Which of the few-shot sets in FOLDER: {', '.join(DOMAINS)}.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Which of several sets in FOLDER, as a category of Amazon; a beginning will do.")
    ] = None,
    interactions: Annotated[
        Path | None, typer.Option(help="Table of interactions: CSV, JSON lines or Parquet, or a pattern 'part-*.csv'.")
    ] = None,
    items: Annotated[Path | None, typer.Option(help="Table of items, or a pattern.")] = None,
    connection: Annotated[
        str | None,
        typer.Option(help="postgresql://user@host:port/name or sqlite:///file.db.", rich_help_panel=Database),
    ] = None,
    interactions_query: Annotated[
        str | None, typer.Option(help="SELECT or table name of the interactions.", rich_help_panel=Database)
    ] = None,
    items_query: Annotated[
        str | None, typer.Option(help="SELECT or table name of the items.", rich_help_panel=Database)
    ] = None,
    valid: Annotated[Path | None, typer.Option(help="Validation interactions, with --split given.")] = None,
    test: Annotated[Path | None, typer.Option(help="Test interactions, with --split given.")] = None,
    user: Annotated[str | None, typer.Option(help="Column of the user.", rich_help_panel=Columns)] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item id.", rich_help_panel=Columns)] = None,
    time: Annotated[str | None, typer.Option(help="Column of the time.", rich_help_panel=Columns)] = None,
    rating: Annotated[str | None, typer.Option(help="Column of the rating.", rich_help_panel=Columns)] = None,
    split_column: Annotated[str | None, typer.Option(help="Column of a given split.", rich_help_panel=Columns)] = None,
    item_id: Annotated[
        str | None, typer.Option(help="Column of the id in the items, if not --item.", rich_help_panel=Columns)
    ] = None,
    title: Annotated[str | None, typer.Option(help="Column of the title.", rich_help_panel=Columns)] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(help="Column of the items to keep; repeatable.", rich_help_panel=Columns)
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of text tables; default utf-8.", rich_help_panel=Columns)
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(help="Of CSV files, such as '::'; default: what the header has.", rich_help_panel=Columns),
    ] = None,
    interactions_header: Annotated[
        str | None, typer.Option(help="Names 'a,b,c' where the file has no header.", rich_help_panel=Columns)
    ] = None,
    items_header: Annotated[
        str | None, typer.Option(help="The same for the table of items.", rich_help_panel=Columns)
    ] = None,
    split: Annotated[
        Literal["chronological", "leave-one-out", "given"] | None,
        typer.Option(help="Default chronological: all users cut at the same instants, 8:1:1.", rich_help_panel=Rules),
    ] = None,
    min_rating: Annotated[float | None, typer.Option(help="Drop lower ratings.", rich_help_panel=Rules)] = None,
    k_core: Annotated[
        int | None, typer.Option(help="Least interactions of every user and item.", min=0, rich_help_panel=Rules)
    ] = None,
    duplicates: Annotated[
        Literal["keep", "first", "last"] | None,
        typer.Option(help="Of repeated (user, item) pairs; default keep.", rich_help_panel=Rules),
    ] = None,
    keep_unused: Annotated[
        bool | None, typer.Option("--keep-unused", help="Keep items nobody touched.", rich_help_panel=Rules)
    ] = None,
    history: Annotated[
        int | None,
        typer.Option(help="Most items of history; default 10, in the layout dmpo all.", min=1, rich_help_panel=Rules),
    ] = None,
    min_history: Annotated[int, typer.Option(help="Least items of history.", min=1, rich_help_panel=Rules)] = 1,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, see catalign data rules; repeatable.", rich_help_panel=Rules),
    ] = None,
    without_rule: Annotated[
        list[str] | None, typer.Option(help="Name of a rule to switch off; repeatable.", rich_help_panel=Rules)
    ] = None,
    rules_file: Annotated[
        Path | None, typer.Option("--rules", help="YAML file of rule names and values.", rich_help_panel=Rules)
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean/--no-clean", help="Clean titles of HTML and blanks.", rich_help_panel=Titles)
    ] = True,
    missing_titles: Annotated[
        Literal["drop", "id"] | None,
        typer.Option(help="Drop items without a title (default), or show the id.", rich_help_panel=Titles),
    ] = None,
    duplicate_titles: Annotated[
        Literal["keep", "merge", "distinguish"] | None,
        typer.Option(
            help="Of items that share a title; default keep; distinguish adds what differs.", rich_help_panel=Titles
        ),
    ] = None,
    title_format: Annotated[
        str, typer.Option(help="For example '{title}[ by {brand}]', of --metadata columns.", rich_help_panel=Titles)
    ] = "{title}",
    title_words: Annotated[int | None, typer.Option(help="Most words.", min=1, rich_help_panel=Titles)] = None,
    title_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of --tokenizer, in whole words.", min=1, rich_help_panel=Titles)
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="A Hugging Face folder or model name.", rich_help_panel=Titles)
    ] = None,
    hash_users: Annotated[
        bool, typer.Option("--hash-users", help="Hash user ids with a salt.", rich_help_panel=Privacy)
    ] = False,
    salt_file: Annotated[
        Path | None, typer.Option(help="Holds the salt; default the variable CATALIGN_SALT.", rich_help_panel=Privacy)
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a dataset folder of two tables or of a folder in a known layout.

    catalign data prepare --interactions log.csv --items items.csv --user user --item item --time time --title title
    --output ds

    catalign data prepare --connection postgresql://shop@db/shop --interactions-query orders --items-query
    "SELECT id AS item, name FROM products" --user user --item item --time time --title name --output ds
    """
    named = rule_options(rules_file, rule or [], without_rule or [])
    general: dict[str, Any] = {
        "min_history": min_history, "clean": clean, "title_format": title_format,
        "title_words": title_words, "title_tokens": title_tokens, "tokenizer": tokenizer,
    }  # fmt: skip
    general |= _given(history=history, missing_titles=missing_titles, duplicate_titles=duplicate_titles)
    general = joined(general, {name: named[name] for name in named.keys() & WindowOptions.model_fields})
    rules = _given(split=split, min_rating=min_rating, k_core=k_core, duplicates=duplicates, keep_unused=keep_unused)
    rules = joined(rules, {name: named[name] for name in named.keys() - WindowOptions.model_fields})
    columns = _given(
        user=user, item=item, time=time, rating=rating, split_column=split_column, item_id=item_id, title=title,
        metadata=metadata or None, valid=valid, test=test,
    )  # fmt: skip
    if salt_file is not None and not hash_users:
        raise UserError("--salt-file goes with --hash-users")
    salt = read_salt(salt_file) if hash_users else None
    with _steps() as step:
        if folder is None:
            special = _given(layout=layout, train_file=train_file, domain=domain, name=name)
            _refuse(special, "a folder in a known layout")
            headers = interactions_header, items_header
            if connection is not None and interactions_query is None and items_query is None:
                raise UserError("--connection goes with --interactions-query and --items-query")
            log = table_place("interactions", interactions, interactions_query, connection)
            titles = table_place("items", items, items_query, connection)
            source = _tables(log, titles, columns, _given(encoding=encoding, delimiter=delimiter), headers)
            dataset = prepare_tables(
                source, TableOptions(**general, **rules), output, overwrite=overwrite, step=step, salt=salt
            )
        else:
            own = _given(
                interactions=interactions, items=items, encoding=encoding, delimiter=delimiter,
                interactions_header=interactions_header, items_header=items_header, connection=connection,
                interactions_query=interactions_query, items_query=items_query, **columns,
            )  # fmt: skip
            _refuse(own, "tables of your own, without FOLDER")
            special = _given(train_file=train_file, domain=domain, name=name)
            dataset = _prepare_folder(folder, layout, special, general, rules, output, overwrite, step, salt)
    _report(dataset, as_json)


app.command()(append)


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="A dataset folder.")],
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Of the trie: a Hugging Face folder or model name; default one made from the titles."),
    ] = None,
    titles: Annotated[bool, typer.Option("--titles", help="Also the trie by other title strategies.")] = False,
    as_json: Json = False,
) -> None:
    """Print counts, history lengths, cold targets, duplicate titles and the shape of the trie of a dataset folder."""
    from catalign.cli.title_shapes import strategies, trie_shape  # brings torch along

    dataset = load_dataset(folder)
    tried = islice(strategies(dataset.items), None if titles else 1)
    shapes = {name: asdict(trie_shape(those, tokenizer)) for name, those in tried}
    description = describe(dataset) | {"tries": shapes}
    if as_json:
        results.print_json(data=description)
    else:
        print_description(folder, description)


@app.command()
def sample(
    output: Output,
    users: Annotated[int, typer.Option(help="How many people.")] = 2_000,
    items: Annotated[int, typer.Option(help="How many items.")] = 500,
    seed: Annotated[int, typer.Option(help="The same seed gives the same shop.")] = 0,
    prepare: Annotated[bool, typer.Option("--prepare", help="Also make the dataset folder OUTPUT/dataset.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Generate the sample store: interactions.csv, items.csv and a README about them."""
    with _steps() as step:
        made, bought = write_store(output, users=users, items=items, seed=seed, overwrite=overwrite, step=step)
        if prepare:
            prepare_tables(table_source(output, "shop"), TableOptions(), output / "dataset", step=step)
    results.print(f"{output}: {made:,} items, {users:,} users, {bought:,} interactions", markup=False, soft_wrap=True)
    then = f"inspect {output / 'dataset'}" if prepare else f"prepare {output} --output DATASET"
    console.print(f"next: catalign data {then}", markup=False)


@contextlib.contextmanager
def _steps() -> Iterator[Step]:
    """Show what is being done, and leave no trace of it, so that a mistake stays one line."""
    with console.status("starting") as status:
        yield status.update


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that were passed."""
    return {name: value for name, value in options.items() if value is not None}


def _refuse(options: dict[str, Any], place: str) -> None:
    if options:
        raise UserError(f"--{next(iter(options)).replace('_', '-')} goes with {place}")


def _tables(
    interactions: Path | Query | None,
    items: Path | Query | None,
    columns: dict[str, Any],
    how: dict[str, Any],
    headers: tuple[str | None, str | None],
) -> TableSource:
    """Gather the two tables, written as `how` says; a column not named is asked for with the names that are there."""
    if interactions is None or items is None:
        raise UserError("nothing to prepare", mend="pass a FOLDER in a known layout, or --interactions and --items")
    of_log, of_titles = ({**how, "header": names.split(",")} if names else how for names in headers)
    log = interactions if isinstance(interactions, Query) else Table.of(interactions, **of_log)
    titles = items if isinstance(items, Query) else Table.of(items, **of_titles)
    for option, table in (("user", log), ("item", log), ("title", titles)):
        if option not in columns:
            present = ", ".join(column_names(table))
            raise UserError(f"--{option} is not given", where=table, mend=f"choose from its columns: {present}")
    given: dict[str, Any] = {"item_id": columns["item"], **columns}
    given |= {name: Table.of(columns[name], **of_log) for name in ("valid", "test") if name in columns}
    return TableSource(interactions=log, items=titles, **given)


def _prepare_folder(
    folder: Path,
    layout: str | None,
    special: dict[str, str],
    general: dict[str, Any],
    rules: dict[str, Any],
    output: Path,
    overwrite: bool,
    step: Step,
    salt: bytes | None,
) -> Dataset:
    if layout is not None and is_outside(layout):
        _refuse(special, "layouts of our own")
        return _prepare_outside(
            folder, layout, general, rules, {"output": output, "overwrite": overwrite, "step": step, "salt": salt}
        )
    if layout is not None and layout not in LAYOUTS:
        raise UserError(f"there is no layout {layout!r}", where="--layout", mend=f"choose from {', '.join(LAYOUTS)}")
    layout = layout or recognise(folder)
    given: dict[str, Any] = {"output": output, "overwrite": overwrite, "step": step}
    if layout != FEWSHOT:
        _refuse(_only(special, "domain"), f"the layout {FEWSHOT}")
    if layout not in WINDOW_LAYOUTS:
        _refuse(_only(special, "train_file"), "layouts of windows")
    if layout in (*WINDOW_LAYOUTS, FEWSHOT):
        _refuse(rules, "tables of interactions; the windows of this folder are cut already")
    if layout in WINDOW_LAYOUTS:
        given |= {option: special.get(option) for option in ("train_file", "name")}
        return prepare_windows(folder, layout, WindowOptions(**general), salt=salt, **given)
    if layout == FEWSHOT:
        _refuse(_only(special, "name"), "the other layouts; here it is --domain")
        _refuse(_given(hash_users=salt), "the other layouts; here users have no ids")
        options = _fewshot_options(folder, special.get("domain"), general)
        return prepare_fewshot(place_of(folder, layout), options, **given)
    source = table_source(folder, layout, name=special.get("name"))
    return prepare_tables(source, TableOptions(**general, **rules), salt=salt, **given)


def _prepare_outside(
    folder: Path, layout: str, general: dict[str, Any], rules: dict[str, Any], given: dict[str, Any]
) -> Dataset:
    """Prepare what a source from outside the package makes of a folder."""
    found = outside_source(folder, layout)
    if isinstance(found, TableSource):
        return prepare_tables(found, TableOptions(**general, **rules), **given)
    _refuse(rules, "tables of interactions; the windows of this folder are cut already")
    return prepare_published(lambda _: found, layout, WindowOptions(**general), which={}, **given)


def _only(options: dict[str, str], name: str) -> dict[str, str]:
    return {name: options[name]} if name in options else {}


def _fewshot_options(folder: Path, domain: str | None, general: dict[str, Any]) -> FewshotOptions:
    """The rules for the few-shot files: their titles are their ids, and their windows are cut."""
    if domain not in DOMAINS:
        what = "--domain is not given" if domain is None else f"there is no domain {domain!r}"
        raise UserError(what, where=folder, mend=f"choose from {', '.join(DOMAINS)}")
    usual = WindowOptions()
    changed = {name: value for name, value in general.items() if getattr(usual, name) != value}
    known = {"history", "clean", "without_rules"}
    _refuse({name: changed[name] for name in changed.keys() - known}, "the other layouts")
    return FewshotOptions.model_validate({"domain": domain} | {name: general[name] for name in general.keys() & known})


def _report(dataset: Dataset, as_json: bool) -> None:
    if as_json:
        results.print_json(data=dataset.card.model_dump(mode="json"))
        return
    for warning in dataset.card.warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)
    results.print(summary_line(dataset), markup=False, soft_wrap=True)

"""`catalign recommend`."""

import json as json_module
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from catalign.cli.options import ScoreIfGiven
from catalign.errors import UserError

Many, Folder = "Many people", "Many people, into a folder"


def recommend(
    run: Annotated[Path, typer.Argument(help="A run folder made by catalign train.")],
    history: Annotated[
        list[str] | None, typer.Option(help="An item's id or title; repeat it, the oldest first.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    decoder: Annotated[
        Literal["search", "grounding"], typer.Option(help="Search real titles, or write freely and take the nearest.")
    ] = "search",
    beams: Annotated[
        int | None, typer.Option(min=1, help="Width of the search; default the larger of 10 and k, with grounding 4.")
    ] = None,
    score: ScoreIfGiven = None,
    exclude_history: Annotated[
        bool, typer.Option("--exclude-history/--repeat", help="Leave out what is in the history, or allow it.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    input: Annotated[
        Path | None,
        typer.Option(
            help="A table (Parquet, CSV, JSON lines), a folder of them or a pattern, with a column 'history'; for a "
            "folder as output also a user's key and, if wanted, k, filters, exclude, candidates, catalogue.",
            rich_help_panel=Many,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of part files to make, or one file (.parquet, .jsonl).", rich_help_panel=Many),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it is there.", rich_help_panel=Many)
    ] = False,
    user: Annotated[
        str | None, typer.Option(help="Column of the user's key; default user_id.", rich_help_panel=Folder)
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Between the items of a text; default |.", rich_help_panel=Folder)
    ] = None,
    catalogue: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE: items (column item_id) that rows may name; repeat it.", rich_help_panel=Folder),
    ] = None,
    bad_rows: Annotated[
        Literal["refuse", "skip"] | None,
        typer.Option(help="Refuse an input with a bad row (default), or skip and count them.", rich_help_panel=Folder),
    ] = None,
    part_rows: Annotated[
        int | None, typer.Option(min=1, help="People in one part; default 4096.", rich_help_panel=Folder)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Histories read at once; default 32.", rich_help_panel=Folder)
    ] = None,
    engine: Annotated[
        Literal["local", "ray"] | None,
        typer.Option(help="This process, or those of torchrun (default); or Ray.", rich_help_panel=Folder),
    ] = None,
    workers: Annotated[
        str | None, typer.Option(help="Of Ray: how many, or 2:8 for at least 2, at most 8.", rich_help_panel=Folder)
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="A running Ray cluster; default one of its own here.", rich_help_panel=Folder)
    ] = None,
) -> None:
    """Recommend real items of the catalogue to a person, or to every row of a table.

    catalign recommend runs/msl --history "Title A" --history "Title B" -k 5

    catalign recommend runs/msl --input users.parquet --output recs/
    """
    from catalign.decoding.generation import PUBLISHED_BEAMS
    from catalign.progress import results
    from catalign.recommend_file import recommend_file
    from catalign.recommender import Recommender

    if (input is None) == (not history):
        raise UserError("no history given" if input is None else "a history and a file given",
                        where="catalign recommend", mend="pass --history TITLE_OR_ID ..., or --input FILE")  # fmt: skip
    if decoder == "grounding" and (input is not None or score is not None):
        raise UserError("--input and --score go with --decoder search", where="--decoder grounding")
    of_folder: dict[str, Any] = {
        "user": user, "delimiter": delimiter, "bad_rows": bad_rows, "part_rows": part_rows, "batch_size": batch_size,
    }  # fmt: skip
    of_folder = {name: value for name, value in of_folder.items() if value is not None}
    of_engine = {"engine": engine, "workers": workers, "ray-address": ray_address}
    given = [*of_folder, *(name for name, value in of_engine.items() if value), *(["catalogue"] if catalogue else [])]
    into_folder = input is not None and output is not None and (output.suffix == "" or output.is_dir())
    if given and not into_folder:
        where = ", ".join("--" + name.replace("_", "-") for name in given)
        raise UserError("goes with --input and a folder as --output", where=where)
    if input is not None and output is not None and into_folder:
        settings = {"k": k, "beams": beams, "score": score or "valid", "exclude_history": exclude_history, **of_folder}
        manifest = _recommend_everybody(
            run, input, output, {**settings, "catalogues": _named(catalogue or [])}, engine or "local", workers,
            ray_address, overwrite=overwrite,
        )  # fmt: skip
        typer.echo(json_module.dumps(manifest, indent=2) if json else f"{output}: {_told(manifest)}")
        return
    if input is not None:
        if output is None:
            raise UserError("no output given", where="--output", mend="name the folder or file to make")
        written = recommend_file(
            run, input, output, k=k, beams=beams, score=score or "valid", exclude_history=exclude_history,
            overwrite=overwrite,
        )  # fmt: skip
        typer.echo(f"{output}: recommendations for {written:,} histories")
        return
    recommender = Recommender.load(run)
    if decoder == "grounding":
        near = recommender.ground(history or [], k, beams=beams or PUBLISHED_BEAMS, exclude_history=exclude_history)
        rows = [vars(item) for item in near]
        values = [f"distance {item.distance:.3g}" for item in near]
    else:
        likely = recommender.recommend(
            history or [], k, beams=beams, score=score or "valid", exclude_history=exclude_history
        )
        rows = [vars(item) for item in likely]
        values = [f"{item.probability:.1%}" for item in likely]
    if json:
        typer.echo(json_module.dumps(rows, ensure_ascii=False, indent=2))
        return
    for place, (row, value) in enumerate(zip(rows, values, strict=True), 1):
        line = f"{place:3d}. {row['title']}  ({row['item_id']}, {value})"
        results.print(line, markup=False, soft_wrap=True)


def _recommend_everybody(
    run: Path, source: Path, output: Path, settings: dict[str, Any], engine: str, workers: str | None,
    address: str | None, *, overwrite: bool,
) -> dict[str, Any]:  # fmt: skip
    """Answer into a folder; SIGTERM ends it where the same command goes on."""
    from catalign.batch.local_engine import answer_here
    from catalign.batch.ray_engine import Workers, answer_with_ray
    from catalign.batch.run import Engine, recommend_batch
    from catalign.batch.settings import BatchSettings
    from catalign.bench.command import ended_by_terminate
    from catalign.processes import refuse_processes
    from catalign.progress import console

    asked = BatchSettings(**settings)
    answer: Engine = partial(answer_here, run, output, asked)
    if engine == "ray":
        refuse_processes("catalign recommend --engine ray")
        least, most = _bounds(workers)
        answer = partial(answer_with_ray, run, output, asked, Workers(least, most, address))
    elif workers or address:
        raise UserError("goes with --engine ray", where="--workers" if workers else "--ray-address")
    with ended_by_terminate():
        try:
            return recommend_batch(run, source, output, asked, answer, overwrite=overwrite)
        except (SystemExit, KeyboardInterrupt):
            console.print("stopped; the same command goes on where it was")
            raise


def _bounds(workers: str | None) -> tuple[int, int]:
    """The least and the most of `4` or `2:8`; one where nothing is said."""
    least, _, most = (workers or "1").partition(":")
    try:
        bounds = int(least), int(most or least)
    except ValueError:
        bounds = 0, 0
    if not 1 <= bounds[0] <= bounds[1]:
        raise UserError(f"{workers} is no number of workers", where="--workers", mend="write it as 4, or as 2:8")
    return bounds


def _named(catalogues: list[str]) -> dict[str, Path]:
    """Names and files of NAME=FILE."""
    named = {}
    for text in catalogues:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise UserError(f"{text!r} is no NAME=FILE", where="--catalogue")
        if name in named:
            raise UserError(f"{name!r} is named twice", where="--catalogue")
        named[name] = Path(file)
    return named


def _told(manifest: dict[str, Any]) -> str:
    """A manifest in one line."""
    skipped = ", ".join(f"{rows:,} {column}" for column, rows in manifest["rejected"].items())
    return (
        f"recommendations for {manifest['users']:,} people in {len(manifest['parts']):,} parts"
        + (f"; {manifest['short']:,} got fewer than they asked for" if manifest["short"] else "")
        + (f"; rows skipped for {skipped} (see _rejects.jsonl)" if skipped else "")
    )

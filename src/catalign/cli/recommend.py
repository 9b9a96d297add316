"""`catalign recommend`."""

import json as json_module
from pathlib import Path
from typing import Annotated, Literal

import typer

from catalign.cli.options import ScoreIfGiven
from catalign.errors import UserError


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
    input: Annotated[
        Path | None, typer.Option(help="Many people: Parquet or JSON lines with a list column 'history'.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="For --input: the Parquet or JSON-lines file to make.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recommend real items of the catalogue to a person, or to every row of a file.

    catalign recommend runs/msl --history "Title A" --history "Title B" -k 5
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
    if input is not None:
        if output is None:
            raise UserError("no output given", where="--output", mend="name the file to make")
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

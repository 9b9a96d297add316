"""`catalign rank`."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from catalign.cli.options import Score
from catalign.errors import UserError


def rank(
    run: Annotated[Path, typer.Argument(help="A run folder made by catalign train.")],
    history: Annotated[
        list[str] | None, typer.Option(help="An item's id or title; repeat it, the oldest first.")
    ] = None,
    candidate: Annotated[list[str] | None, typer.Option(help="An item to rank, by id or title; repeat it.")] = None,
    score: Score = "valid",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rank given items of the catalogue for a person by the exact probability of their titles.

    catalign rank runs/msl --history "Title A" --candidate "Title B" --candidate "Title C"
    """
    from catalign.progress import results
    from catalign.recommender import Recommender

    for name, given in (("history", history), ("candidate", candidate)):
        if not given:
            raise UserError(f"no {name} given", where="catalign rank", mend=f"pass --{name} TITLE_OR_ID ...")
    ranked = Recommender.load(run).rank(history or [], candidate or [], score=score)
    if json:
        typer.echo(json_module.dumps([vars(item) for item in ranked], ensure_ascii=False, indent=2))
        return
    for place, item in enumerate(ranked, 1):
        line = f"{place:3d}. {item.title}  ({item.item_id}, log-probability {item.log_probability:.3f})"
        results.print(line, markup=False, soft_wrap=True)

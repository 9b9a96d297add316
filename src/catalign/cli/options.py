"""Options that several commands have in common."""

from pathlib import Path
from typing import Annotated

import typer

from catalign.plugins import is_outside

Runs = Annotated[
    list[Path], typer.Argument(help="Run folders of catalign train or baseline, or folders of predictions.")
]
BaselineRow = Annotated[
    str | None, typer.Option(help="Row that the others are compared with, by its name or folder; default the best.")
]
EvaluationName = Annotated[
    str | None, typer.Option(help="Which folder of a run's evaluations, where there are several.")
]
Embeddings = Annotated[
    Path | None, typer.Option(help="Run whose untuned model embeds the titles, for the diversity of the lists.")
]
DatasetOfRuns = Annotated[Path | None, typer.Option(help="Dataset folder; default that of the first run.")]


def _score(text: str) -> str:
    """Check the name of a score; one from outside the package is imported here, before anything is read."""
    if is_outside(text):
        from catalign.decoding.scores import increments_named

        increments_named(text)
    elif text not in ("valid", "full"):
        raise typer.BadParameter(f"{text!r} is not valid, full or MODULE:NAME.")
    return text


Score = Annotated[
    str,
    typer.Option(
        parser=_score, metavar="valid|full|MODULE:NAME",
        help="Softmax over the tokens that continue a title, over the whole vocabulary, or a score of your own.",
    ),
]  # fmt: skip
ScoreIfGiven = Annotated[
    str | None,
    typer.Option(
        parser=_score, metavar="valid|full|MODULE:NAME",
        help="Softmax over the tokens that continue a title (default), over the whole vocabulary, or a score of your "
        "own.",
    ),
]  # fmt: skip

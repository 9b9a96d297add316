"""Options that several commands have in common."""

from pathlib import Path
from typing import Annotated, Literal

import typer

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
Score = Annotated[
    Literal["valid", "full"],
    typer.Option(help="Softmax over the tokens that continue a title, or over the whole vocabulary."),
]
ScoreIfGiven = Annotated[
    Literal["valid", "full"] | None,
    typer.Option(help="Softmax over the tokens that continue a title (default), or over the whole vocabulary."),
]

"""`catalign report`."""

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from catalign.cli.options import BaselineRow, DatasetOfRuns, Embeddings, EvaluationName, Runs
from catalign.errors import UserError


def report(
    runs: Runs,
    output: Annotated[Path, typer.Option(help="The HTML file to write; one that is there is replaced.")],
    title: Annotated[str | None, typer.Option(help="Of the page; default the dataset's name.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="As of catalign compare; default ndcg@10 and hr@10. May be repeated.")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Slices, as of catalign compare; default history-length, popularity, warm and repeat. May be repeated."
        ),
    ] = None,
    baseline: BaselineRow = None,
    floor: Annotated[bool, typer.Option("--floor/--no-floor", help="Popularity and item-kNN as rows.")] = True,
    samples: Annotated[int, typer.Option(min=0, help="Users whose lists are shown, drawn at random.")] = 4,
    evaluation: EvaluationName = None,
    embeddings: Embeddings = None,
    dataset: DatasetOfRuns = None,
) -> None:
    """Write one HTML file about runs that answered the same windows; it needs nothing beside it, and no network.

    The table of catalign compare with its warnings, learning curves, slices, popularity bias, calibration, time and
    memory, lists to read, and how every run was made. Titles of the catalogue stand in it: mind whom you send it to.

    catalign report runs/msl runs/lml --output report.html
    """
    from catalign.cli.compare import embedder_of

    try:
        from catalign.reporting.report import write_report
    except ModuleNotFoundError as error:
        raise UserError(f"{str(error.name).partition('.')[0]} is not installed", where="catalign report",
                        mend="pip install 'catalign[report]'") from error  # fmt: skip
    write_report(
        runs, output, command=shlex.join(["catalign", *sys.argv[1:]]), title=title, dataset=dataset,
        metrics=metric or (), by=by, baseline=baseline, floor=floor, evaluation=evaluation, samples=samples,
        embedder=None if embeddings is None else partial(embedder_of, embeddings),
    )  # fmt: skip
    typer.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB")

"""`catalign compare`."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from catalign.cli.options import BaselineRow, DatasetOfRuns, Embeddings, EvaluationName, Runs


def compare(
    runs: Runs,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="hr, ndcg, mrr, recall or map @k; valid_ratio, accuracy by protocol. May be repeated."),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Slices: warm, history-length, popularity, repeat, duplicate-title, or a column of the items. "
            "May be repeated."
        ),
    ] = None,
    baseline: BaselineRow = None,
    floor: Annotated[bool, typer.Option("--floor", help="Add popularity and item-kNN.")] = False,
    format: Annotated[
        Literal["terminal", "markdown", "csv", "json", "latex"], typer.Option(help="How it is written.")
    ] = "terminal",
    output: Annotated[Path | None, typer.Option(help="File to write; default the terminal.")] = None,
    evaluation: EvaluationName = None,
    embeddings: Embeddings = None,
    dataset: DatasetOfRuns = None,
) -> None:
    """Put runs that answered the same windows into one table: intervals, paired tests, slices, warnings.

    Every difference is tested on the same windows, user by user, and corrected after Holm. Runs that differ in nothing
    but the seed are one row. No model is needed: the predictions that catalign evaluate wrote are read.

    catalign compare runs/msl runs/lml --floor --by history-length
    """
    from catalign.evaluation import comparison, comparison_table
    from catalign.files import whole_file
    from catalign.progress import console, results

    found = comparison.compare(
        runs, dataset=dataset, metrics=metric or (), by=by or (), baseline=baseline, floor=floor,
        evaluation=evaluation, embedder=None if embeddings is None else partial(embedder_of, embeddings),
    )  # fmt: skip
    if output is not None:
        with whole_file(output) as place:
            place.write_text(comparison_table.FORMATS[format](found), encoding="utf-8")
    elif format == "terminal":
        results.print(comparison_table.as_rich(found))
    else:
        typer.echo(comparison_table.FORMATS[format](found), nl=False)
    if output is not None or format in ("csv", "latex"):
        for caution in found.cautions:
            console.print(f"Caution: {caution.text}.", markup=False)


def embedder_of(run: Path, dataset: Any) -> Any:
    """Embeddings of a dataset's titles, under the model that a run began with; kept in the run."""
    from catalign.catalogue.catalogue import Catalogue
    from catalign.errors import UserError
    from catalign.recommender import Recommender

    recommender = Recommender.load(run)
    if Catalogue.from_frame(dataset.items).digest != recommender.catalogue.digest:
        raise UserError("has another catalogue than the runs that are compared", where=run, mend="name one of these")
    table = recommender.grounding().table
    return lambda items: table.embedding_NH[table.item_title_I[items]]

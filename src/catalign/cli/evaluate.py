"""`catalign evaluate`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from catalign.cli.options import ScoreIfGiven

Candidates, Full = "Protocols candidates and pairs", "Protocol full"


def evaluate(
    run: Annotated[
        Path, typer.Argument(help="A run folder made by catalign train, or a model folder, which is taken untuned.")
    ],
    protocol: Annotated[
        Literal["full", "candidates", "pairs"],
        typer.Option(help="Search the full catalogue; rank one of N candidates; target against negative."),
    ] = "full",
    split: Annotated[
        Literal["test", "valid", "train"], typer.Option(help="Which windows; train shows the fit.")
    ] = "test",
    windows: Annotated[int | None, typer.Option(min=1, help="Draw this many windows; default all.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    score: ScoreIfGiven = None,
    decoder: Annotated[
        Literal["search", "grounding"] | None,
        typer.Option(help="Search real titles (default), or write freely and take the nearest.", rich_help_panel=Full),
    ] = None,
    beams: Annotated[
        int | None,
        typer.Option(min=1, help="Width of the search; default 20, with grounding 4.", rich_help_panel=Full),
    ] = None,
    length_penalty: Annotated[
        float | None,
        typer.Option(help="Divide log-probabilities by (tokens of the title) to this power.", rich_help_panel=Full),
    ] = None,
    exclude_history: Annotated[
        bool | None,
        typer.Option("--exclude-history", help="Never recommend what is in the history.", rich_help_panel=Full),
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(min=0, help="Training windows shown before every prompt, answered.", rich_help_panel=Full),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=2, help="N, the target among them; default 20.", rich_help_panel=Candidates)
    ] = None,
    prompt: Annotated[
        Literal["history", "choices"] | None,
        typer.Option(help="Show the history alone (default), or the candidates too.", rich_help_panel=Candidates),
    ] = None,
    generation: Annotated[
        Literal["constrained", "free"] | None,
        typer.Option(help="Answer with a candidate (default), or write freely.", rich_help_panel=Candidates),
    ] = None,
    dataset: Annotated[Path | None, typer.Option(help="Dataset folder; default the one trained on.")] = None,
    template: Annotated[
        str | None, typer.Option(help="For a model folder: plain (default), instruction, or a YAML file.")
    ] = None,
    transfer: Annotated[bool, typer.Option("--transfer", help="Allow a dataset of another catalogue.")] = False,
    output: Annotated[Path | None, typer.Option(help="Where predictions go; default a folder inside the run.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Histories in one batch.")] = 32,
    json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Rank for windows of a split: HR, NDCG and MRR over the full catalogue, warm and cold targets apart.

    Other protocols: one of N candidates (HR@1, ValidRatio), or pairs (paired accuracy, pooled AUC). Predictions are
    written while it runs; an interrupted evaluation goes on where it stopped. Popularity and item-kNN are printed
    beside the model.

    catalign evaluate runs/msl --windows 1000 --json
    """
    from catalign.evaluate_run import Draw, RunEvaluation, protocol_options
    from catalign.evaluation.protocol_table import table_of
    from catalign.evaluation.table import as_json
    from catalign.progress import console, results

    given: dict[str, Any] = {
        "decoder": decoder, "score": score, "beams": beams, "length_penalty": length_penalty,
        "exclude_history": exclude_history, "examples": examples,
        "candidates": candidates, "prompt": prompt, "generation": generation,
    }  # fmt: skip
    options = protocol_options(protocol, {name: value for name, value in given.items() if value is not None})
    evaluation = RunEvaluation(run, dataset, transfer=transfer, template=template)
    of_protocol: dict[str, Callable[..., Any]] = {
        "full": evaluation.full,
        "candidates": evaluation.candidates,
        "pairs": evaluation.pairs,
    }
    draw = Draw(split, windows, seed, batch_size, output)
    rows = of_protocol[protocol](draw, **options)
    if json:
        typer.echo(as_json(rows))
    else:
        results.print(table_of(protocol, rows))
    for caution in evaluation.cautions(protocol, draw):
        console.print(f"Caution: {caution.text}.", markup=False)

"""`catalign evaluate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from catalign.errors import UserError


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder made by catalign train.")],
    split: Annotated[
        Literal["test", "valid", "train"], typer.Option(help="Which windows; train shows the fit.")
    ] = "test",
    windows: Annotated[int | None, typer.Option(min=1, help="Draw this many windows; default all.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    beams: Annotated[int, typer.Option(min=1, help="Width of the search.")] = 20,
    score: Annotated[
        Literal["valid", "full"],
        typer.Option(help="Softmax over the tokens that continue a title, or over the whole vocabulary."),
    ] = "valid",
    length_penalty: Annotated[
        float, typer.Option(help="Divide log-probabilities by (tokens of the title) to this power.")
    ] = 0.0,
    exclude_history: Annotated[
        bool, typer.Option("--exclude-history", help="Never recommend what is in the history.")
    ] = False,
    dataset: Annotated[Path | None, typer.Option(help="Dataset folder; default the one trained on.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where predictions go; default a folder inside the run.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Histories in one batch.")] = 32,
    json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Rank the full catalogue for windows of a split: HR, NDCG and MRR at 1, 5, 10 and 20, warm and cold targets apart.

    Predictions are written while it runs; an interrupted evaluation goes on where it stopped. Popularity and item-kNN
    are printed beside the model.

    catalign evaluate runs/msl --windows 1000 --json
    """
    from catalign.catalogue.catalogue import Catalogue
    from catalign.data.dataset import load_dataset
    from catalign.evaluation.evaluate import evaluate_search, floor_rows
    from catalign.evaluation.table import as_json, as_rich
    from catalign.files import write_json
    from catalign.progress import results
    from catalign.recommender import Recommender

    recommender = Recommender.load(run)
    trained_on = recommender.run.recipe.dataset
    if dataset is None and not trained_on.is_dir():
        raise UserError("the dataset of this run is gone", where=trained_on, mend="pass it with --dataset")
    opened = load_dataset(dataset or trained_on)
    if Catalogue.from_frame(opened.items).digest != recommender.catalogue.digest:
        raise UserError(
            "has another catalogue than the run was trained on",
            where=opened.folder,
            mend="pass the dataset of the run with --dataset",
        )
    search = recommender.search(
        beams=beams, score=score, length_penalty=length_penalty, exclude_history=exclude_history, batch_size=batch_size
    )
    draw = f"{windows}-seed{seed}" if windows is not None else "all"
    name = f"{split}-{draw}-beams{beams}-{score}" + ("-new" if exclude_history else "")
    name += f"-length{length_penalty:g}" if length_penalty else ""
    metrics = evaluate_search(
        search, opened, output or run / "evaluations" / name,
        split=split, windows=windows, seed=seed, depth=min(20, beams),
        checkpoint=recommender.run.checkpoint,
    )  # fmt: skip
    floor = floor_rows(opened, split=split, windows=windows, seed=seed, exclude_history=exclude_history)
    write_json(run / "metrics.json", {**metrics, "floor": floor})
    rows = {**floor, recommender.run.recipe.objective.label: metrics}
    if json:
        typer.echo(as_json(rows))
    else:
        results.print(as_rich(rows))

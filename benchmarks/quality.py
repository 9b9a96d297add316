"""Accuracy of the objectives on one data set: same model, same budget, same test windows.

    python -m benchmarks.quality DATA --output runs/NAME [--train-file FILE] [--preset small] [--epochs 8] [--json]

DATA is a folder in a published layout or a dataset folder. Finished steps are kept, so a killed run goes on. What it
prints is what `docs/results/` shows; `OUTPUT/results.json` holds every number.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from catalign.cli.main import quieten_libraries
from catalign.data.dataset import Dataset, load_dataset
from catalign.data.layouts import recognise
from catalign.data.options import WindowOptions
from catalign.data.prepare import prepare_windows
from catalign.errors import UserError
from catalign.evaluation.evaluate import evaluate_search, floor_rows
from catalign.evaluation.table import as_json, as_markdown, as_text
from catalign.files import write_json
from catalign.recommender import Recommender
from catalign.training.module import Objective
from catalign.training.recipe import Recipe, Validation
from catalign.training.run import load_run
from catalign.training.train import train
from catalign.training.warmup import init_model

OBJECTIVES = {
    "lml": Objective(name="lml"),
    "msl": Objective(name="msl"),
    "msl+ats": Objective(name="msl", temperature="adaptive"),
}


def main() -> None:
    """Run the steps that are not done yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--phrases", action="store_true", help="tokens of the embedded model may span words")
    parser.add_argument("--warmup-epochs", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batching", default="by-user", choices=["by-user", "shuffled"])
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES), choices=OBJECTIVES)
    options = parser.parse_args()
    quieten_libraries()

    dataset = prepared(options.data, options.output / "dataset", options.train_file)
    model = options.output / f"model-{options.preset}-{options.warmup_epochs}-seed{options.seed}"
    if not model.exists():
        init_model(
            dataset.folder,
            model,
            preset=options.preset,
            phrases=options.phrases,
            epochs=options.warmup_epochs,
            seed=options.seed,
        )
    rows = floor_rows(dataset, split="test", windows=options.windows, seed=options.seed, exclude_history=False)
    training: dict[str, Any] = {"model": json.loads((model / "warmup.json").read_text(encoding="utf-8"))}
    for name in options.objectives:
        recipe = Recipe(
            dataset=dataset.folder.resolve(),
            model=str(model.resolve()),
            objective=OBJECTIVES[name],
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            batch_size=options.batch_size,
            batching=options.batching,
            validation=Validation(windows=1000, patience=3),
            seed=options.seed,
        )
        rows[name], training[name] = one_row(dataset, recipe, options, name)
        write_json(options.output / "results.json", {"training": training, "rows": json.loads(as_json(rows))})
    show(rows, training, options.json)


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Data, output, test windows, seed: what every table of accuracy takes."""
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--train-file", help="training file of the published layout, if not the usual one")
    parser.add_argument("--windows", type=int, help="test windows drawn; default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")


def show(rows: dict[str, dict[str, Any]], training: dict[str, Any], as_one_object: bool) -> None:
    """Print the table as text and Markdown with a line for each training, or all of it as one JSON object."""
    if as_one_object:
        print(json.dumps({"training": training, "rows": json.loads(as_json(rows))}))
        return
    print(as_text(rows))
    print(as_markdown(rows))
    for name, summary in training.items():
        print(f"{name}: {json.dumps(summary)}")


def prepared(data: Path, folder: Path, train_file: str | None) -> Dataset:
    """The dataset folder, made from a published layout if it is not there yet."""
    if (data / "dataset.json").is_file():
        return load_dataset(data)
    if not folder.exists():
        prepare_windows(data, recognise(data), WindowOptions(), folder, train_file=train_file)
    return load_dataset(folder)


def one_row(
    dataset: Dataset, recipe: Recipe, options: argparse.Namespace, name: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train and evaluate one objective; returns its metrics and the summary of its training."""
    run = options.output / f"{name}-{options.preset}-{options.batching}-seed{options.seed}"
    try:
        summary = load_run(run).training
    except UserError:  # not there, or not finished
        summary = train(recipe, run, overwrite=run.exists())
    metrics = evaluate_search(
        Recommender.load(run).search(beams=20),
        dataset,
        run / "evaluations" / f"test-{options.windows or 'all'}",
        split="test",
        windows=options.windows,
        seed=options.seed,
        depth=20,
        checkpoint=f"{name}, epoch {summary['best_epoch']:g}, chosen on valid",
    )
    return metrics, summary


if __name__ == "__main__":
    main()

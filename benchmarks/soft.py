"""SOFT against plain fine-tuning on one data set: same model, same examples, same budget, same test windows.

    python -m benchmarks.soft DATA --output runs/NAME [--examples 4096] [--preset tiny] [--rows NAME ...] [--json]

DATA is a folder in a published layout or a dataset folder. The base model knows the titles and nobody's history. Every
row starts from it; the teacher of a SOFT row is the `sft` row of the same objective. The epoch is chosen on validation
windows (patience 2, at most 7 epochs, as published). Finished steps are kept, so a killed run goes on.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.quality import add_common_options, prepared, show
from catalign.cli.main import quieten_libraries
from catalign.data.dataset import Dataset
from catalign.decoding.recommend import Decoder
from catalign.errors import UserError
from catalign.evaluation.evaluate import evaluate_search, floor_rows
from catalign.evaluation.table import as_json
from catalign.files import read_json, write_json
from catalign.recommender import Recommender
from catalign.training.recipe import Recipe, SoftRecipe, make_recipe
from catalign.training.run import load_run
from catalign.training.soft_stage import taught, train_soft
from catalign.training.train import train
from catalign.training.warmup import init_model

ALPHAS = (0.1, 1.0, 10.0, 100.0)
SFT = {"sft lml": "lml", "sft msl": "msl"}


def soft_rows() -> dict[str, tuple[str, dict[str, Any]]]:
    """Each SOFT row: its teacher, and what its recipe says beyond the common part."""
    rows: dict[str, tuple[str, dict[str, Any]]] = {}
    for alpha in ALPHAS:
        rows[f"soft lml, alpha {alpha:g}"] = "sft lml", {"curriculum": {"alpha": alpha}}
    rows["soft lml, self-distilled only"] = "sft lml", {"curriculum": {"schedule": "distilled"}}
    rows["soft lml, constant 0.5"] = "sft lml", {"curriculum": {"schedule": "constant"}}
    rows["soft lml, linear"] = "sft lml", {"curriculum": {"schedule": "linear"}}
    rows["soft lml, alpha 1, free"] = "sft lml", {"curriculum": {"alpha": 1.0}, "distillation": {"mode": "free"}}
    for alpha in (1.0, 10.0):
        rows[f"soft msl, alpha {alpha:g}"] = "sft msl", {"curriculum": {"alpha": alpha}}
    rows["soft msl, alpha 1, best 10"] = (
        "sft msl", {"curriculum": {"alpha": 1.0}, "distillation": {"beams": 10, "best": 10}},
    )  # fmt: skip
    return rows


def main() -> None:
    """Run the steps that are not done yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser)
    parser.add_argument("--examples", type=int, help="training windows drawn; default all")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--warmup-epochs", type=int, default=5, help="passes of the base model over the titles")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--rows", nargs="+", choices=list(soft_rows()), default=list(soft_rows()))
    options = parser.parse_args()
    quieten_libraries()

    dataset = prepared(options.data, options.output / "dataset", options.train_file)
    base = options.output / f"base-{options.preset}-seed{options.seed}"
    if not base.exists():
        init_model(
            dataset.folder, base, preset=options.preset, epochs=options.warmup_epochs, titles_only=True,
            seed=options.seed,
        )  # fmt: skip
    rows = floor_rows(dataset, split="test", windows=options.windows, seed=options.seed, exclude_history=False)
    training: dict[str, Any] = {}
    for name in [*SFT, *options.rows]:
        run = options.output / f"{name.replace(',', '').replace(' ', '-')}-{options.examples or 'all'}-{options.seed}"
        training[name] = trained(name, run, dataset, base, options)
        rows[name] = tested(run, name, dataset, options)
        write_json(options.output / "results.json", {"training": training, "rows": json.loads(as_json(rows))})
    show(rows, training, options.json)


def trained(name: str, run: Path, dataset: Dataset, base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The summary of a row's training, which is done now if it was not before."""
    try:
        summary = load_run(run).training
    except UserError:  # not there, or not finished
        recipe = row_recipe(name, dataset, base, options)
        if isinstance(recipe, SoftRecipe):
            summary = train_soft(recipe, run, overwrite=run.exists())
        else:
            summary = train(recipe, run, overwrite=run.exists())
    kept = {key: value for key, value in summary.items() if key != "distillation"}
    return kept | curves(run)


def row_recipe(name: str, dataset: Dataset, base: Path, options: argparse.Namespace) -> Recipe | SoftRecipe:
    """What a row trains."""
    common: dict[str, Any] = {
        "dataset": dataset.folder.resolve(), "model": str(base.resolve()), "train_examples": options.examples,
        "epochs": options.epochs, "batch_size": options.batch_size, "learning_rate": options.learning_rate,
        "schedule": "constant", "validation": {"patience": 2}, "seed": options.seed,
    }  # fmt: skip
    if name in SFT:
        recipe = make_recipe({**common, "objective": {"name": SFT[name]}}, where=name)
    else:
        teacher, more = soft_rows()[name]
        mode = more.get("distillation", {})
        run = options.output / f"{teacher.replace(' ', '-')}-{options.examples or 'all'}-{options.seed}"
        shared = run / ("distilled" + "".join(f"-{value}" for value in mode.values()))
        fields = {**common, **more, "stage": "soft", "from": str(run), "distilled": shared}
        recipe = make_recipe(taught(fields, where=name), where=name)
    assert isinstance(recipe, Recipe | SoftRecipe)
    return recipe


def curves(run: Path) -> dict[str, Any]:
    """What the log tells of the curriculum: lambda and distance by epoch, both losses of the first."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "lambda" in line]
    if not steps:
        return {}
    told: dict[str, Any] = {}
    for key in ("lambda", "distance"):
        if key in steps[0]:
            told[key] = list(dict.fromkeys(round(line[key], 4) for line in steps))
    first = [line for line in steps if line["epoch"] <= 1]
    for key in ("loss/real", "loss/self-distilled"):
        told[f"first epoch {key}"] = round(sum(line[key] for line in first) / len(first), 4)
    folder = run / "distilled"
    if folder.exists():
        told["distillation"] = read_json(folder / "statistics.json")
    return told


def tested(run: Path, name: str, dataset: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Metrics of a row on the test windows."""
    search: Decoder = Recommender.load(run).search(beams=20)
    return evaluate_search(
        search, dataset, run / "evaluations" / f"test-{options.windows or 'all'}",
        split="test", windows=options.windows, seed=options.seed, depth=20, checkpoint=name,
    )  # fmt: skip


if __name__ == "__main__":
    main()

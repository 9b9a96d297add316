"""Baselines of other libraries on one data set: run those that are missing, print the table and what was chosen.

    python -m benchmarks.baselines DATASET --output runs/baselines/NAME [--methods sasrec ease] [--trials 4] [--json]

Finished runs are kept, so a killed one goes on with the method it was at; `--print` runs none. What it prints is what
`docs/results/baselines.md` shows.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from catalign.baselines.environment import environments_folder
from catalign.baselines.methods import METHODS
from catalign.baselines.run import Budget, refuse, run_baseline
from catalign.cli.main import quieten_libraries
from catalign.data.dataset import load_dataset
from catalign.errors import UserError
from catalign.evaluation.table import as_json, as_markdown
from catalign.files import read_json
from catalign.progress import console


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--print", action="store_true", dest="only_print", help="run nothing")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    quieten_libraries()

    dataset = load_dataset(options.dataset)
    for name in options.methods:
        run = options.output / name
        if options.only_print or run.exists():
            continue
        try:
            refuse(METHODS[name], dataset)
        except UserError as error:
            console.print(f"{name} is left out: {error}", markup=False)
            continue
        budget = Budget(trials=options.trials)
        run_baseline(name, options.dataset, run, environments_folder(), budget=budget, seed=options.seed)
    runs = {name: options.output / name for name in options.methods if (options.output / name).exists()}
    rows: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        metrics = read_json(run / "metrics.json")
        rows = {**metrics.pop("floor"), **rows, f"{name} ({METHODS[name].library})": metrics}
    made = {name: read_json(run / "provenance.json") for name, run in runs.items()}
    if options.json:
        print(json.dumps({"rows": json.loads(as_json(rows)), "runs": made}))
        return
    print(as_markdown(rows))
    print(chosen_table(made))


def chosen_table(made: dict[str, dict[str, Any]]) -> str:
    """Return what the validation windows chose, one row a method, as Markdown.

    Args:
        made: method to the provenance of its run.
    """
    lines = ["| method | trials | seconds | NDCG@10 on valid | epoch | chosen |", "|---|---:|---:|---:|---:|---|"]
    for name, run in made.items():
        chosen = run["chosen"]
        values = ", ".join(f"{key} {value}" for key, value in chosen["parameters"].items())
        epoch = f"{chosen['epoch']} of {len(chosen['by_epoch'])}" if "epoch" in chosen else "–"
        valid = f"{run['valid']['ndcg@10']:.4f}"
        lines.append(f"| {name} | {len(run['trials'])} | {run['seconds']:.0f} | {valid} | {epoch} | {values or '–'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

"""What training costs for a million windows, by the size of the model, and whether a simple model foretells it.

    python -m benchmarks.cost DATASET --work DIR [--windows 4000] [--rounds 3] [--json]

Each preset trains on the same windows, one after the other, round after round; counted is the time of packing, forward
and backward pass and optimiser, by the clock. The model of the cost: seconds a window = a + b * operations a window
(`training/flops.py`), drawn through the two smaller presets, and held against the largest.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from benchmarks.setting import print_result
from catalign.cli.main import quieten_libraries
from catalign.data.dataset import load_dataset
from catalign.training.observe import BESIDE, PHASES
from catalign.training.recipe import Recipe, make_recipe
from catalign.training.run import load_run
from catalign.training.train import train
from catalign.training.warmup import init_model

PRESETS = ("tiny", "small", "base")


def main() -> None:
    """Train, draw the line, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="scratch folder; models made there are kept")
    parser.add_argument("--windows", type=int, default=4_000)
    parser.add_argument("--objective", default="msl")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    quieten_libraries()

    dataset = load_dataset(options.dataset)
    found: dict[str, list[dict[str, float]]] = {preset: [] for preset in PRESETS}
    for number in range(options.rounds):
        for preset in PRESETS:
            model = options.work / preset
            if not model.exists():
                init_model(dataset.folder, model, preset=preset, epochs=0, phrases=True)
            run = options.work / f"{preset}-{number}"
            recipe = make_recipe(
                {
                    "dataset": str(dataset.folder.resolve()), "model": str(model.resolve()), "epochs": 1,
                    "objective": {"name": options.objective}, "train_examples": options.windows, "validation": None,
                },
                where="benchmarks.cost",
            )  # fmt: skip
            assert isinstance(recipe, Recipe)
            train(recipe, run, overwrite=True)
            found[preset].append(measured(load_run(run).training["observed"], options.windows))
    print_result(result(found, options.windows), options.json)


def measured(observed: dict[str, Any], windows: int) -> dict[str, float]:
    """Seconds and operations of a window, and the share of the device's peak that was used."""
    seconds = sum(observed[f"seconds/{name}"] for name in PHASES if name not in BESIDE)
    flops = observed["speed/utilisation"] * observed["peak_flops"] / observed["speed/windows_per_second"]
    return {"seconds": seconds / windows, "gigaflop": flops / 1e9, "utilisation": observed["speed/utilisation"]}


def result(found: dict[str, list[dict[str, float]]], windows: int) -> dict[str, Any]:
    """Medians and ranges by preset; the line through the two smaller ones, and what it says of the largest."""
    told: dict[str, Any] = {"windows": windows}
    medians = {}
    for preset, rounds in found.items():
        seconds = [each["seconds"] for each in rounds]
        medians[preset] = (rounds[0]["gigaflop"], statistics.median(seconds))
        told[preset] = {
            "gigaflop_per_window": round(rounds[0]["gigaflop"], 4),
            "hours_per_million_windows": round(statistics.median(seconds) * 1e6 / 3600, 2),
            "range": [round(least * 1e6 / 3600, 2) for least in (min(seconds), max(seconds))],
            "utilisation": round(statistics.median(each["utilisation"] for each in rounds), 3),
        }
    first, second, largest = (medians[preset] for preset in PRESETS)
    slope = (second[1] - first[1]) / (second[0] - first[0])
    foretold = first[1] + slope * (largest[0] - first[0])
    told["model"] = {
        "seconds_per_window_without_operations": round(first[1] - slope * first[0], 6),
        "gigaflop_per_second": round(1 / slope, 1),
        "foretold_for_the_largest": round(foretold * 1e6 / 3600, 2),
        "foretold_over_found": round(foretold / largest[1], 2),
    }
    return told


if __name__ == "__main__":
    main()

"""Where a model wins and loses: NDCG@10 by popularity of the target, repeats and history length, beside the floor rows.

    python -m benchmarks.slices DATASET PREDICTIONS [PREDICTIONS ...] [--json]

PREDICTIONS are folders that `catalign evaluate` left inside a run, all on the same windows of one split.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalign.data.dataset import load_dataset
from catalign.errors import UserError
from catalign.evaluation.floor import floor_rankings
from catalign.evaluation.metrics import ndcg, ranks_of_targets
from catalign.evaluation.predictions import ranked_array, read_predictions, read_settings

Bools = npt.NDArray[np.bool_]


def main() -> None:
    """Print one row per method and one column per slice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("predictions", type=Path, nargs="+")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    dataset = load_dataset(options.dataset)
    first = read_predictions(options.predictions[0])
    windows = dataset.windows(read_settings(options.predictions[0])["split"])[first["window"].to_list()]
    counts_I = dataset.training_counts()
    rankings = floor_rankings(dataset.windows("train"), counts_I, windows, depth=10)
    for folder in options.predictions:
        predictions = read_predictions(folder)
        if not predictions["window"].equals(first["window"]):
            raise UserError("holds predictions of other windows than the first", where=folder)
        rankings[str(folder)] = ranked_array(predictions["ranked"], read_settings(folder)["depth"])

    target_W = windows["target"].to_numpy().astype(np.int64)
    length_W = windows["history"].list.len().to_numpy()
    repeat_W = windows.select(repeat=windows["history"].list.contains(windows["target"]))["repeat"].to_numpy()
    count_W = counts_I[target_W]
    slices: dict[str, Bools] = {
        "all": np.ones(len(target_W), dtype=np.bool_),
        "repeat": repeat_W,
        "cold": count_W == 0,
        "1-5 in training": (count_W > 0) & (count_W <= 5),
        "6-30": (count_W > 5) & (count_W <= 30),
        "31+": count_W > 30,
        "history 1-3": length_W <= 3,
        "history 6+": length_W >= 6,
    }
    rows: dict[str, dict[str, Any]] = {"windows": {name: int(mask.sum()) for name, mask in slices.items()}}
    for method, ranked_WK in rankings.items():
        values_W = ndcg(ranks_of_targets(ranked_WK, target_W), 10)
        rows[method] = {name: round(float(values_W[mask].mean()), 4) for name, mask in slices.items() if mask.any()}
    if options.json:
        print(json.dumps(rows))
        return
    print("|  | " + " | ".join(slices) + " |\n|---" + "|---:" * len(slices) + "|")
    for method, row in rows.items():
        print(f"| {method} | " + " | ".join(str(row.get(name, "")) for name in slices) + " |")


if __name__ == "__main__":
    main()

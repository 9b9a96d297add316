"""Run folders with predictions that a test made up: what `catalign compare` reads, without any training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from catalign.data.dataset import Dataset
from catalign.evaluation.predictions import PredictionWriter, draw_windows
from catalign.files import read_json, write_json


def lists_with_target_at(
    dataset: Dataset, places: Sequence[int], *, split: str = "test", depth: int = 10
) -> npt.NDArray[Any]:
    """Ranked lists whose target stands at the given places in turn (1 the first, 0 nowhere), other items around it."""
    target_W = dataset.windows(split)["target"].to_numpy().astype(np.int64)
    other_WI = (target_W[:, None] + np.arange(1, dataset.items.height)) % dataset.items.height
    ranked_WK = other_WI[:, :depth].copy()
    place_W = np.resize(np.asarray(places), len(target_W))
    hit_W = place_W > 0
    ranked_WK[np.flatnonzero(hit_W), place_W[hit_W] - 1] = target_W[hit_W]
    return ranked_WK


def made_run(
    folder: Path,
    data: Dataset,
    ranked_WK: npt.NDArray[Any],
    *,
    split: str = "test",
    seed: int = 0,
    score_WK: npt.NDArray[Any] | None = None,
    recipe: dict[str, Any] | None = None,
    chosen_on: str = "valid",
    evaluation: str = "test-all",
    rows: int | None = None,
    **settings: Any,
) -> Path:
    """Write a run folder as far as a comparison reads it.

    Args:
        folder: the run.
        data: its dataset.
        ranked_WK: what it answers to all windows of the split.
        split: whose windows.
        seed: of the training.
        score_WK: log-probabilities; by default they fall from place to place.
        recipe: what differs from the usual one.
        chosen_on: what the provenance says.
        evaluation: name of the predictions folder.
        rows: how many windows are predicted; an evaluation that was interrupted.
        settings: of the predictions, where they differ from the usual ones.
    """
    depth = ranked_WK.shape[1]
    if score_WK is None:
        score_WK = np.tile(np.log(0.5) * np.arange(1, depth + 1), (len(ranked_WK), 1))
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"dataset": str(data.folder), "model": "lm", "objective": {"name": "msl"}, "seed": seed}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(usual | (recipe or {})))
    card = read_json(data.folder / "dataset.json")
    provenance = {"seed": seed, "dataset": card, "training": {"best_epoch": 3, "chosen_on": chosen_on}}
    write_json(folder / "provenance.json", provenance)
    asked = draw_windows(data.windows(split), None, 0)
    expected = {
        "split": split, "windows": len(asked), "seed": 0, "beams": 20, "score": "valid", "length_penalty": 0.0,
        "exclude_history": False, "checkpoint": folder.name, "dataset": card["files"]["items.parquet"][:12],
    }  # fmt: skip
    writer = PredictionWriter(folder / "evaluations" / evaluation, expected | settings, asked, depth=depth)
    writer.write(asked.head(rows or len(asked)), ranked_WK[: rows or len(asked)], score_WK[: rows or len(asked)])
    return folder

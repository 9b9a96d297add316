"""Evaluate a search over the full catalogue: predictions streamed to Parquet, metrics beside the floor rows."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from catalign.data.dataset import Dataset
from catalign.decoding.recommend import Decoder
from catalign.errors import UserError
from catalign.evaluation.floor import floor_metrics
from catalign.evaluation.predictions import PredictionWriter, draw_windows, metrics_of_predictions
from catalign.files import write_json
from catalign.processes import is_main
from catalign.progress import progress_bar

CHUNK = 256  # windows of one part: what an interrupted evaluation loses at most


def evaluate_search(
    search: Decoder,
    dataset: Dataset,
    folder: Path,
    *,
    split: str,
    windows: int | None,
    seed: int,
    depth: int,
    checkpoint: str,
) -> dict[str, Any]:
    """Predict for windows of a split, or go on where an interrupted evaluation of the same settings stopped.

    Args:
        search: the search, or another decoder, to evaluate.
        dataset: the dataset whose windows are taken.
        folder: where the predictions are written.
        split: `valid` or `test` (or `train`, to look at the fit).
        windows: how many windows to draw; None takes all.
        seed: of the draw.
        depth: length of the ranked lists.
        checkpoint: what made the predictions, for the record.

    Returns:
        The metrics (see `metrics.summarise`) with `produced_by`, also written to `folder/metrics.json`.

    Raises:
        UserError: the split is empty, or the folder holds predictions of other settings.
    """
    asked = ask_windows(dataset, split, windows, seed)
    expected = {
        "split": split,
        "windows": len(asked),
        "seed": seed,
        **search.settings,
        "checkpoint": checkpoint,
        "dataset": dataset.card.files["items.parquet"][:12],
    }
    writer = PredictionWriter(folder, expected, asked, depth=depth)
    with progress_bar() as progress:
        done = len(asked) - len(writer.left)
        task = progress.add_task(f"evaluating on {split}", total=len(asked), completed=done, note="")
        for chunk in writer.left.iter_slices(CHUNK):
            histories = chunk["history"].to_list()
            items_WK = np.full((len(chunk), depth), -1, dtype=np.int64)
            scores_WK = np.full((len(chunk), depth), -np.inf, dtype=np.float32)
            for numbers, items, scores in search.recommend(histories, depth):
                items_WK[numbers], scores_WK[numbers] = items, scores
                progress.advance(task, len(numbers))
            writer.write(chunk, items_WK, scores_WK)
    writer.finish()
    metrics = metrics_of_predictions(folder, dataset.training_counts())
    if is_main():
        write_json(folder / "metrics.json", metrics)
    return metrics


def ask_windows(dataset: Dataset, split: str, windows: int | None, seed: int) -> pl.DataFrame:
    """Draw the windows to evaluate; see `draw_windows`.

    Raises:
        UserError: the split is empty.
    """
    asked = draw_windows(dataset.windows(split), windows, seed)
    if len(asked) == 0:
        raise UserError(f"the split {split} has no windows", where=dataset.folder, mend="choose another --split")
    return asked


def floor_rows(
    dataset: Dataset, *, split: str, windows: int | None, seed: int, exclude_history: bool
) -> dict[str, dict[str, Any]]:
    """Metrics of the floor rows on the very windows that `evaluate_search` draws."""
    return floor_metrics(
        dataset.windows("train"),
        dataset.training_counts(),
        draw_windows(dataset.windows(split), windows, seed),
        exclude_history=exclude_history,
    )

"""One of N: the target among drawn candidates (S-DPO, arXiv 2406.09215, and its followers use N = 20).

Shapes: B windows of a chunk, W windows, N candidates.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.data.dataset import Dataset
from catalign.evaluation.draws import draw_candidates
from catalign.evaluation.evaluate import CHUNK, ask_windows
from catalign.evaluation.floor_candidates import floor_scores
from catalign.evaluation.intervals import bootstrap_interval
from catalign.evaluation.metrics import NO_ITEM, ranks_of_targets, summarise
from catalign.evaluation.predictions import PredictionWriter, metrics_of_predictions, ranked_array, read_predictions
from catalign.files import write_json
from catalign.processes import is_main
from catalign.progress import progress_bar

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Scorer = Callable[[Sequence[Sequence[int]], Ints], Floats]
"""Histories of B windows and their candidates [B, N] to scores [B, N]."""
Chooser = Callable[[Sequence[Sequence[int]], Ints], Ints]
"""Histories of B windows and their candidates [B, N] to the item that each answer names [B], -1 if it names none."""


def evaluate_candidates(
    answers: Scorer | Chooser,
    dataset: Dataset,
    folder: Path,
    *,
    free: bool,
    split: str,
    windows: int | None,
    seed: int,
    candidates: int,
    batch_size: int,
    produced_by: dict[str, Any],
) -> dict[str, Any]:
    """Rank the target among `candidates` - 1 negatives for windows of a split, or go on where it was interrupted.

    Args:
        answers: scores all candidates; with `free` it names one item.
        dataset: the dataset whose windows are taken; see `draws.draw_candidates` for the negatives.
        folder: where the predictions are written.
        free: whether `answers` is a `Chooser`; then only hr@1, ndcg@1 and mrr@1 are known.
        split: `valid`, `test` or `train`.
        windows: how many windows to draw; None takes all.
        seed: of the draws.
        candidates: N, the target among them.
        batch_size: windows given to `answers` at once.
        produced_by: what makes the predictions, for the record and to tell runs apart.

    Returns:
        The metrics (see `metrics.summarise`) over the N candidates, with `valid_ratio` (the share of answers that name
        a candidate, and its interval under `ci95`), `produced_by` and `floor`; without `floor` also in
        `folder/metrics.json`.

    Raises:
        UserError: the split is empty, the catalogue too small, or the folder holds predictions of other settings.
    """
    asked = ask_windows(dataset, split, windows, seed)
    counts_I = dataset.training_counts()
    candidate_WN = draw_candidates(asked, dataset.items, counts_I, candidates, seed)
    settings = {"protocol": f"1 of {candidates}", "split": split, "windows": len(asked), "seed": seed, **produced_by}
    depth = 1 if free else candidates
    writer = PredictionWriter(folder, settings, asked, depth=depth)
    place_of_window = {window: place for place, window in enumerate(asked["window"].to_list())}
    with progress_bar() as progress:
        done = len(asked) - len(writer.left)
        task = progress.add_task(f"one of {candidates} on {split}", total=len(asked), completed=done, note="")
        for chunk in writer.left.iter_slices(CHUNK):
            candidate_BN = candidate_WN[[place_of_window[window] for window in chunk["window"].to_list()]]
            parts = []
            for start in range(0, len(chunk), batch_size):
                rows = slice(start, start + batch_size)
                parts.append(answers(chunk["history"][rows].to_list(), candidate_BN[rows]))
                progress.advance(task, len(parts[-1]))
            writer.write(chunk, *_ranked(candidate_BN, np.concatenate(parts), free))
    writer.finish()
    metrics = metrics_of_predictions(folder, counts_I)
    metrics = _with_valid_ratio(metrics, read_predictions(folder), candidate_WN)
    if is_main():
        write_json(folder / "metrics.json", metrics)
    return {**metrics, "floor": _floor_metrics(dataset, asked, candidate_WN, counts_I)}


def rank_by_scores(candidate_WN: Ints, score_WN: npt.NDArray[Any]) -> Ints:
    """Return the candidates, highest score first; equal scores stay in the (random) order of the candidates."""
    return np.take_along_axis(candidate_WN, np.argsort(-score_WN, axis=1, kind="stable"), axis=1)


def _ranked(candidate_BN: Ints, answer: npt.NDArray[Any], free: bool) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Ranked items and their scores; of a free answer the one item it names, without a score."""
    if free:
        return answer[:, None], np.full((len(answer), 1), np.nan, dtype=np.float32)
    return rank_by_scores(candidate_BN, answer), -np.sort(-answer, axis=1)


def _with_valid_ratio(metrics: dict[str, Any], predictions: pl.DataFrame, candidate_WN: Ints) -> dict[str, Any]:
    """Add the share of first answers that are among the candidates, as read back from the predictions."""
    first_W = ranked_array(predictions["ranked"].list.head(1), 1)[:, 0]
    valid_W = ((candidate_WN == first_W[:, None]).any(axis=1) & (first_W != NO_ITEM)).astype(np.float64)
    (interval,) = bootstrap_interval(valid_W[:, None], predictions["user_id"].to_numpy()).tolist()
    ci95 = {**metrics["ci95"], "valid_ratio": interval}
    return {"valid_ratio": float(valid_W.mean()), **metrics, "ci95": ci95}


def _floor_metrics(
    dataset: Dataset, asked: pl.DataFrame, candidate_WN: Ints, counts_I: Ints
) -> dict[str, dict[str, Any]]:
    """The metrics of the floor rows among the very same candidates."""
    target_W = asked["target"].to_numpy().astype(np.int64)
    scores = floor_scores(dataset.windows("train"), counts_I, asked, candidate_WN)
    return {
        name: summarise(
            ranks_of_targets(rank_by_scores(candidate_WN, score_WN), target_W),
            counts_I[target_W] > 0,
            depth=candidate_WN.shape[1],
            groups_W=asked["user_id"].to_numpy(),
        )
        for name, score_WN in scores.items()
    }

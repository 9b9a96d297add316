"""Pairs: the target against one negative, as DMPO (arXiv 2405.16127) evaluates.

Two numbers from the same log-probabilities. *Paired accuracy* is P(right > wrong) over all pairs, ties half. The
published *pooled AUC* compares across users: for every pair a coin decides whether the right or the wrong answer is
taken, with its label, and the AUC is that of the log-probabilities of all users in one pool; it is noisier.

Shapes: P pairs (a window and one negative), A and C positive and negative rows of the pool.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.data.dataset import Dataset
from catalign.evaluation.draws import draw_negatives
from catalign.evaluation.evaluate import CHUNK, ask_windows
from catalign.evaluation.floor_candidates import floor_scores
from catalign.evaluation.intervals import bootstrap_interval
from catalign.evaluation.predictions import (
    PredictionWriter,
    ranked_array,
    read_predictions,
    read_settings,
    scores_array,
)
from catalign.files import write_json
from catalign.processes import is_main
from catalign.progress import progress_bar

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
PairScorer = Callable[[Sequence[Sequence[int]], Ints, Bools], npt.NDArray[np.floating[Any]]]
"""Histories, pairs (target, negative) [P, 2], whether the target is shown first [P] to scores (right, wrong) [P, 2]."""


def evaluate_pairs(
    score: PairScorer,
    dataset: Dataset,
    folder: Path,
    *,
    split: str,
    windows: int | None,
    seed: int,
    batch_size: int,
    produced_by: dict[str, Any],
) -> dict[str, Any]:
    """Compare target and negatives for windows of a split, or go on where it was interrupted.

    Args:
        score: log-probabilities of the right and the wrong answer.
        dataset: the dataset whose windows are taken; see `pairs_of_windows`.
        folder: where the scores are written: each pair as a ranked list of two.
        split: `valid`, `test` or `train`.
        windows: how many windows to draw; None takes all.
        seed: of the draws and of the coin.
        batch_size: pairs given to `score` at once.
        produced_by: what makes the scores, for the record and to tell runs apart.

    Returns:
        The metrics (see `summarise_pairs`) with `windows`, `produced_by` and `floor`; without `floor` also in
        `folder/metrics.json`.

    Raises:
        UserError: the split is empty, the catalogue too small, or the folder holds scores of other settings.
    """
    asked = ask_windows(dataset, split, windows, seed)
    counts_I = dataset.training_counts()
    pairs = pairs_of_windows(asked, dataset, counts_I, seed)
    settings = {"protocol": "pairs", "split": split, "windows": len(asked), "seed": seed, **produced_by}
    writer = PredictionWriter(folder, settings, pairs, depth=2)
    with progress_bar() as progress:
        done = len(pairs) - len(writer.left)
        task = progress.add_task(f"pairs of {split}", total=len(pairs), completed=done, note="")
        for chunk in writer.left.iter_slices(CHUNK):
            parts = []
            for rows in chunk.iter_slices(batch_size):
                parts.append(score(rows["history"].to_list(), items_of_pairs(rows), rows["target_first"].to_numpy()))
                progress.advance(task, len(rows))
            score_P2 = np.concatenate(parts)
            order_P2 = np.argsort(-score_P2, axis=1, kind="stable")
            ranked_P2 = np.take_along_axis(items_of_pairs(chunk), order_P2, axis=1)
            writer.write(chunk, ranked_P2, np.take_along_axis(score_P2, order_P2, axis=1))
    writer.finish()
    warm_P = counts_I[pairs["target"].to_numpy()] > 0
    users_P = pairs["user_id"].to_numpy()
    written = read_predictions(folder)
    score_P2 = scores_of_pairs(
        ranked_array(written["ranked"], 2), scores_array(written["scores"], 2), written["target"].to_numpy()
    )
    metrics = summarise_pairs(score_P2, warm_P, users_P, seed)
    produced = {key: value for key, value in read_settings(folder).items() if key != "depth"}
    metrics = {**metrics, "windows": len(asked), "produced_by": produced}
    if is_main():
        write_json(folder / "metrics.json", metrics)
    floor = {
        name: {**summarise_pairs(score_P2, warm_P, users_P, seed), "windows": len(asked)}
        for name, score_P2 in floor_of_pairs(dataset, split, pairs, counts_I).items()
    }
    return {**metrics, "floor": floor}


def pairs_of_windows(asked: pl.DataFrame, dataset: Dataset, counts_I: Ints, seed: int) -> pl.DataFrame:
    """Make one row of every window and negative, numbered in a column `window`.

    The negatives are those of the dataset where its windows have some, else one is drawn (`draws.draw_negatives`).
    Which of the two a prompt shows first is as published where the dataset knows, else a coin decides.

    Returns:
        `window` (the number of the pair), `user_id`, `history`, `target`, `negative`, `target_first`.
    """
    if "negatives" in asked.columns:
        pairs = asked.rename({"negatives": "negative"}).explode("negative", "target_first", empty_as_null=False)
    else:
        drawn_W1 = draw_negatives(asked, dataset.items, counts_I, 1, seed)
        coin_W = np.random.default_rng([seed, 1]).random(len(asked)) < 0.5
        pairs = asked.with_columns(negative=drawn_W1[:, 0].astype(np.uint32), target_first=coin_W)
    pairs = pairs.select("user_id", "history", "target", "negative", "target_first")
    return pairs.with_row_index("window")


def summarise_pairs(score_P2: npt.NDArray[Any], warm_P: Bools, users_P: npt.NDArray[Any], seed: int) -> dict[str, Any]:
    """Return paired accuracy and pooled AUC with their 95 % intervals, over all pairs and by warm and cold targets.

    `{"accuracy": ..., "auc": ..., "auc_se": ..., "n": P, "ci95": {"accuracy": [low, high], "auc": [low, high]},
    "ci95_over": "users", "warm": {...}, "cold": {...}}`. The interval of the accuracy resamples users, that of the AUC
    is 1.96 standard errors to either side. `auc` is absent where the coin gave all pairs one label; a part without
    pairs is `{"n": 0}`.

    Args:
        score_P2: scores of the right and the wrong answer.
        warm_P: whether the target occurs in training.
        users_P: user ids.
        seed: of the coin and the bootstrap.
    """
    right_P = np.random.default_rng([seed, 2]).random(len(score_P2)) < 0.5
    every_P = np.ones(len(score_P2), dtype=np.bool_)
    whole, warm, cold = (
        _part(score_P2[part_P], right_P[part_P], users_P[part_P], seed) for part_P in (every_P, warm_P, ~warm_P)
    )
    return {**whole, "ci95_over": "users", "warm": warm, "cold": cold}


def _part(score_P2: npt.NDArray[Any], right_P: Bools, users_P: npt.NDArray[Any], seed: int) -> dict[str, Any]:
    if len(score_P2) == 0:
        return {"n": 0}
    won_P = paired_wins(score_P2)
    (interval,) = bootstrap_interval(won_P[:, None], users_P, seed=seed).tolist()
    part: dict[str, Any] = {"accuracy": float(won_P.mean()), "n": len(won_P), "ci95": {"accuracy": interval}}
    if right_P.all() or not right_P.any():
        return part
    pooled_P = np.where(right_P, score_P2[:, 0], score_P2[:, 1])
    auc, error = pooled_auc(pooled_P, right_P)
    part["ci95"]["auc"] = [max(auc - 1.96 * error, 0.0), min(auc + 1.96 * error, 1.0)]
    return {**part, "auc": auc, "auc_se": error}


def paired_wins(score_P2: npt.NDArray[Any]) -> Floats:
    """Return 1 where the first score of a pair is the higher, 0.5 where they are equal, float64 [P].

    >>> paired_wins(np.array([[2.0, 1.0], [1.0, 1.0], [0.0, 3.0]])).tolist()
    [1.0, 0.5, 0.0]
    """
    first_P, second_P = score_P2[:, 0], score_P2[:, 1]
    won_P: Floats = (first_P > second_P) + 0.5 * (first_P == second_P)
    return won_P


def pooled_auc(score_P: npt.NDArray[Any], positive_P: Bools) -> tuple[float, float]:
    """Return the area under the ROC curve (ties half) and its standard error.

    Source of the error: DeLong, DeLong and Clarke-Pearson, *Biometrics* 44 (1988): the variance over the positives of
    the share of negatives below each, and the same the other way round. It takes rows as independent.

    >>> pooled_auc(np.array([0.9, 0.4, 0.5, 0.1]), np.array([True, True, False, False]))[0]
    0.75

    Args:
        score_P: scores of one pool.
        positive_P: the labels, both kinds present.
    """
    score_A, score_C = score_P[positive_P], score_P[~positive_P]
    above_A = _share_below(score_A, score_C)
    below_C = 1 - _share_below(score_C, score_A)
    variance = sum(
        float(share.var(ddof=1)) / len(share) if len(share) > 1 else 0.25 for share in (above_A, below_C)
    )  # of one row alone nothing is known
    return float(above_A.mean()), float(np.sqrt(variance))


def _share_below(score_A: npt.NDArray[Any], score_C: npt.NDArray[Any]) -> Floats:
    """For each of the first scores the share of the second that lie below it, ties half."""
    ordered_C = np.sort(score_C)
    below_A = np.searchsorted(ordered_C, score_A, side="left") + np.searchsorted(ordered_C, score_A, side="right")
    return below_A / (2 * len(score_C))


def items_of_pairs(pairs: pl.DataFrame) -> Ints:
    """Return target and negative, int64 [P, 2]."""
    return pairs.select("target", "negative").to_numpy().astype(np.int64)


def scores_of_pairs(ranked_P2: Ints, score_P2: npt.NDArray[Any], target_P: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the scores of target and negative [P, 2] of pairs written as ranked lists of two.

    >>> scores_of_pairs(np.array([[7, 3], [4, 7]]), np.array([[-1.0, -2.0], [-1.0, -2.0]]), np.array([7, 7])).tolist()
    [[-1.0, -2.0], [-2.0, -1.0]]
    """
    return np.where(ranked_P2[:, :1] == target_P[:, None], score_P2, score_P2[:, ::-1])


def floor_of_pairs(dataset: Dataset, split: str, pairs: pl.DataFrame, counts_I: Ints) -> dict[str, Ints]:
    """Return the scores of target and negative [P, 2] of the floor rows.

    With the popularity among all histories at hand, where no user's history holds another's target.
    """
    rows = floor_scores(dataset.windows("train"), counts_I, pairs, items_of_pairs(pairs))
    windows = dataset.windows(split)
    if split == "train" or windows["user_id"].is_duplicated().any():
        return rows
    shown = windows["history"].explode(empty_as_null=False).to_numpy()
    with_shown_I = counts_I + np.bincount(shown, minlength=len(counts_I))
    popularity = rows.pop("popularity")
    return {"popularity": popularity, "popularity, all histories": with_shown_I[items_of_pairs(pairs)], **rows}

"""What methods answered to the same windows, as arrays, and what each metric says about every window.

Shapes: W windows (pairs, in the protocol of pairs), K places of a ranked list, N candidates.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.data.dataset import Dataset
from catalign.errors import UserError
from catalign.evaluation.candidates_protocol import rank_by_scores
from catalign.evaluation.draws import draw_candidates
from catalign.evaluation.floor import floor_rankings
from catalign.evaluation.floor_candidates import floor_scores
from catalign.evaluation.metrics import NO_ITEM, metric_of_ranks, ranks_of_targets, split_name
from catalign.evaluation.pairs_protocol import (
    floor_of_pairs,
    items_of_pairs,
    paired_wins,
    pairs_of_windows,
    scores_of_pairs,
)
from catalign.evaluation.predictions import draw_windows, ranked_array, scores_array
from catalign.evaluation.records import Evaluation, differing_windows

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DEFAULT_METRIC = {"full": "ndcg@10", "candidates": "hr@1", "pairs": "accuracy"}
OWN_METRIC = {"full": None, "candidates": "valid_ratio", "pairs": "accuracy"}


@dataclass(frozen=True)
class Task:
    """What all rows of a comparison were asked.

    Attributes:
        dataset: where the windows come from.
        protocol: `full`, `candidates` or `pairs`.
        settings: of the first evaluation: split, draws, filter.
        windows: `window`, `user_id`, `history`, `target`, and with pairs `negative`; in the order of the predictions.
        counts_I: training counts of the items.
        candidate_WN: the drawn candidates, in the protocol of that name.
    """

    dataset: Dataset
    protocol: str
    settings: dict[str, Any]
    windows: pl.DataFrame
    counts_I: Ints
    candidate_WN: Ints | None

    @property
    def split(self) -> str:
        """Which windows."""
        return str(self.settings["split"])

    @property
    def target_W(self) -> Ints:
        """The targets."""
        return self.windows["target"].to_numpy().astype(np.int64)

    @property
    def user_W(self) -> npt.NDArray[Any]:
        """The users, who are drawn together with all their windows."""
        return self.windows["user_id"].to_numpy()


@dataclass(frozen=True)
class Answers:
    """What one run, or one floor row, answered.

    Attributes:
        ranked_WK: item indices, best first, filled up with `NO_ITEM`.
        score_WK: their scores, nan where there is none.
    """

    ranked_WK: Ints
    score_WK: Floats


def task_of(evaluation: Evaluation, dataset: Dataset) -> Task:
    """Find the windows of an evaluation in the dataset, histories and all.

    Raises:
        UserError: the dataset has other windows.
    """
    settings, counts_I = evaluation.settings, dataset.training_counts()
    if "split" not in settings:
        raise UserError("does not say which split it predicts", where=evaluation.folder / "predictions.json")
    protocol = evaluation.protocol if evaluation.protocol in ("full", "pairs") else "candidates"
    asked = evaluation.predictions.select("window", "user_id", "target")
    every = dataset.windows(settings["split"])
    if protocol == "pairs":
        drawn = draw_windows(every, settings["windows"], settings["seed"])
        rows = pairs_of_windows(drawn, dataset, counts_I, settings["seed"])
    else:
        rows = every.with_row_index("window")
    known = rows.join(asked.select("window"), on="window", how="semi", maintain_order="left")
    differences = differing_windows(asked, known.select("window", "user_id", "target"))
    if len(known) != len(asked):
        differences.insert(0, f"{len(asked) - len(known):,} windows are not there")
    if differences:
        what = f"has other {settings['split']} windows than {evaluation.folder}: {', '.join(differences)}"
        raise UserError(what, where=dataset.folder, mend="give the dataset of the predictions with --dataset")
    candidate_WN = None
    if protocol == "candidates":
        count, seed = settings.get("candidates") or int(evaluation.protocol.rpartition(" ")[2]), settings["seed"]
        candidate_WN = draw_candidates(known, dataset.items, counts_I, count, seed)
    return Task(dataset, protocol, settings, known, counts_I, candidate_WN)


def answers_of(evaluation: Evaluation, task: Task) -> Answers:
    """Return the predictions as arrays.

    Raises:
        UserError: an item is not in the catalogue or stands twice in one list.
    """
    depth, predictions = int(evaluation.settings["depth"]), evaluation.predictions
    if predictions["ranked"].list.len().max() > depth:  # type: ignore[operator]
        raise UserError(f"holds lists of more than {depth} items", where=evaluation.folder, mend="evaluate anew")
    ranked_WK = ranked_array(predictions["ranked"], depth)
    outside_W = (ranked_WK >= len(task.counts_I)).any(axis=1)
    if outside_W.any():
        first = int(predictions["window"][int(outside_W.argmax())])
        what = f"{outside_W.sum():,} windows (the first: {first}) hold items that a catalogue of "
        raise UserError(f"{what}{len(task.counts_I):,} items does not have", where=evaluation.folder)
    try:
        ranks_of_targets(ranked_WK, task.target_W)
    except ValueError as error:
        raise UserError(str(error), where=evaluation.folder, mend="evaluate anew") from error
    return Answers(ranked_WK, scores_array(predictions["scores"], depth))


def floor_answers(task: Task, depth: int) -> dict[str, Answers]:
    """Return what the floor rows answer to the windows, with the filter of the first evaluation.

    Args:
        task: the windows.
        depth: length of the lists, in the protocol of the full catalogue.
    """
    train = task.dataset.windows("train")
    if task.protocol == "full":
        exclude = bool(task.settings.get("exclude_history", False))
        rankings = floor_rankings(train, task.counts_I, task.windows, depth=depth, exclude_history=exclude)
        return {name: Answers(ranked, np.full(ranked.shape, np.nan)) for name, ranked in rankings.items()}
    if task.protocol == "pairs":
        item_WN = items_of_pairs(task.windows)
        scores = floor_of_pairs(task.dataset, task.split, task.windows, task.counts_I)
    else:
        assert task.candidate_WN is not None
        item_WN = task.candidate_WN
        scores = floor_scores(train, task.counts_I, task.windows, item_WN)
    return {
        name: Answers(rank_by_scores(item_WN, score_WN), -np.sort(-score_WN.astype(np.float64), axis=1))
        for name, score_WN in scores.items()
    }


def check_metrics(names: list[str], task: Task, depth: int) -> None:
    """Refuse metrics that these predictions do not have.

    Raises:
        UserError: no such metric, one of another protocol, or a cutoff beyond the length of the lists.
    """
    for name in names:
        if name == OWN_METRIC[task.protocol]:
            continue
        if task.protocol == "pairs" or name in OWN_METRIC.values():
            own = OWN_METRIC[task.protocol] or DEFAULT_METRIC[task.protocol]
            raise UserError(f"the protocol {task.protocol} has no {name}", where="--metric", mend=f"choose {own}")
        _, cutoff = split_name(name)
        if cutoff > depth:
            raise UserError(f"{name} needs lists of {cutoff} items, the shortest are of {depth}", where="--metric")


def values_of(name: str, answers: Answers, task: Task) -> Floats:
    """Return a metric of every window, float64 [W].

    Args:
        name: `hr@k`, `ndcg@k`, `mrr@k` or another name of these; `valid_ratio` among candidates; `accuracy` of pairs.
        answers: of one method.
        task: the windows.
    """
    if name == "accuracy":
        return paired_wins(scores_of_pairs(answers.ranked_WK, answers.score_WK, task.target_W))
    if name == "valid_ratio":
        assert task.candidate_WN is not None
        first_W1 = answers.ranked_WK[:, :1]
        valid_W: Floats = ((task.candidate_WN == first_W1) & (first_W1 != NO_ITEM)).any(axis=1).astype(np.float64)
        return valid_W
    return metric_of_ranks(name, ranks_of_targets(answers.ranked_WK, task.target_W))

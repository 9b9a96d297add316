"""Do the attributions say what the model does? History items are deleted and the recommended item is scored again.

For every window the item recommended first is explained; then its history loses one item after the other, in the order
of the attributions, at random, or from the end. The faster the score falls, the more the order knows (deletion curve:
Samek et al., *Evaluating the visualization of what a deep neural network has learned*, 2017; comprehensiveness: DeYoung
et al., *ERASER*, 2020). After one deletion the attributions win by construction, because that very deletion is what
they are; how they do after two and more is not built in: it says whether items act together.

Legend: W windows, D deletions, H shown items of a history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.decoding.candidates import score_behind_prompts
from catalign.decoding.recommend import CatalogueSearch
from catalign.errors import UserError
from catalign.evaluation.intervals import bootstrap_interval
from catalign.evaluation.predictions import draw_windows
from catalign.explain.attribution import attribute
from catalign.progress import progress_bar
from catalign.prompting.prompter import Prompter

Floats = npt.NDArray[np.float64]
WINDOWS_AT_ONCE = 16
ORDERS = ("attributed", "random", "latest first")


@dataclass(frozen=True)
class _Deleted:
    """What deleting did, one row per window.

    Attributes:
        drop_WD: by how much the log-probability of the recommended item fell, below 0 if it rose.
        first_WD: whether the item is still recommended first.
    """

    drop_WD: Floats
    first_WD: Floats


def measure_faithfulness(
    search: CatalogueSearch, windows: pl.DataFrame, *, count: int | None, deletions: int, seed: int
) -> dict[str, Any]:
    """Delete history items in three orders and compare how the recommended item suffers.

    Args:
        search: model, prompter and score mode; what was in the whole history is never recommended.
        windows: `user_id` and `history`; those whose prompt shows at least `deletions` + 1 items are used.
        count: how many of them are drawn; None takes all.
        deletions: D, steps of the curve.
        seed: of the draw and of the random order.

    Returns:
        For every order the mean `drop` and the share `still_first` after 1 to D deletions; for the attributions against
        either other order the mean difference of the drops; everything with its 95 % interval, bootstrap over users.

    Raises:
        UserError: no window is long enough.
    """
    prompter = search.prompter
    long_enough = windows.filter(pl.col("history").list.len() > deletions)
    drawn = draw_windows(long_enough, count, seed)
    shown = [[int(item) for item in prompter.shown(history)] for history in drawn["history"].to_list()]
    keep = np.array([len(history) > deletions for history in shown], dtype=np.bool_)
    drawn, shown = drawn.filter(pl.Series(keep)), [history for history in shown if len(history) > deletions]
    if not shown:
        raise UserError(f"no window shows more than {deletions} items", where="the windows",
                        mend="ask for fewer --deletions")  # fmt: skip
    first, moved = _explain_first(search, shown)
    generator = np.random.default_rng(seed)
    orders = {
        "attributed": [np.argsort(-moved_H, kind="stable") for moved_H in moved],
        "random": [generator.permutation(len(history)) for history in shown],
        "latest first": [np.arange(len(history))[::-1] for history in shown],
    }
    deleted = {name: _delete(search, shown, first, order, deletions) for name, order in orders.items()}
    users = drawn["user_id"].to_numpy()
    attributed = deleted["attributed"].drop_WD
    return {
        "windows": len(shown),
        "shown_items": float(np.mean([len(history) for history in shown])),
        "orders": {
            name: {"drop": _with_interval(found.drop_WD, users), "still_first": _with_interval(found.first_WD, users)}
            for name, found in deleted.items()
        },
        "more_than": {
            name: _with_interval(attributed - deleted[name].drop_WD, users) for name in ORDERS if name != "attributed"
        },
        # The random order's first item is a draw from the history: how often is deleting the top one at least as bad?
        "top_at_least_random": float((attributed[:, 0] >= deleted["random"].drop_WD[:, 0] - 1e-4).mean()),
    }


def _explain_first(search: CatalogueSearch, shown: list[list[int]]) -> tuple[list[int], list[npt.NDArray[np.float32]]]:
    """The item recommended first to each, and what each item of the history moved its score by."""
    first = _recommended(search, shown, shown)
    moved = []
    with progress_bar() as progress:
        task = progress.add_task("explaining", total=len(shown), note="")
        for start in range(0, len(shown), WINDOWS_AT_ONCE):
            part = slice(start, start + WINDOWS_AT_ONCE)
            items = [[item] for item in first[part]]
            found = attribute(search.model, search.prompter, shown[part], items, score=search.score)
            moved += [attribution.moved_HT[:, 0] for attribution in found]
            progress.advance(task, len(items))
    return first, moved


def _recommended(search: CatalogueSearch, histories: list[list[int]], excluded: list[list[int]]) -> list[int]:
    """The first item for each history."""
    first = np.full(len(histories), -1)
    for numbers, items, _ in search.recommend(histories, 1, excluded):
        first[numbers] = items[:, 0]
    return [int(item) for item in first]


def _delete(
    search: CatalogueSearch, shown: list[list[int]], first: list[int], orders: Sequence[Any], deletions: int
) -> _Deleted:
    """Shorten every history step by step in the given order and look at its recommended item."""
    score_0 = _scores(search, shown, first)
    drop_WD = np.zeros((len(shown), deletions))
    first_WD = np.zeros((len(shown), deletions))
    for step in range(1, deletions + 1):
        shortened = [
            [history[place] for place in np.sort(order[step:])] for history, order in zip(shown, orders, strict=True)
        ]
        drop_WD[:, step - 1] = score_0 - _scores(search, shortened, first)
        first_WD[:, step - 1] = np.array(_recommended(search, shortened, shown)) == np.array(first)
    return _Deleted(drop_WD, first_WD)


def _scores(search: CatalogueSearch, histories: list[list[int]], items: list[int]) -> Floats:
    """Log-probability of one item for each history, which is written as it is."""
    prompter: Prompter = search.prompter
    scores = []
    for start in range(0, len(histories), WINDOWS_AT_ONCE):
        part = slice(start, start + WINDOWS_AT_ONCE)
        prompts = [prompter.write(history) for history in histories[part]]
        asked = [[item] for item in items[part]]
        scores += score_behind_prompts(search.model, prompter, prompts, asked, score=search.score)
    return np.concatenate(scores).astype(np.float64)


def _with_interval(values_WD: Floats, users: npt.NDArray[Any]) -> list[dict[str, Any]]:
    """Mean and 95 % interval of every column."""
    interval_D2 = bootstrap_interval(values_WD, users)
    return [
        {"mean": float(mean), "ci95": [float(low), float(high)]}
        for mean, (low, high) in zip(values_WD.mean(axis=0), interval_D2, strict=True)
    ]

"""Train a baseline, choose its hyper-parameters and epoch on validation windows, predict. Runs outside catalign.

    python worker.py JOB

The interpreter is that of the library's own environment, so nothing of catalign is imported here. JOB is a folder:

    job.json              settings, see `catalign.baselines.job.write_job`
    train.parquet         user, item, milliseconds (null if unknown): each user's rows together and in time order
    valid.parquet, predict.parquet   window, item: the histories, each window's rows together and in time order
    targets.parquet       window, target: of the validation windows, one row each
    asked.parquet         window: those to predict for

and receives

    valid-predictions.parquet, predictions.parquet   window, ranked, scores: the lists, best first, of the chosen trial
    embeddings.parquet    item, embedding: of the chosen trial, where the method has such
    result.json           the trials with their scores; written last

Progress goes to standard output, one JSON object a line; what the libraries print goes to standard error.

Shapes: W windows, K places of a ranked list, N rows of a table, I trained items, D size of an embedding.
"""

import importlib
import itertools
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

Array = npt.NDArray[Any]
Ranked = tuple[Array, Array, Array, Array]
"""Row, place (from 0), item and score of every recommended item, [N] each."""

NO_ITEM = -1
TOP = 10  # the trial and the epoch with the highest NDCG@TOP on the validation windows are chosen


@dataclass(frozen=True)
class Train:
    """The training interactions, rows of a user together and in time order.

    Attributes:
        user_N: integers.
        item_N: item indices.
        milliseconds_N: since 1970, NaN where unknown.
    """

    user_N: Array
    item_N: Array
    milliseconds_N: Array

    def popular(self) -> tuple[Array, Array]:
        """The trained items, most frequent first, equal counts in index order; and their counts."""
        items, counts = np.unique(self.item_N, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return items[order], counts[order]


@dataclass(frozen=True)
class Windows:
    """Histories to recommend for, without the items that training never showed.

    Attributes:
        name_W: the windows' numbers, as the caller knows them.
        row_N: place in `name_W` of each history item, ascending.
        item_N: the items, each window's in time order.
    """

    name_W: Array
    row_N: Array
    item_N: Array


class Model(Protocol):
    """What `build` of a library's methods returns; `epochs` says that it is fitted epoch by epoch."""

    epochs: bool

    def fit(self) -> None:
        """Fit it, or train one epoch more."""

    def recommend(self, windows: Windows, depth: int, exclude: bool) -> Ranked:
        """Rank for every window that has a history, without its items if `exclude`."""

    def state(self) -> Any:
        """What the epochs so far taught; None where there is but one."""

    def restore(self, state: Any) -> None:
        """Go back to a state."""

    def embeddings(self) -> tuple[Array, Array] | None:
        """The trained items [I] and their vectors [I, D], if it has such."""


def main() -> None:
    """Run one job."""
    progress = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print on standard output
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    methods = importlib.import_module(f"{job['library']}_methods")

    def say(**event: Any) -> None:
        progress.write(json.dumps(event) + "\n")

    table = pl.read_parquet(folder / "train.parquet")
    milliseconds = table["milliseconds"].cast(pl.Float64).fill_null(float("nan"))
    train = Train(table["user"].to_numpy(), table["item"].to_numpy(), milliseconds.to_numpy())
    targets, asked = (pl.read_parquet(folder / f"{name}.parquet") for name in ("targets", "asked"))
    valid = read_windows(folder / "valid.parquet", targets["window"].to_numpy(), train)
    started = time.monotonic()
    best, trials = search(methods, job, train, valid, targets["target"].to_numpy(), say)
    say(event="predicting")
    predicted = read_windows(folder / "predict.parquet", asked["window"].to_numpy(), train)
    write_lists(folder / "valid-predictions.parquet", valid, *rank(best, valid, train, job))
    write_lists(folder / "predictions.parquet", predicted, *rank(best, predicted, train, job))
    write_embeddings(folder / "embeddings.parquet", best)
    result = {
        "trials": trials,
        "seconds": round(time.monotonic() - started, 1),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in methods.PACKAGES},
    }
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def search(
    methods: Any, job: dict[str, Any], train: Train, valid: Windows, target_W: Array, say: Callable[..., None]
) -> tuple[Model, list[dict[str, Any]]]:
    """Try hyper-parameters and return the model of the best trial at its best epoch, and what was tried.

    Every trial may use an equal share of the seconds that are left; what is begun ends its epoch, so the first trial
    always has one, and a method without epochs is not cut short.
    """
    drawn = draw_trials(methods.GRIDS[job["method"]], job["trials"], job["seed"])
    deadline = time.monotonic() + (math.inf if job["seconds"] is None else job["seconds"])
    best: Model | None = None
    best_score = -1.0
    trials: list[dict[str, Any]] = []
    for number, parameters in enumerate(drawn):
        start = time.monotonic()
        if trials and start >= deadline:
            break
        until = start + (deadline - start) / (len(drawn) - number)
        model: Model = methods.build(job["method"], parameters, train, job)
        scores: list[float] = []
        state = None
        for epoch in range(1, (job["epochs"] if model.epochs else 1) + 1):
            model.fit()
            scores.append(ndcg(rank(model, valid, train, job)[0], target_W))
            chosen = int(np.argmax(scores)) + 1
            if chosen == epoch:
                state = model.state()
            reached = max(best_score, *scores)
            say(event="epoch", trial=number + 1, trials=len(drawn), epoch=epoch, score=scores[-1], best=reached)
            if epoch - chosen >= job["patience"] or time.monotonic() >= until:
                break
        trials.append(
            {
                "parameters": parameters,
                "ndcg@10": max(scores),
                **({"epoch": chosen, "by_epoch": scores} if model.epochs else {}),
                "seconds": round(time.monotonic() - start, 1),
            }
        )
        if max(scores) > best_score:
            model.restore(state)
            best, best_score = model, max(scores)
    assert best is not None
    return best, trials


def draw_trials(grid: dict[str, list[Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """Return `count` points of the grid: the first values of all, then others drawn without replacement."""
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    rest = 1 + np.random.default_rng(seed).permutation(len(points) - 1)
    return [points[0], *(points[place] for place in rest[: count - 1])]


def read_windows(path: Path, name_W: Array, train: Train) -> Windows:
    """Read the histories of the windows `name_W`, keeping the items that training knows."""
    table = pl.read_parquet(path)
    window_N, item_N = table["window"].to_numpy(), table["item"].to_numpy()
    known_N = np.isin(item_N, train.item_N)
    by_name = np.argsort(name_W)
    row_N = by_name[np.searchsorted(name_W, window_N[known_N], sorter=by_name)]
    order_N = np.argsort(row_N, kind="stable")
    return Windows(name_W, row_N[order_N], item_N[known_N][order_N])


def rank(model: Model, windows: Windows, train: Train, job: dict[str, Any]) -> tuple[Array, Array]:
    """Return the lists of all windows, int64 and float32 [W, K]; popularity stands in where no item is known."""
    ranked_WK = np.full((len(windows.name_W), job["depth"]), NO_ITEM, dtype=np.int64)
    score_WK = np.zeros(ranked_WK.shape, dtype=np.float32)
    items, counts = (column[: job["depth"]] for column in train.popular())
    ranked_WK[:, : len(items)], score_WK[:, : len(items)] = items, counts
    known = np.unique(windows.row_N)
    if len(known):
        ranked_WK[known], score_WK[known] = NO_ITEM, 0.0
        row_N, place_N, item_N, score_N = model.recommend(windows, job["depth"], job["exclude_history"])
        ranked_WK[row_N, place_N], score_WK[row_N, place_N] = item_N, score_N
    return ranked_WK, score_WK


def ndcg(ranked_WK: Array, target_W: Array) -> float:
    """Mean NDCG@TOP with one target: 1 / log2(place + 1), places from 1. catalign recomputes it and compares."""
    hit_WK = ranked_WK[:, :TOP] == target_W[:, None]
    return float((hit_WK / np.log2(np.arange(hit_WK.shape[1]) + 2.0)).sum() / len(target_W))


def write_lists(path: Path, windows: Windows, ranked_WK: Array, score_WK: Array) -> None:
    """Write one row a window, the lists without filling."""
    length_W = (ranked_WK != NO_ITEM).sum(axis=1)
    lists = pl.DataFrame({"ranked": ranked_WK, "scores": score_WK, "length": length_W}).select(
        pl.col("ranked").arr.to_list().list.head(pl.col("length")),
        pl.col("scores").arr.to_list().list.head(pl.col("length")),
    )
    lists.insert_column(0, pl.Series("window", windows.name_W)).write_parquet(path)


def write_embeddings(path: Path, model: Model) -> None:
    """Write one row an item, if the model has embeddings."""
    embeddings = model.embeddings()
    if embeddings is not None:
        item_I, vector_ID = embeddings
        vectors = pl.Series(vector_ID.astype(np.float32)).arr.to_list()
        pl.DataFrame({"item": item_I, "embedding": vectors}).write_parquet(path)


if __name__ == "__main__":
    main()

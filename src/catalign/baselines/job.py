"""One job of a baseline's worker: the tables it gets, its progress, the tables it returns.

The worker (`workers/worker.py`) runs in the environment of its library and cannot import catalign, so the two talk by
files in a folder, which the worker's docstring lists, and by lines of JSON on the worker's standard output.

Shapes: W windows, K places of a ranked list.
"""

import json
import os
import subprocess
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.errors import UserError
from catalign.evaluation.metrics import ndcg, ranks_of_targets
from catalign.evaluation.predictions import ranked_array
from catalign.files import read_json, write_json

WORKER = Path(__file__).parent / "workers" / "worker.py"
LISTS: dict[str, Any] = {"window": pl.UInt32, "ranked": pl.List(pl.UInt32), "scores": pl.List(pl.Float32)}
EMBEDDINGS: dict[str, Any] = {"item": pl.UInt32, "embedding": pl.List(pl.Float32)}
_SAME = 1e-6  # the worker sums in another order than we do
_WAKE_SECONDS = 0.2


@dataclass(frozen=True)
class Answers:
    """What a worker returned.

    Attributes:
        ranked_WK: item indices for the windows asked for, in their order, filled up with `NO_ITEM`.
        scores_WK: their scores.
        embeddings: `item`, `embedding`; None where the method has none.
        search: `trials`, `seconds`, `versions`.
        valid: NDCG@10 of the chosen trial and epoch on the validation windows, by our own metrics.
    """

    ranked_WK: npt.NDArray[np.int64]
    scores_WK: npt.NDArray[np.float32]
    embeddings: pl.DataFrame | None
    search: dict[str, Any]
    valid: float


def write_job(
    folder: Path, settings: dict[str, Any], interactions: pl.DataFrame, valid: pl.DataFrame, asked: pl.DataFrame
) -> None:
    """Write what a worker reads.

    Args:
        folder: an empty folder.
        settings: `library`, `method`, `trials`, `seconds`, `epochs`, `patience`, `seed`, `depth`, `exclude_history`,
            `history` (the most items of a history that are shown).
        interactions: `user_id`, `item`, `timestamp`, `split`; only those of training are handed over.
        valid: `window`, `history`, `target`: what the choice is made on.
        asked: `window`, `history`: what is predicted.
    """
    train = interactions.filter(pl.col("split") == "train").select(
        user=pl.col("user_id").rank("dense"), item="item", milliseconds="timestamp"
    )
    train.write_parquet(folder / "train.parquet")
    valid.select("window", "target").write_parquet(folder / "targets.parquet")
    asked.select("window").write_parquet(folder / "asked.parquet")
    for windows, name in ((valid, "valid"), (asked, "predict")):
        shown = windows.select("window", item=pl.col("history").list.tail(settings["history"]))
        shown.explode("item", empty_as_null=False).write_parquet(folder / f"{name}.parquet")
    write_json(folder / "job.json", settings)


def run_worker(python: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Run a job and yield what the worker tells; leaving the loop early ends the worker.

    Raises:
        UserError: it cannot be started, tells nonsense, or fails; `folder/worker.log` has all that it printed.
    """
    log = folder / "worker.log"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("w", encoding="utf-8") as errors:
        try:
            worker = subprocess.Popen(
                [str(python), str(WORKER), str(folder)], stdout=subprocess.PIPE, stderr=errors, text=True,
                encoding="utf-8", errors="replace", env=environment,
            )  # fmt: skip
        except OSError as error:
            raise UserError(f"cannot be started ({error.strerror})", where=python) from error
        assert worker.stdout is not None
        try:
            for line in _lines(worker.stdout):
                yield _event(line)
            code = worker.wait()
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
            worker.stdout.close()
    if code:
        last = deque((line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()), maxlen=1)
        reason = last[0].strip() if last else "it printed nothing"
        raise UserError(f"the worker ended with code {code} ({reason})")


def read_answers(folder: Path, valid: pl.DataFrame, asked: pl.DataFrame, *, items: int, depth: int) -> Answers:
    """Read and check what a worker wrote.

    Args:
        folder: the job's.
        valid: as in `write_job`.
        asked: as in `write_job`.
        items: size of the catalogue.
        depth: the longest list allowed.

    Raises:
        UserError: a file is missing or of another shape, windows are not those asked for, lists are no rankings, or
            the validation score is not the one that the choice was made by.
    """
    search = read_json(folder / "result.json")
    ranked_WK, scores_WK = _read_lists(folder / "predictions.parquet", asked["window"], items, depth)
    valid_WK, _ = _read_lists(folder / "valid-predictions.parquet", valid["window"], items, depth)
    try:
        rank_W = ranks_of_targets(valid_WK, valid["target"].to_numpy().astype(np.int64))
        ranks_of_targets(ranked_WK, np.zeros(len(ranked_WK), dtype=np.int64))  # refuses lists that are no rankings
    except ValueError as error:
        raise UserError(f"is no ranking ({error})", where="the worker's answer") from error
    score = float(ndcg(rank_W, 10).mean())
    chosen = max(trial["ndcg@10"] for trial in search["trials"])
    if abs(score - chosen) > _SAME:
        what = f"its lists have NDCG@10 {score:.6f} on the validation windows, and it chose by {chosen:.6f}"
        raise UserError(what, where="the worker's answer")
    path = folder / "embeddings.parquet"
    return Answers(ranked_WK, scores_WK, _read(path, EMBEDDINGS) if path.exists() else None, search, score)


def _lines(stream: IO[str]) -> Iterator[str]:
    """Yield the lines of a pipe, waking now and then: polars' handling of Ctrl-C lets a blocked read go on."""
    lines: SimpleQueue[str | None] = SimpleQueue()

    def pump() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    Thread(target=pump, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=_WAKE_SECONDS)
        except Empty:
            continue
        if line is None:
            return
        yield line


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        event = None
    if not isinstance(event, dict):
        raise UserError(f"told something else than its progress: {line.strip()[:80]!r}", where="the worker")
    return event


def _read(path: Path, schema: dict[str, Any]) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
        return frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path.name} is missing or of another shape", where="the worker's answer") from error


def _read_lists(
    path: Path, windows: pl.Series, items: int, depth: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return ranked lists and scores [W, depth] of the windows, in their order."""
    lists = _read(path, LISTS)
    if len(lists) != len(windows) or not lists["window"].sort().equals(windows.cast(pl.UInt32).sort()):
        raise UserError(f"{path.name} holds other windows than were asked for", where="the worker's answer")
    lists = windows.cast(pl.UInt32).to_frame("window").join(lists, on="window", how="left", maintain_order="left")
    length = lists["ranked"].list.len()
    if not length.equals(lists["scores"].list.len()) or int(length.to_numpy().max(initial=0)) > depth:
        raise UserError(f"{path.name} holds lists of another length", where="the worker's answer")
    ranked_WK = ranked_array(lists["ranked"], depth)
    if ranked_WK.max(initial=-1) >= items:
        raise UserError(f"{path.name} names items outside the catalogue", where="the worker's answer")
    scores_WK = np.full(ranked_WK.shape, -np.inf, dtype=np.float32)
    scores_WK[ranked_WK >= 0] = lists["scores"].explode(empty_as_null=False).to_numpy()
    return ranked_WK, scores_WK

"""Predictions streamed to Parquet while an evaluation runs: it can be interrupted, and needs no model to be recomputed.

Shapes: W windows asked for, B windows of one batch, K places of a ranked list, I items.

A predictions folder holds

    predictions.json    what produced them: split, beams, score mode, checkpoint, ... and `depth`, the length asked for
    windows.parquet     what was asked for: window (UInt32 row number in the split's windows), user_id, target (UInt32)
    part-00000.parquet  one batch: window, user_id, target, ranked (List(UInt32), best first), scores (List(Float32))

Each part is written beside its place and renamed, so a kill leaves whole parts only. Several processes share the users
among them and write parts of their own.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign import processes
from catalign.data.writing import write_parquet
from catalign.errors import UserError
from catalign.evaluation.metrics import NO_ITEM, ranks_of_targets, summarise
from catalign.files import read_json, whole_file, write_json

Ints = npt.NDArray[np.int64]

_ASKED: dict[str, pl.DataType | type[pl.DataType]] = {"window": pl.UInt32, "user_id": pl.String, "target": pl.UInt32}
_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    **_ASKED,
    "ranked": pl.List(pl.UInt32),
    "scores": pl.List(pl.Float32),
}


def draw_windows(windows: pl.DataFrame, count: int | None, seed: int) -> pl.DataFrame:
    """Return `count` windows drawn without replacement, in their own order, with their row number in a column `window`.

    All of them where `count` is None or not below the number of windows.
    """
    numbered = windows.with_row_index("window")
    if count is None or count >= len(windows):
        return numbered
    rows = np.sort(np.random.default_rng(seed).choice(len(windows), size=count, replace=False))
    return numbered[rows]


class PredictionWriter:
    """Writes predictions part by part, and takes up again where an interrupted evaluation stopped.

    Attributes:
        left: the rows of `asked` that have no prediction yet, in order, with all their columns; of several processes
            each has those of its share of the users.
    """

    def __init__(self, folder: Path, expected: dict[str, Any], asked: pl.DataFrame, *, depth: int) -> None:
        """Open a new folder, or resume one.

        Args:
            folder: the predictions folder.
            expected: what produces them: split, beams, score mode, checkpoint, dataset hash, window sample.
            asked: the windows to predict, from `draw_windows`: window, user_id, target; other columns pass through.
            depth: how many items each list is asked for.

        Raises:
            UserError: the folder holds predictions of other settings or windows, or parts without settings.
        """
        self.folder = Path(folder)
        settings = {**expected, "depth": depth}
        if (self.folder / "predictions.json").exists():
            refuse_difference(self.folder, read_settings(self.folder), settings)
            if not _read(self.folder / "windows.parquet").equals(_asked_columns(asked)):
                mend = "choose another folder or remove this one"
                raise UserError("holds predictions of other windows", where=self.folder, mend=mend)
            done = _read_parts(self.folder)
        else:
            if _parts(self.folder):
                raise UserError("holds parts but no predictions.json", where=self.folder, mend="choose another folder")
            if processes.is_main():
                with whole_file(self.folder / "windows.parquet") as partial:
                    write_parquet(_asked_columns(asked), partial)
                write_json(self.folder / "predictions.json", settings)  # last: its presence marks a folder to resume
            done = pl.DataFrame(schema=_SCHEMA)
        if processes.is_main():
            for leftover in self.folder.glob(".part-*.partial-*"):  # of a killed evaluation
                leftover.unlink()
        self.depth = depth
        self.left = _of_this_process(asked.join(done.select("window"), on="window", how="anti", maintain_order="left"))
        numbers = [int(part.stem.removeprefix("part-")) for part in _parts(self.folder)]
        self._next = max(numbers, default=-1) + 1 + processes.rank()
        processes.wait_for_all()  # each has seen the same parts

    def write(self, batch: pl.DataFrame, ranked_BK: Ints, scores_BK: npt.NDArray[np.floating[Any]]) -> None:
        """Append one part.

        Args:
            batch: rows of `left`.
            ranked_BK: item indices, best first, K <= depth, filled up with `NO_ITEM`.
            scores_BK: the items' scores.

        Raises:
            ValueError: shapes that disagree, or a window that is not left.
        """
        if ranked_BK.shape != scores_BK.shape or len(ranked_BK) != len(batch) or ranked_BK.shape[1] > self.depth:
            raise ValueError(
                f"{len(batch)} windows, ranked {ranked_BK.shape}, scores {scores_BK.shape}, depth {self.depth}"
            )
        left = self.left.join(batch.select("window"), on="window", how="anti", maintain_order="left")
        if len(left) != len(self.left) - len(batch):
            raise ValueError("a window of this batch was not asked for or is already written")
        length_B = (ranked_BK != NO_ITEM).sum(axis=1)
        lists = pl.DataFrame({"ranked": ranked_BK, "scores": scores_BK, "length": length_B}).select(
            pl.col(name).arr.to_list().list.head(pl.col("length")).cast(_SCHEMA[name]) for name in ("ranked", "scores")
        )
        with whole_file(self.folder / f"part-{self._next:05d}.parquet") as partial:
            write_parquet(pl.concat([_asked_columns(batch), lists], how="horizontal"), partial)
        self._next += processes.count()
        self.left = left

    def finish(self) -> None:
        """Return when the parts of all processes are there.

        Raises:
            ValueError: this process has windows left.
        """
        if len(self.left):
            raise ValueError(f"{len(self.left):,} windows are left")
        processes.wait_for_all()


def _of_this_process(left: pl.DataFrame) -> pl.DataFrame:
    """The rows of this process's share of the users, so that windows of one user meet in one process."""
    if processes.count() == 1:
        return left
    users = left["user_id"].unique(maintain_order=True)
    return left.filter(pl.col("user_id").is_in(users[processes.share(np.arange(len(users)))].implode()))


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what produced the predictions in `folder`.

    Raises:
        UserError: not a predictions folder.
    """
    settings = read_json(Path(folder) / "predictions.json")
    if not isinstance(settings, dict) or not isinstance(settings.get("depth"), int):
        raise UserError("not the settings of predictions", where=Path(folder) / "predictions.json")
    return settings


def read_predictions(folder: Path) -> pl.DataFrame:
    """Return all predictions, one row per window asked for, in the order asked for.

    Raises:
        UserError: a window is missing, stands twice, or was not asked for; a part cannot be read.
    """
    folder = Path(folder)
    read_settings(folder)
    asked = _read(folder / "windows.parquet")
    predictions = _read_parts(folder)
    missing = asked.join(predictions, on="window", how="anti", maintain_order="left")
    if len(missing):
        what = f"{len(missing):,} of {len(asked):,} windows have no prediction (the first: {missing['window'][0]})"
        raise UserError(what, where=folder, mend="run the same evaluation again to finish it")
    if len(predictions) != len(asked):
        raise UserError("holds predictions of windows that were not asked for", where=folder, mend="evaluate anew")
    return asked.join(predictions.drop("user_id", "target"), on="window", how="left", maintain_order="left")


def metrics_of_predictions(folder: Path, training_counts_I: Ints, *, seed: int = 0) -> dict[str, Any]:
    """Return the metrics of a predictions folder (see `metrics.summarise`), with `produced_by`; no model is needed.

    Intervals resample users. A target is warm where its training count is above 0.

    Raises:
        UserError: as `read_predictions`; a target outside the catalogue.
    """
    predictions, settings = read_predictions(folder), read_settings(folder)
    target_W = predictions["target"].to_numpy().astype(np.int64)
    if len(target_W) and target_W.max() >= len(training_counts_I):
        what = f"target {target_W.max()} is not in a catalogue of {len(training_counts_I):,} items"
        raise UserError(what, where=folder, mend="pass the dataset that the predictions were made for")
    metrics = summarise(
        ranks_of_targets(ranked_array(predictions["ranked"], settings["depth"]), target_W),
        training_counts_I[target_W] > 0,
        depth=settings["depth"],
        groups_W=predictions["user_id"].to_numpy(),
        seed=seed,
    )
    return {**metrics, "produced_by": {key: value for key, value in settings.items() if key != "depth"}}


def ranked_array(ranked: pl.Series, depth: int) -> Ints:
    """Return lists of items as int64 [W, depth], filled up with `NO_ITEM`."""
    return _filled(ranked, np.full((len(ranked), depth), NO_ITEM, dtype=np.int64))


def scores_array(scores: pl.Series, depth: int) -> npt.NDArray[np.float64]:
    """Return lists of scores as float64 [W, depth], filled up with nan."""
    return _filled(scores, np.full((len(scores), depth), np.nan))


def _filled(lists: pl.Series, value_WK: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Write lists over the beginning of the rows."""
    value_WK[np.arange(value_WK.shape[1]) < lists.list.len().to_numpy()[:, None]] = lists.explode(
        empty_as_null=False
    ).to_numpy()
    return value_WK


def _asked_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Return window, user_id and target in their stored types."""
    return frame.select(pl.col(name).cast(dtype) for name, dtype in _ASKED.items())


def refuse_difference(folder: Path, there: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to mix what two settings predicted, naming what differs.

    Raises:
        UserError: the settings `there` in the folder are not those of `now`.
    """
    names = sorted(name for name in there.keys() | now.keys() if there.get(name) != now.get(name))
    if names:
        differences = ", ".join(f"{name} {there.get(name)!r} there, {now.get(name)!r} now" for name in names)
        mend = "use the same settings, choose another folder or remove this one"
        raise UserError(f"holds predictions of other settings ({differences})", where=folder, mend=mend)


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _read(path: Path) -> pl.DataFrame:
    """Read one Parquet file of the folder."""
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError("cannot be read", where=path, mend="remove it and run the evaluation again") from error


def _read_parts(folder: Path) -> pl.DataFrame:
    """Read every part, refusing parts of another shape and windows that stand twice."""
    parts = {path: _read(path) for path in _parts(folder)}
    for path, part in parts.items():
        if part.schema != _SCHEMA:
            raise UserError("is not a part of predictions", where=path, mend="remove it and run the evaluation again")
    predictions = pl.concat([pl.DataFrame(schema=_SCHEMA), *parts.values()])
    twice = predictions.filter(pl.col("window").is_duplicated())
    if len(twice):
        what = f"{twice['window'].n_unique():,} windows are predicted twice (the first: {twice['window'].sort()[0]})"
        raise UserError(what, where=folder, mend="remove one of the parts that hold them")
    return predictions

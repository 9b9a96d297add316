"""What evaluations left behind, read without a model: predictions, and the run folder they lie in.

Only files are read here, `recipe.yaml` and `provenance.json` as plain mappings: evaluation knows nothing of training.
"""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from catalign.errors import UserError
from catalign.evaluation.predictions import read_predictions, read_settings
from catalign.files import read_json

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one run.

    Attributes:
        folder: the predictions folder.
        run: the run folder that made them; None where they lie alone.
        settings: what produced the predictions, with `depth`.
        predictions: one row per window, in the order of `window`.
    """

    folder: Path
    run: Path | None
    settings: dict[str, Any]
    predictions: pl.DataFrame

    @property
    def name(self) -> str:
        """The name of the run, or of the folder."""
        return (self.run or self.folder).absolute().name

    @property
    def protocol(self) -> str:
        """`full`, `pairs` or `1 of N`."""
        return str(self.settings.get("protocol", "full"))

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What produced the run; empty where that is not known."""
        file = None if self.run is None else self.run / "provenance.json"
        return read_json(file) if file is not None and file.is_file() else {}

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The recipe of the run; empty where there is none."""
        file = None if self.run is None else self.run / "recipe.yaml"
        if file is None or not file.is_file():
            return {}
        try:
            recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError("is not YAML", where=file) from error
        return recipe if isinstance(recipe, dict) else {}

    @property
    def options(self) -> dict[str, Any]:
        """What the training was asked to do: the recipe, or the settings of a baseline; empty where it is not known."""
        return self.recipe or dict(self.provenance.get("settings", {}))

    @property
    def seed(self) -> int | None:
        """The seed of the training; None where it is not known."""
        seed = self.options.get("seed")
        return None if seed is None else int(seed)

    @property
    def chosen_on(self) -> str:
        """Which split chose the epoch (`valid`, `test`), `last epoch`, or `unknown`."""
        if "valid" in self.provenance:  # a baseline, whose trials are compared on validation windows
            return "valid"
        return str(self.provenance.get("training", {}).get("chosen_on", UNKNOWN))

    @property
    def trained_on(self) -> dict[str, str]:
        """SHA-256 of the files of the dataset that the run was trained on; empty where it is not known."""
        return dict(self.provenance.get("dataset", {}).get("files", {}))

    @property
    def without_seed(self) -> str | None:
        """What runs that differ in nothing but the seed have in common; None where the seed is not known.

        Options are compared without the seed, and without the number behind the word "seed" in paths: a model or a run
        to start from may have been made with each seed anew (`runs/msl-seed0`).
        """
        if self.seed is None:
            return None
        options = {name: _path_without_seed(value) for name, value in self.options.items() if name != "seed"}
        made = {name: value for name, value in self.settings.items() if name not in ("checkpoint", "dataset", "seed")}
        return json.dumps([options, made], sort_keys=True, default=str)


def read_evaluation(path: Path, evaluation: str | None = None) -> Evaluation:
    """Read a predictions folder, or the one inside a run folder.

    Args:
        path: a predictions folder, or a run folder with predictions in `evaluations/`.
        evaluation: which of several inside a run folder.

    Raises:
        UserError: there is none, there are several and none is named, or the evaluation was not finished.
    """
    path = Path(path)
    if (path / "predictions.json").is_file():
        above = path.absolute().parent.parent
        run = above if (above / "provenance.json").is_file() else None
        return _read(path, run)
    if not path.is_dir():
        raise UserError("no such folder", where=path, mend="give a run folder or a folder of predictions")
    found = sorted(file.parent for file in path.glob("evaluations/*/predictions.json"))
    names = ", ".join(folder.name for folder in found)
    if not found:
        raise UserError("holds no predictions", where=path, mend="evaluate it first with catalign evaluate")
    if evaluation is not None:
        found = [folder for folder in found if folder.name == evaluation]
        if not found:
            raise UserError(f"has no evaluation {evaluation}", where=path, mend=f"choose from {names}")
    if len(found) > 1:
        mend = "name one with --evaluation, or give its folder"
        raise UserError(f"holds {len(found)} evaluations ({names})", where=path, mend=mend)
    return _read(found[0], path)


def refuse_other_windows(first: Evaluation, other: Evaluation) -> None:
    """Refuse to compare what was not asked the same.

    Raises:
        UserError: another protocol, split, window, user or target; says how many and which is the first.
    """
    drawn = () if first.protocol == "full" else ("seed",)  # of the candidates
    for name in ("protocol", "split", *drawn):
        here, there = (found.protocol if name == "protocol" else found.settings.get(name) for found in (first, other))
        if here != there:
            what = f"was evaluated with {name} {there}, {first.folder} with {name} {here}"
            raise UserError(what, where=other.folder, mend="compare evaluations of one kind")
    asked, given = (found.predictions.select("window", "user_id", "target") for found in (first, other))
    if asked.equals(given):
        return
    missing, more = asked.join(given, on="window", how="anti"), given.join(asked, on="window", how="anti")
    differences = [
        f"{len(windows):,} windows {verb} (the first: {windows['window'].sort()[0]})"
        for windows, verb in ((missing, "are missing"), (more, "are too many"))
        if len(windows)
    ]
    differences += differing_windows(asked, given)
    what = f"holds predictions of other windows than {first.folder}: {', '.join(differences)}"
    raise UserError(what, where=other.folder, mend="evaluate both with the same dataset, --split, --windows and --seed")


def differing_windows(asked: pl.DataFrame, given: pl.DataFrame) -> list[str]:
    """Say how many windows of both have another user or target, and which is the first; nothing if none has."""
    both = asked.join(given, on="window", suffix="_given").filter(
        pl.col("user_id").ne_missing(pl.col("user_id_given")) | pl.col("target").ne_missing(pl.col("target_given"))
    )
    if both.is_empty():
        return []
    return [f"{len(both):,} windows have another user or target (the first: {both['window'].sort()[0]})"]


def _read(folder: Path, run: Path | None) -> Evaluation:
    return Evaluation(folder, run, read_settings(folder), read_predictions(folder).sort("window"))


def _path_without_seed(value: Any) -> Any:
    """A path without the number behind the word "seed"; anything else as it is."""
    return re.sub(r"seed([-_]?)\d+", r"seed\1", value) if isinstance(value, str) else value

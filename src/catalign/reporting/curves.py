"""What runs wrote while they trained: curves over epochs and minutes, and what the training cost.

Only files are read, `log.jsonl` and `provenance.json`: reporting knows nothing of training.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catalign.errors import UserError
from catalign.evaluation.records import Evaluation

Floats = npt.NDArray[np.float64]

LOG_FILE = "log.jsonl"
LOSS, VALID = "loss", "eval_ndcg@10"
SCHEDULES = {
    "temperature": "temperature",
    "lambda": "weight of the teacher's answers (lambda)",
    "distance": "distance between answers and truth",
    "rewards/margins": "reward margin",
}
"""What else a log may hold, and how a reader calls it."""


@dataclass(frozen=True)
class Trained:
    """One run of a row.

    Attributes:
        label: of the row.
        evaluation: what was compared, with the run around it.
        log: the lines of `log.jsonl`; empty where there is none, as for a baseline.
    """

    label: str
    evaluation: Evaluation
    log: list[dict[str, Any]]


@dataclass(frozen=True)
class Curve:
    """A quantity over a training.

    Attributes:
        label: of the row.
        epochs: at which it was measured.
        minutes: of training until then; empty where only epochs were counted.
        values: the quantity.
    """

    label: str
    epochs: Floats
    minutes: Floats
    values: Floats


def read_trained(label: str, evaluation: Evaluation) -> Trained:
    """Read the log of a run.

    Raises:
        UserError: a line of it is no JSON object.
    """
    file = None if evaluation.run is None else evaluation.run / LOG_FILE
    if file is None or not file.is_file():
        return Trained(label, evaluation, [])
    log = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            entry = None
        if not isinstance(entry, dict):
            raise UserError(f"line {number} is no JSON object", where=file, mend="remove that line")
        log.append(entry)
    return Trained(label, evaluation, log)


def curve_of(trained: Trained, name: str) -> Curve | None:
    """Return a quantity of the log; None if it has none.

    Of a baseline the validation scores of the trial that was chosen, by epoch, stand in the provenance.
    """
    entries = [entry for entry in trained.log if isinstance(entry.get(name), int | float) and "epoch" in entry]
    if entries:
        of = {key: np.array([entry[key] for entry in entries], dtype=np.float64) for key in ("epoch", "seconds", name)}
        return Curve(trained.label, of["epoch"], of["seconds"] / 60, of[name])
    scores = trained.evaluation.provenance.get("chosen", {}).get("by_epoch") if name == VALID else None
    if not scores:
        return None
    return Curve(trained.label, np.arange(1.0, len(scores) + 1), np.zeros(0), np.array(scores, dtype=np.float64))


@dataclass(frozen=True)
class Cost:
    """What a training took.

    Attributes:
        label: of the row.
        seed: of the training; None where it is not known.
        minutes: of wall time, with validation; of a baseline all its trials.
        memory_gb: the most of the process (10^9 bytes); None where it was not measured.
        windows_per_second: training windows, validation counted as time; None for a baseline.
        epochs: passes over the training windows; None for a baseline.
        trials: settings that were tried; 1 for a run of `catalign train`.
        best: which epoch was kept, or what a baseline's search chose.
        valid: NDCG@10 on validation windows that chose it; None where nothing was validated.
    """

    label: str
    seed: int | None
    minutes: float
    memory_gb: float | None
    windows_per_second: float | None
    epochs: float | None
    trials: int
    best: str
    valid: float | None


def cost_of(trained: Trained) -> Cost | None:
    """Return what the provenance says of time and memory; None if it says nothing."""
    provenance, seed = trained.evaluation.provenance, trained.evaluation.seed
    if "trials" in provenance:  # a baseline
        chosen = provenance["chosen"]
        parameters = ", ".join(f"{name} {value}" for name, value in chosen["parameters"].items())
        epoch = f"epoch {chosen['epoch']}" if chosen.get("epoch") else ""
        return Cost(
            trained.label, seed, provenance["seconds"] / 60, provenance.get("peak_memory_gb"), None, None,
            len(provenance["trials"]), ", ".join(filter(None, [epoch, parameters])), provenance["valid"]["ndcg@10"],
        )  # fmt: skip
    training = provenance.get("training", {})
    if "seconds" not in training:
        return None
    drawn = trained.evaluation.recipe.get("train_examples")
    windows = drawn or provenance.get("dataset", {}).get("splits", {}).get("train", {}).get("windows", 0)
    epochs, seconds = training["epochs_run"], training["seconds"]
    return Cost(
        trained.label, seed, seconds / 60, training.get("peak_memory_gb"), windows * epochs / max(seconds, 1e-9),
        epochs, 1, f"epoch {training['best_epoch']:g} of {epochs:g}", training.get("valid_ndcg@10"),
    )  # fmt: skip

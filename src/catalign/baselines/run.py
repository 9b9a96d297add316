"""Run a baseline on a dataset folder: a run-like folder with predictions, metrics, provenance, item embeddings."""

import platform
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from rich.progress import Progress

import catalign
from catalign.baselines.environment import interpreter
from catalign.baselines.job import Answers, read_answers, run_worker, write_job
from catalign.baselines.methods import METHODS, Method
from catalign.data.dataset import Dataset, load_dataset
from catalign.errors import UserError
from catalign.evaluation.evaluate import ask_windows, floor_rows
from catalign.evaluation.predictions import PredictionWriter, metrics_of_predictions
from catalign.files import read_json, whole_folder, write_json
from catalign.progress import progress_bar

DEPTH = 20  # as `evaluate` asks for
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Budget:
    """What may be spent on choosing hyper-parameters, the same for every row of a table.

    Attributes:
        trials: points of the method's grid, the usual values first, the others drawn.
        seconds: for all trials, None without limit; each may use an equal share of what is left, and stops at the end
            of an epoch. On a busy machine a limit in seconds is not the same for all rows; trials are.
        epochs: the most of one trial.
        patience: epochs without a better validation score after which a trial ends.
    """

    trials: int = 6
    seconds: float | None = None
    epochs: int = 100
    patience: int = 3


def run_baseline(
    name: str,
    dataset_folder: Path,
    output: Path,
    environments: Path,
    *,
    split: str = "test",
    budget: Budget | None = None,
    seed: int = 0,
    exclude_history: bool = False,
    overwrite: bool = False,
) -> Rows:
    """Train, choose on all validation windows, predict all windows of a split, and write the run.

    Args:
        name: one of `METHODS`.
        dataset_folder: a dataset folder. Training sees its training interactions, no others; a history is shown as
            long as in its windows.
        output: the run: `predictions` and metrics as `catalign evaluate` writes them, `provenance.json` with every
            trial, `item_embeddings.parquet` (`item_id`, `embedding`) where the method has such.
        environments: see `environment.environments_folder`.
        split: what is predicted.
        budget: see `Budget`.
        seed: of weights, batches and drawn trials.
        exclude_history: never recommend an item of the history.
        overwrite: replace a run that is there.

    Returns:
        The rows of the table: the floor and the baseline.

    Raises:
        UserError: a folder is not what it should be, the dataset has no validation windows, or the worker fails.
    """
    method, budget = METHODS[name], budget or Budget()
    python, dataset = interpreter(method.library, environments), load_dataset(dataset_folder)
    refuse(method, dataset)
    valid, asked = (ask_windows(dataset, part, None, seed) for part in ("valid", split))
    settings = {
        "library": method.library, "method": name, **asdict(budget), "seed": seed, "depth": DEPTH,
        "exclude_history": exclude_history, "history": _longest_history(dataset),
    }  # fmt: skip
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with whole_folder(output, overwrite=overwrite) as folder, tempfile.TemporaryDirectory() as temporary:
        job = Path(temporary)
        write_job(job, settings, dataset.interactions, valid, asked)
        try:
            with progress_bar() as progress:
                _watch(python, job, method, progress)
                answers = read_answers(job, valid, asked, items=dataset.items.height, depth=DEPTH)
        except UserError as error:
            log = output.with_name(f"{output.name}.worker.log")
            shutil.copyfile(job / "worker.log", log)
            raise UserError(f"{name}: {error}", mend=f"see {log}") from error
        expected = {
            "method": name, "split": split, "windows": len(asked), "seed": seed, "exclude_history": exclude_history,
            "chosen on": f"{len(valid)} valid windows", "dataset": dataset.card.files["items.parquet"][:12],
        }  # fmt: skip
        predictions = folder / "evaluations" / f"{split}-all"
        writer = PredictionWriter(predictions, expected, asked, depth=DEPTH)
        writer.write(asked, answers.ranked_WK, answers.scores_WK)
        metrics = metrics_of_predictions(predictions, dataset.training_counts())
        floor = floor_rows(dataset, split=split, windows=None, seed=seed, exclude_history=exclude_history)
        write_json(predictions / "metrics.json", metrics)
        write_json(folder / "metrics.json", {**metrics, "floor": floor})
        write_json(folder / "provenance.json", _provenance(method, dataset, settings, answers, started))
        if answers.embeddings is not None:
            _with_ids(answers.embeddings, dataset.items).write_parquet(folder / "item_embeddings.parquet")
    return {**floor, f"{name} ({method.library})": metrics}


def refuse(method: Method, dataset: Dataset) -> None:
    """Refuse a dataset that a method cannot be trained on or chosen with.

    Raises:
        UserError: it has no validation windows, or no times where the method needs them.
    """
    if dataset.windows("valid").is_empty():
        raise UserError("has no validation windows to choose on", where=dataset.folder, mend="prepare it with a split")
    train = dataset.interactions.filter(pl.col("split") == "train")
    if method.needs_times and train["timestamp"].null_count() == len(train):
        raise UserError(f"says no time of any training interaction, which {method.name} needs", where=dataset.folder)


def _watch(python: Path, job: Path, method: Method, progress: Progress) -> None:
    """Run the worker and show its trials."""
    task = progress.add_task(f"{method.name}: starting {method.library}", total=None, note="")
    for event in run_worker(python, job):
        if event["event"] == "epoch":
            progress.update(
                task, total=event["trials"], completed=event["trial"] - 1,
                description=f"{method.name}: trial {event['trial']} of {event['trials']}, epoch {event['epoch']}",
                note=f"NDCG@10 {event['score']:.4f} on valid, best {event['best']:.4f}",
            )  # fmt: skip
        else:
            progress.update(task, description=f"{method.name}: {event['event']}")


def _longest_history(dataset: Dataset) -> int:
    """The most items that a window shows: no baseline sees more."""
    longest = [dataset.windows(split)["history"].list.len().max() for split in ("train", "valid", "test")]
    return max(int(length) for length in longest if isinstance(length, int))


def _with_ids(embeddings: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Name the items by their ids; those never seen in training have no row."""
    numbered = items.select("item_id").with_row_index("item").with_columns(pl.col("item").cast(pl.UInt32))
    joined = embeddings.join(numbered, on="item", how="left", maintain_order="left")
    return joined.select(pl.col("item_id").cast(pl.String), "embedding")


def _provenance(
    method: Method, dataset: Dataset, settings: dict[str, Any], answers: Answers, started: str
) -> dict[str, Any]:
    """What produced a run."""
    return {
        "command": " ".join(["catalign", *sys.argv[1:]]),
        "started": started,
        "method": asdict(method),
        "settings": settings,
        "chosen": max(answers.search["trials"], key=lambda trial: trial["ndcg@10"]),
        "valid": {"ndcg@10": answers.valid, "windows": dataset.windows("valid").height},
        **answers.search,
        "versions": {"catalign": catalign.__version__, **answers.search["versions"]},
        "machine": platform.platform(),
        "dataset": read_json(dataset.folder / "dataset.json"),
    }

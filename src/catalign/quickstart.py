"""The whole path once: data, embedded model, LML and MSL, evaluation, recommendations."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catalign.data.dataset import CARD, Dataset, load_dataset
from catalign.data.layouts import WINDOW_LAYOUTS, recognise, table_source
from catalign.data.options import TableOptions, WindowOptions
from catalign.data.prepare import prepare_tables, prepare_windows
from catalign.data.store import write_store
from catalign.errors import UserError
from catalign.evaluation.evaluate import evaluate_search, floor_rows
from catalign.files import disk_error, write_json
from catalign.progress import console
from catalign.recommender import Recommender
from catalign.training.module import Objective
from catalign.training.recipe import Recipe, Validation
from catalign.training.train import train
from catalign.training.warmup import init_model

MARK = "quickstart.json"
OBJECTIVES = {"lml": Objective(name="lml"), "msl": Objective(name="msl")}
"""Run folder to objective."""
STORE_USERS, STORE_ITEMS = 2_000, 500  # enough that a model of titles can be told from counting, in minutes


@dataclass(frozen=True)
class QuickstartSettings:
    """How much is done.

    Attributes:
        preset: size of the embedded model.
        epochs: most epochs of each objective.
        windows: test windows drawn.
        seed: of everything that is drawn.
    """

    preset: str = "tiny"
    epochs: int = 5
    windows: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Example:
    """One test window, readable: what was in the history, what came next, what the model recommends."""

    history: list[str]
    target: str
    recommended: list[str]


def quickstart(
    output: Path, data: Path | None, settings: QuickstartSettings, *, overwrite: bool = False
) -> tuple[dict[str, dict[str, Any]], list[Example]]:
    """Run the path and leave everything it makes in `output`.

    Args:
        output: folder to make; holds `store`, `dataset`, `model`, `lml` and `msl`.
        data: a dataset folder, or a folder in a known layout; None generates the sample store.
        settings: how much is done.
        overwrite: replace what an earlier quickstart left there.

    Returns:
        The rows of the result table, and three examples.

    Raises:
        UserError: the output exists (with `overwrite`: and is not of a quickstart), or the data cannot be used.
    """
    if data is not None and not (data / CARD).is_file():
        recognise(data)  # before anything is made
    _make_place(output, overwrite=overwrite)
    write_json(output / MARK, {"data": None if data is None else str(data), **vars(settings)})
    dataset = _dataset(output, data, settings.seed)
    _check_splits(dataset)
    console.print("[bold]2. an embedded language model[/bold], made from the titles, warmed up on training histories")
    init_model(dataset.folder, output / "model", preset=settings.preset, seed=settings.seed)
    rows = floor_rows(dataset, split="test", windows=settings.windows, seed=settings.seed, exclude_history=False)
    for number, (name, objective) in enumerate(OBJECTIVES.items(), 3):
        console.print(
            f"[bold]{number}. fine-tune with {name.upper()}[/bold] and rank the whole catalogue for each test window"
        )
        rows[objective.label] = _train_and_evaluate(dataset, output, name, objective, settings)
    return rows, _examples(Recommender.load(output / "msl"), dataset, settings.seed)


def _make_place(output: Path, *, overwrite: bool) -> None:
    """Make the folder; only what an earlier quickstart left, finished or not, is replaced."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        if not overwrite:
            raise UserError("already exists", where=output, mend="choose another --output or pass --overwrite")
        if not (output / MARK).is_file():
            raise UserError("is not of a quickstart, so it is not replaced", where=output, mend="choose another folder")
        shutil.rmtree(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, output) from error


def _dataset(output: Path, data: Path | None, seed: int) -> Dataset:
    """The dataset folder to work on."""
    if data is not None and (data / CARD).is_file():
        console.print(f"[bold]1. the dataset[/bold] {data}")
        return load_dataset(data)
    if data is None:
        console.print("[bold]1. the sample store[/bold], a generated shop, as two plain tables")
        write_store(output / "store", users=STORE_USERS, items=STORE_ITEMS, seed=seed)
        data = output / "store"
    else:
        console.print(f"[bold]1. the data[/bold] in {data}")
    layout = recognise(data)
    if layout in WINDOW_LAYOUTS:
        return prepare_windows(data, layout, WindowOptions(), output / "dataset")
    return prepare_tables(table_source(data, layout), TableOptions(), output / "dataset")


def _check_splits(dataset: Dataset) -> None:
    """Refuse a dataset that has nothing to train on or to evaluate, before minutes are spent on it."""
    empty = [split for split, counts in dataset.card.splits.items() if counts.windows == 0]
    if empty:
        raise UserError(
            f"the split {empty[0]} has no windows", where=dataset.folder, mend="it takes more interactions per user"
        )


def _train_and_evaluate(
    dataset: Dataset, output: Path, name: str, objective: Objective, settings: QuickstartSettings
) -> dict[str, Any]:
    recipe = Recipe(
        dataset=dataset.folder,
        model=str(output / "model"),
        objective=objective,
        epochs=settings.epochs,
        validation=Validation(windows=500, patience=2),
        seed=settings.seed,
    )
    train(recipe, output / name)
    recommender = Recommender.load(output / name)
    metrics = evaluate_search(
        recommender.search(beams=20),
        dataset,
        output / name / "evaluations" / "quickstart",
        split="test",
        windows=settings.windows,
        seed=settings.seed,
        depth=20,
        checkpoint=recommender.run.checkpoint,
    )
    write_json(output / name / "metrics.json", metrics)
    return metrics


def _examples(recommender: Recommender, dataset: Dataset, seed: int, count: int = 3, k: int = 3) -> list[Example]:
    """A few test windows with what the model recommends."""
    test = dataset.windows("test")
    chosen = test[np.sort(np.random.default_rng(seed).choice(len(test), min(count, len(test)), replace=False))]
    titles, item_ids = recommender.catalogue.titles, recommender.catalogue.item_ids
    histories = chosen["history"].to_list()
    found = recommender.recommend_many([[item_ids[item] for item in history] for history in histories], k)
    return [
        Example([titles[item] for item in history], titles[target], [item.title for item in items])
        for history, target, items in zip(histories, chosen["target"].to_list(), found, strict=True)
    ]

"""Several runs on the same windows: one row each, with intervals, paired tests and what a reader has to be told.

`Comparison` is plain data: `comparison_table` prints it, and whoever draws it needs nothing else.

Shapes: W windows, S seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalign.data.dataset import Dataset, load_dataset
from catalign.errors import UserError
from catalign.evaluation import cautions
from catalign.evaluation.answers import DEFAULT_METRIC, Task, check_metrics, floor_answers, task_of
from catalign.evaluation.beyond_accuracy import Embedder, ListStatistics, list_statistics, mean_statistics
from catalign.evaluation.calibration import Calibration, calibration
from catalign.evaluation.cautions import Caution
from catalign.evaluation.cells import Cell, Key, Values, cells_of_table
from catalign.evaluation.pairs_protocol import scores_of_pairs, summarise_pairs
from catalign.evaluation.pooling import Method, methods_of
from catalign.evaluation.records import Evaluation, read_evaluation, refuse_other_windows
from catalign.evaluation.slices import Slices, slices_of_windows

Floats = npt.NDArray[np.float64]

FLOOR_DEPTH = 20
SETTINGS = ("beams", "score", "decoder", "length_penalty", "exclude_history", "prompt", "generation", "depth")


@dataclass(frozen=True)
class Spread:
    """What the runs of one row gave, seed by seed.

    Attributes:
        seeds: of the trainings.
        means: of the metric, one for each seed.
        deviation: their standard deviation (n - 1); None of one seed.
    """

    seeds: list[int]
    means: list[float]
    deviation: float | None


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        label: how it is called.
        folders: the predictions; empty for a floor row.
        metrics: name of a metric to its cell.
        spread: name of a metric to its values seed by seed; empty where the seeds are not known.
        chosen_on: which split chose the epoch; None for a floor row.
        settings: how the answers were found: `SETTINGS`, as far as they are known.
        lists: what is recommended; None where the rows do not rank the catalogue. Means over the seeds.
        calibration: of the top-1 probabilities, all seeds together; None where scores are no probabilities of titles.
        auc: pooled AUC with the ends of its interval (see `pairs_protocol`), mean over the seeds; None but for pairs.
    """

    label: str
    folders: list[str]
    metrics: dict[str, Cell]
    spread: dict[str, Spread]
    chosen_on: str | None
    settings: dict[str, Any]
    lists: ListStatistics | None
    calibration: Calibration | None
    auc: list[float] | None


@dataclass(frozen=True)
class Slice:
    """Some of the windows.

    Attributes:
        name: which.
        windows: how many.
        cells: label of a row to the first metric there.
    """

    name: str
    windows: int
    cells: dict[str, Cell]


@dataclass(frozen=True)
class SliceTable:
    """The first metric by one kind of slices; Holm's correction is over all differences of this table."""

    by: str
    slices: list[Slice]


@dataclass(frozen=True)
class Comparison:
    """Several rows on the same windows.

    Attributes:
        dataset: the folder.
        protocol: `full`, `1 of N` or `pairs`.
        split: which windows.
        windows: how many (pairs, in that protocol).
        users: of how many people.
        metrics: what is compared; the first decides which row is the best.
        reference: label of the row that others are compared with.
        reference_is_best: whether it was taken because it is the best on these windows.
        rows: the floor first, then in the order given.
        slice_tables: in the order asked.
        cautions: what a reader has to be told.
    """

    dataset: str
    protocol: str
    split: str
    windows: int
    users: int
    metrics: list[str]
    reference: str
    reference_is_best: bool
    rows: list[Row]
    slice_tables: list[SliceTable]
    cautions: list[Caution]


def compare(
    paths: Sequence[Path],
    *,
    dataset: Path | None = None,
    metrics: Sequence[str] = (),
    by: Sequence[str] = (),
    baseline: str | None = None,
    floor: bool = False,
    evaluation: str | None = None,
    embedder: Callable[[Dataset], Embedder] | None = None,
) -> Comparison:
    """Compare runs that answered the same windows.

    Runs that differ in nothing but the seed are one row: their values are averaged window by window before users are
    drawn, so an interval tells what other users would change, and `Row.spread` what other seeds would.

    Args:
        paths: run folders or predictions folders.
        dataset: dataset folder; None takes that of the first run's recipe.
        metrics: `ndcg@10` and the like; none takes the usual one of the protocol.
        by: slices, see `slices.slices_of_windows`.
        baseline: label or folder of the row that the others are compared with; None takes the best by the first metric.
        floor: whether popularity and item-kNN are rows too.
        evaluation: which of several evaluations inside a run folder.
        embedder: makes the embeddings of a dataset's titles, for the diversity of the lists.

    Raises:
        UserError: predictions that cannot be read, are not finished, or are of other windows; no such metric, slices or
            baseline; the dataset is not known or has other windows.
    """
    evaluations = _read_all(paths, evaluation)
    data = load_dataset(_dataset_folder(evaluations) if dataset is None else dataset)
    task = task_of(evaluations[0], data)
    names = list(dict.fromkeys(metrics)) or [DEFAULT_METRIC[task.protocol]]
    check_metrics(names, task, min(int(found.settings["depth"]) for found in evaluations))
    masks = {name: slices_of_windows(name, task.windows, data.items, task.counts_I) for name in by}
    of_floor = floor_answers(task, FLOOR_DEPTH) if floor else {}
    trained, repeated = methods_of(evaluations, task, taken=of_floor)
    methods = [*(Method(label, [], [answers]) for label, answers in of_floor.items()), *trained]

    by_seed = {(method.label, name): method.values_SW(name, task) for method in methods for name in names}
    values_W = {key: value_SW.mean(axis=0) for key, value_SW in by_seed.items()}
    reference = _reference(methods, baseline, {method.label: values_W[method.label, names[0]] for method in methods})
    embed = None if embedder is None else embedder(data)
    (cells,) = cells_of_table([Values(values_W, task.user_W)], reference)
    first = {key: value_W for key, value_W in values_W.items() if key[1] == names[0]}
    return Comparison(
        dataset=str(data.folder),
        protocol=evaluations[0].protocol,
        split=task.split,
        windows=len(task.windows),
        users=task.windows["user_id"].n_unique(),
        metrics=names,
        reference=reference,
        reference_is_best=baseline is None,
        rows=[_row(method, cells, by_seed, task, embed) for method in methods],
        slice_tables=[SliceTable(name, _slices(found, first, reference, task)) for name, found in masks.items()],
        cautions=_cautions(task, methods, repeated, cells, first, reference),
    )


def _read_all(paths: Sequence[Path], evaluation: str | None) -> list[Evaluation]:
    """Read every evaluation and see that all were asked the same, each once."""
    if not paths:
        raise UserError("nothing to compare", mend="give one run folder or more")
    evaluations: list[Evaluation] = []
    for path in paths:
        found = read_evaluation(path, evaluation)
        if found.folder.resolve() in [other.folder.resolve() for other in evaluations]:
            raise UserError("is given twice", where=found.folder)
        if evaluations:
            refuse_other_windows(evaluations[0], found)
        evaluations.append(found)
    return evaluations


def _dataset_folder(evaluations: Sequence[Evaluation]) -> Path:
    """The dataset that the first run was trained on that says so."""
    folder = next((found.recipe["dataset"] for found in evaluations if "dataset" in found.recipe), None)
    if folder is None:
        where = evaluations[0].folder
        raise UserError("does not say which dataset it is of", where=where, mend="pass it with --dataset")
    if not Path(folder).is_dir():
        raise UserError("the dataset of this run is gone", where=folder, mend="pass it with --dataset")
    return Path(folder)


def _reference(methods: Sequence[Method], baseline: str | None, values_W: Mapping[str, Floats]) -> str:
    """The label of the row that others are compared with."""
    if baseline is None:
        return max(values_W, key=lambda label: float(values_W[label].mean()))
    for method in methods:
        folders = [folder for found in method.evaluations for folder in (found.folder, found.run) if folder is not None]
        if baseline == method.label or Path(baseline).resolve() in [folder.resolve() for folder in folders]:
            return method.label
    known = ", ".join(method.label for method in methods)
    raise UserError(f"no such row: {baseline}", where="--baseline", mend=f"choose from {known}")


def _row(
    method: Method, cells: Mapping[Key, Cell], by_seed: Mapping[Key, Floats], task: Task, embed: Embedder | None
) -> Row:
    names = [name for label, name in cells if label == method.label]
    return Row(
        label=method.label,
        folders=[str(found.folder) for found in method.evaluations],
        metrics={name: cells[method.label, name] for name in names},
        spread={name: _spread(method.seeds, by_seed[method.label, name]) for name in names if method.seeds},
        chosen_on=method.chosen_on,
        settings={name: method.settings[name] for name in SETTINGS if name in method.settings},
        lists=_lists(method, task, embed) if task.protocol == "full" else None,
        calibration=_calibration(method, task),
        auc=_auc(method, task) if task.protocol == "pairs" else None,
    )


def _spread(seeds: list[int], value_SW: Floats) -> Spread:
    mean_S = value_SW.mean(axis=1)
    return Spread(seeds, mean_S.tolist(), float(mean_S.std(ddof=1)) if len(mean_S) > 1 else None)


def _lists(method: Method, task: Task, embed: Embedder | None) -> ListStatistics:
    """What the lists recommend, averaged over the seeds."""
    target_W, counts_I = task.target_W, task.counts_I
    return mean_statistics(
        [list_statistics(answers.ranked_WK, target_W, counts_I, embed=embed) for answers in method.answers]
    )


def _calibration(method: Method, task: Task) -> Calibration | None:
    """Of log-probabilities of titles: the first title against the target's, for items may share one."""
    settings = method.settings
    if settings.get("score") not in ("valid", "full") or settings.get("length_penalty", 0.0) or task.protocol != "full":
        return None
    title_I = task.dataset.items["title"].rank("dense").to_numpy()
    first = [answers.ranked_WK[:, 0] for answers in method.answers]
    score = np.concatenate([answers.score_WK[:, 0] for answers in method.answers])
    item, target = np.concatenate(first), np.tile(task.target_W, len(first))
    known = item >= 0
    return calibration(np.exp(score[known]), title_I[item[known]] == title_I[target[known]]) if known.any() else None


def _auc(method: Method, task: Task) -> list[float]:
    """Pooled AUC and the ends of its interval; nothing where the coin gave all pairs one label."""
    warm_W, seed = task.counts_I[task.target_W] > 0, task.settings["seed"]
    found = []
    for answers in method.answers:
        score_P2 = scores_of_pairs(answers.ranked_WK, answers.score_WK, task.target_W)
        summary = summarise_pairs(score_P2, warm_W, task.user_W, seed)
        if "auc" in summary:
            found.append([summary["auc"], *summary["ci95"]["auc"]])
    return np.mean(found, axis=0).tolist() if found else []


def _slices(masks: Slices, first: Mapping[Key, Floats], reference: str, task: Task) -> list[Slice]:
    """The first metric of every row on some of the windows at a time."""
    parts = [
        Values({key: value_W[mask_W] for key, value_W in first.items()}, task.user_W[mask_W])
        for mask_W in masks.values()
    ]
    return [
        Slice(name, int(mask_W.sum()), {label: cell for (label, _), cell in cells.items()})
        for (name, mask_W), cells in zip(masks.items(), cells_of_table(parts, reference), strict=True)
    ]


def _cautions(
    task: Task,
    methods: Sequence[Method],
    repeated: Sequence[str],
    cells: Mapping[Key, Cell],
    first: Mapping[Key, Floats],
    reference: str,
) -> list[Caution]:
    """What a reader has to be told; `first` has the values of the metric that decides."""
    evaluations = [found for method in methods for found in method.evaluations]
    tests = {key[0]: cell.difference.test for key, cell in cells.items() if key in first and cell.difference}
    metric = next(name for _, name in first)
    differences = {label: first[label, metric] - first[reference, metric] for label in tests}
    return [
        *cautions.of_windows(task.dataset, task.split, task.protocol, task.windows),
        *cautions.of_choice({method.label: method.chosen_on for method in methods if method.chosen_on}, task.split),
        *cautions.of_catalogues(evaluations, task.dataset),
        *cautions.of_settings({method.label: method.settings for method in methods if method.evaluations}),
        *cautions.of_seeds({method.label: method.seeds for method in methods if method.seeds}, repeated),
        *cautions.of_differences(metric, reference, tests, len(task.windows)),
        *cautions.of_users(metric, reference, differences, tests, task.user_W),
    ]

"""What a reader of a table has to be told: leaks, choices made on the test windows, samples, too few windows.

Shapes: W windows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.data.dataset import Dataset
from catalign.evaluation.records import UNKNOWN, Evaluation
from catalign.evaluation.significance import POWER_FACTOR, PairedTest
from catalign.evaluation.slices import repeated

Floats = npt.NDArray[np.float64]
Kind = Literal["leakage", "selection", "sampled", "history", "catalogue", "settings", "seeds", "windows", "users"]


@dataclass(frozen=True)
class Caution:
    """One warning.

    Attributes:
        kind: what it is about.
        text: one sentence.
    """

    kind: Kind
    text: str


def of_windows(dataset: Dataset, split: str, protocol: str, windows: pl.DataFrame) -> list[Caution]:
    """What the windows themselves ask to be told.

    Args:
        dataset: where they come from.
        split: which of its splits.
        protocol: `full`, `candidates` or `pairs`.
        windows: `history` and `target`, perhaps `timestamp`.
    """
    found = []
    if split != "train":
        found += _leakage(dataset, split)
    if protocol != "full":
        text = (
            "the target was ranked among drawn candidates: this is no rank in the catalogue, and the order of methods "
        )
        found.append(Caution("sampled", f"{text}may be another there (Krichene and Rendle, KDD 2020)"))
    inside = int(repeated(windows).sum())
    if inside:
        share = f"{inside:,} of {len(windows):,} targets ({inside / len(windows):.1%}) stand in their own history"
        found.append(Caution("history", f"{share}: a method that leaves the history out cannot hit them"))
    return found


def of_choice(chosen_on: Mapping[str, str], split: str) -> list[Caution]:
    """Rows whose epoch was chosen on the windows that are compared, or nobody knows on which.

    Args:
        chosen_on: label of a row to the split.
        split: of the windows compared.
    """
    on_these = [label for label, chosen in chosen_on.items() if chosen == split]
    unknown = [label for label, chosen in chosen_on.items() if chosen == UNKNOWN]
    found = []
    if on_these:
        text = f"the epoch of {_listed(on_these)} was chosen on the split {split}, on which it is compared here"
        found.append(Caution("selection", f"{text}: the figures are too high"))
    if unknown:
        found.append(Caution("selection", f"on which split the epoch of {_listed(unknown)} was chosen is not known"))
    return found


def of_catalogues(evaluations: Sequence[Evaluation], dataset: Dataset) -> list[Caution]:
    """Evaluations made with other items, other windows' histories or other training windows than the dataset's."""
    now = dataset.card.files
    found = []
    for evaluation in evaluations:
        file = "items.parquet" if evaluation.protocol == "full" else f"windows/{evaluation.settings['split']}.parquet"
        made_with = str(evaluation.settings.get("dataset", ""))
        trained_on = evaluation.trained_on
        if not now[file].startswith(made_with):
            text = f"{evaluation.name} was evaluated with another {file} ({made_with[:12]}) than {dataset.folder} has"
            found.append(Caution("catalogue", f"{text} ({now[file][:12]}): item numbers may mean other items"))
        for name in ("items.parquet", "windows/train.parquet"):
            if trained_on.get(name, now[name]) != now[name]:
                text = f"{evaluation.name} was trained with another {name} ({trained_on[name][:12]}) than"
                found.append(Caution("catalogue", f"{text} {dataset.folder} has ({now[name][:12]})"))
    return found


def of_settings(settings: Mapping[str, Mapping[str, object]]) -> list[Caution]:
    """Settings that change what can be hit and are not the same in all rows: label of a row to its settings."""
    found = []
    for name in ("exclude_history", "decoder"):
        values = {label: of_row.get(name) for label, of_row in settings.items()}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{label}: {'–' if value is None else value}" for label, value in values.items())
            found.append(Caution("settings", f"{name} is not the same in all rows ({told})"))
    return found


def of_seeds(seeds: Mapping[str, Sequence[int]], unpooled: Sequence[str]) -> list[Caution]:
    """Rows of fewer seeds than others, or of one.

    Args:
        seeds: label of a row to the seeds that it was trained with; rows that have none are left out.
        unpooled: labels of runs with one recipe and one seed, which stay rows of their own.
    """
    found = []
    every = sorted({seed for of_row in seeds.values() for seed in of_row})
    lacking = {label: [seed for seed in every if seed not in of_row] for label, of_row in seeds.items()}
    most = max((len(of_row) for of_row in seeds.values()), default=0)
    fewer = [label for label, of_row in seeds.items() if len(of_row) < most]
    if most == 1:
        found.append(Caution("seeds", "every row has one seed: how far another seed would be from it is not known"))
    elif fewer:
        told = ", ".join(f"{label} lacks {', '.join(map(str, lacking[label]))}" for label in fewer)
        found.append(Caution("seeds", f"not every row has all the seeds: {told}"))
    if unpooled:
        verb = "has" if len(unpooled) == 1 else "have"
        text = f"{_listed(unpooled)} {verb} the recipe and the seed of another row: no further seed of it"
        found.append(Caution("seeds", text))
    return found


def of_differences(metric: str, reference: str, tests: Mapping[str, PairedTest], windows: int) -> list[Caution]:
    """Differences that so few windows cannot tell from none.

    Args:
        metric: that the tests are of.
        reference: label of the row that is compared with.
        tests: label of a row to the test of its difference.
        windows: how many there are.
    """
    found = []
    for label, test in tests.items():
        if test.low <= 0 <= test.high:
            text = f"{label} and {reference} cannot be told apart by {metric} on {windows:,} windows: the difference"
            interval = f"{test.mean:+.4f} has the interval {test.low:+.4f} to {test.high:+.4f}"
            power = f"so many windows would show one of {test.detectable:.4f} (with a power of 80 %)"
            found.append(Caution("windows", f"{text} {interval}; {power}"))
    return found


def of_users(
    metric: str,
    reference: str,
    difference_W: Mapping[str, Floats],
    tests: Mapping[str, PairedTest],
    user_W: npt.NDArray[Any],
) -> list[Caution]:
    """Differences that a few users make: without one user in a thousand less than half of it is left.

    Accounts that take one item again and again are like that; a method that repeats it hits all their windows.

    Args:
        metric: that is compared.
        reference: label of the row that is compared with.
        difference_W: label of a row to its values minus those of the reference.
        tests: of these differences.
        user_W: user ids.
    """
    names_G, group_W, windows_G = np.unique(user_W, return_inverse=True, return_counts=True)
    count = max(1, len(names_G) // 1000)
    found = []
    for label, values_W in difference_W.items():
        sums_G = np.bincount(group_W, weights=values_W)
        most_G = np.argsort(-np.abs(sums_G), kind="stable")[:count]
        left = len(values_W) - int(windows_G[most_G].sum())
        if left == 0:
            continue
        mean, without = float(values_W.mean()), float((sums_G.sum() - sums_G[most_G].sum()) / left)
        noise = tests[label].detectable / POWER_FACTOR / 2  # half a standard error
        if abs(mean - without) > max(abs(mean) / 2, noise):
            who = f"{count} of {len(names_G):,} users ({len(values_W) - left:,} of {len(values_W):,} windows)"
            text = f"{who} make the difference of {label} to {reference} in {metric}: {mean:+.4f},"
            found.append(Caution("users", f"{text} without them {without:+.4f}"))
    return found


def _leakage(dataset: Dataset, split: str) -> list[Caution]:
    """Training targets later than the first target of the windows that are evaluated."""
    first = dataset.windows(split)["timestamp"].min()
    trained = dataset.windows("train")["timestamp"]
    later = 0 if first is None else int((trained > first).sum())
    out = dataset.card.split_rule.startswith("leave-one-out")
    if not later and not out:
        return []
    rule = "leave-one-out leaks: " if out else ""
    text = f"{rule}{later:,} of {len(trained):,} training targets are later than the first {split} target"
    return [Caution("leakage", f"{text}, so a model learns from the future of those it is tested on")]


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels)

"""Runs that differ in nothing but the seed are one method.

Shapes: S seeds, W windows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catalign.evaluation.answers import Answers, Task, answers_of, values_of
from catalign.evaluation.records import Evaluation

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Method:
    """A row of a comparison before it is measured.

    Attributes:
        label: how it is called.
        evaluations: of its runs, one for each seed; none for a floor row.
        answers: of these, or of the floor row.
    """

    label: str
    evaluations: list[Evaluation]
    answers: list[Answers]

    @property
    def settings(self) -> dict[str, Any]:
        """How the answers were found; the same for all seeds."""
        return self.evaluations[0].settings if self.evaluations else {}

    @property
    def chosen_on(self) -> str | None:
        """Which split chose the epoch; None for a floor row."""
        return ", ".join(dict.fromkeys(found.chosen_on for found in self.evaluations)) or None

    @property
    def seeds(self) -> list[int]:
        """Of the trainings, as far as they are known."""
        return [found.seed for found in self.evaluations if found.seed is not None]

    def values_SW(self, metric: str, task: Task) -> Floats:
        """A metric of every seed and window, float64 [S, W]."""
        return np.stack([values_of(metric, answers, task) for answers in self.answers])


def methods_of(
    evaluations: Sequence[Evaluation], task: Task, *, taken: Collection[str] = ()
) -> tuple[list[Method], list[str]]:
    """Put runs that differ in the seed alone together.

    Runs of one recipe and one seed stay apart: they tell nothing about seeds.

    Args:
        evaluations: in the order of the rows.
        task: the windows.
        taken: labels that other rows have.

    Returns:
        The methods in the order given, and the labels of runs that stayed apart.

    Raises:
        UserError: see `answers_of`.
    """
    groups: dict[str, list[Evaluation]] = {}
    for place, found in enumerate(evaluations):
        alike = groups.setdefault(found.without_seed or f"alone {place}", [])
        if found.seed in [other.seed for other in alike]:
            groups[f"repeated {place}"] = [found]
        else:
            alike.append(found)
    labels = labels_of(list(groups.values()), taken)
    methods = [
        Method(label, group, [answers_of(found, task) for found in group])
        for label, group in zip(labels, groups.values(), strict=True)
    ]
    return methods, [label for label, key in zip(labels, groups, strict=True) if key.startswith("repeated")]


def labels_of(groups: Sequence[Sequence[Evaluation]], taken: Collection[str] = ()) -> list[str]:
    """Name each group after its run, without the seed; where names agree, or are taken, by what differs.

    That is the seed, the evaluation, the place of the run, or both.
    """
    first = [group[0] for group in groups]
    names = [found.name for found in first]
    longer = [
        [_without_seed(name) for name in names],
        names,
        [f"{name}, {found.folder.name}" for name, found in zip(names, first, strict=True)],
        [str(found.run or found.folder) for found in first],
        [str(found.folder) for found in first],
    ]
    return [
        next(kind[place] for kind in longer if kind.count(kind[place]) == 1 and kind[place] not in taken)
        for place in range(len(groups))
    ]


def _without_seed(name: str) -> str:
    """`msl` of `msl-seed0`."""
    stem, _, seed = name.rpartition("seed")
    return stem.rstrip("-_") if stem and seed.strip("-_").isdecimal() else name

"""The cells of a comparison: means with intervals, and paired tests against one row, corrected over the table.

Shapes: W windows, K cells of one set of windows, D differences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catalign.evaluation.intervals import bootstrap_interval
from catalign.evaluation.significance import PairedTest, holm, paired_tests

Floats = npt.NDArray[np.float64]
Key = tuple[str, str]
"""Label of a row, name of a metric."""


@dataclass(frozen=True)
class Difference:
    """A row minus the reference, on the same windows.

    Attributes:
        test: mean, interval and p-values.
        p_holm: the permutation's p, corrected for all differences of its table.
    """

    test: PairedTest
    p_holm: float


@dataclass(frozen=True)
class Cell:
    """A metric of a row.

    Attributes:
        mean: over the windows, and before that over the seeds.
        low: of the 95 % bootstrap interval over users.
        high: likewise.
        difference: to the reference; None for the reference itself.
    """

    mean: float
    low: float
    high: float
    difference: Difference | None


@dataclass(frozen=True)
class Values:
    """What a set of windows says.

    Attributes:
        of_cell: label of a row and name of a metric to its values [W].
        user_W: the users, who are drawn together with all their windows.
    """

    of_cell: Mapping[Key, Floats]
    user_W: npt.NDArray[Any]


def cells_of_table(parts: Sequence[Values], reference: str) -> list[dict[Key, Cell]]:
    """Return the cells of each set of windows; Holm's correction is over the differences of all of them.

    Args:
        parts: the sets of windows that stand in one table, each with at least one window and with the reference.
        reference: label of the row that the others are compared with.
    """
    tests = [_tests(part, reference) for part in parts]
    corrected = iter(holm([test.p_permutation for of_part in tests for test in of_part.values()]).tolist())
    differences = [{key: Difference(test, next(corrected)) for key, test in of_part.items()} for of_part in tests]
    return [_cells(part, of_part) for part, of_part in zip(parts, differences, strict=True)]


def _tests(part: Values, reference: str) -> dict[Key, PairedTest]:
    """The tests of every row but the reference."""
    keys = [key for key in part.of_cell if key[0] != reference]
    if not keys:
        return {}
    columns = [part.of_cell[key] - part.of_cell[reference, key[1]] for key in keys]
    return dict(zip(keys, paired_tests(np.stack(columns, axis=1), part.user_W), strict=True))


def _cells(part: Values, differences: Mapping[Key, Difference]) -> dict[Key, Cell]:
    """Means and intervals, with the differences that there are."""
    value_WK = np.stack(list(part.of_cell.values()), axis=1)
    interval_K2 = bootstrap_interval(value_WK, part.user_W).tolist()
    return {
        key: Cell(float(mean), low, high, differences.get(key))
        for key, mean, (low, high) in zip(part.of_cell, value_WK.mean(axis=0), interval_K2, strict=True)
    }

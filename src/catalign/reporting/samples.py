"""A few windows to read: what a person had, what came next, what every row recommended."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from catalign.data.dataset import Dataset
from catalign.reporting.curves import Trained

SHOWN = 5  # titles of a list
SEED = 0


@dataclass(frozen=True)
class Recommended:
    """What one row recommended for one window.

    Attributes:
        label: of the row.
        titles: best first.
        hits: whether each is the very item that came next.
        length: of the whole list.
        place: of that item in the whole list, 1 the first; None where it does not stand there.
    """

    label: str
    titles: list[str]
    hits: list[bool]
    length: int
    place: int | None


@dataclass(frozen=True)
class Sample:
    """One window.

    Attributes:
        window: its number in the split.
        history: titles, oldest first.
        target: the title that came next.
        times: how often the target occurs in training.
        lists: of every row.
    """

    window: int
    history: list[str]
    target: str
    times: int
    lists: list[Recommended]


def draw_samples(dataset: Dataset, trained: Sequence[Trained], count: int) -> list[Sample]:
    """Draw users at random, one window of each, the same for every row; they are not chosen for what they show.

    Args:
        dataset: the windows and the titles.
        trained: the runs; of a row with several seeds the first is shown.
        count: how many; fewer where there are fewer users.
    """
    first = {of.label: of for of in reversed(trained)}
    split = str(trained[0].evaluation.settings["split"])
    asked = trained[0].evaluation.predictions.select("window", "user_id")
    mixed = asked.sample(fraction=1.0, shuffle=True, seed=SEED).unique("user_id", keep="first", maintain_order=True)
    windows = mixed.head(count)["window"].sort()
    rows = dataset.windows(split).with_row_index("window").filter(pl.col("window").is_in(windows.implode()))
    titles, counts_I = dataset.items["title"], dataset.training_counts()
    lists = {
        label: dict(of.evaluation.predictions.filter(pl.col("window").is_in(windows.implode()))
                    .select("window", "ranked").iter_rows())
        for label, of in reversed(first.items())
    }  # fmt: skip
    return [
        Sample(
            window, titles.gather(history).to_list(), titles[target], int(counts_I[target]),
            [_recommended(label, of_row[window], target, titles) for label, of_row in lists.items()],
        )
        for window, history, target in rows.select("window", "history", "target").iter_rows()
    ]  # fmt: skip


def _recommended(label: str, ranked: list[int], target: int, titles: pl.Series) -> Recommended:
    found = np.flatnonzero(np.asarray(ranked, dtype=np.int64) == target)
    shown = ranked[:SHOWN]
    return Recommended(
        label, titles.gather(shown).to_list(), [item == target for item in shown], len(ranked),
        int(found[0]) + 1 if len(found) else None,
    )  # fmt: skip

"""What a dataset folder holds, in numbers."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.data.dataset import Dataset
from catalign.data.splits import SPLITS


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return the statistics of a dataset.

    Returns:
        `users`, `items`, `interactions`, `titles` (changed by cleaning, missing, shared), `title_length` (in
        characters), `item_counts` (how often an item occurs in training) and for every split `windows`, `users`,
        `history_length` (mean and distribution), `cold_target_share` (targets that never occur in training),
        `target_in_history_share`, `first` and `last` time (milliseconds, null if unknown);
        shares and means of a split without windows are null.
    """
    card = dataset.card
    counts = dataset.training_counts()
    lengths = dataset.items["title"].str.len_chars()
    return {
        "layout": card.layout,
        "split_rule": card.split_rule,
        "users": card.users,
        "items": card.items,
        "interactions": card.interactions,
        "titles": card.titles.model_dump(),
        "title_length": {"median": lengths.median(), "longest": lengths.max()},
        "item_counts": {
            "cold": int((counts == 0).sum()),
            "median": float(np.median(counts)),
            "most": int(counts.max(initial=0)),
        },
        "splits": {split: _describe_split(dataset.windows(split), counts == 0) for split in SPLITS},
        "dropped": card.dropped,
        "warnings": card.warnings,
    }


def _describe_split(windows: pl.DataFrame, cold: npt.NDArray[np.bool_]) -> dict[str, Any]:
    lengths = windows["history"].list.len()
    distribution = lengths.value_counts(sort=False).sort("history")
    return {
        "windows": windows.height,
        "users": windows["user_id"].n_unique(),
        "history_length": {
            "mean": lengths.mean(),
            "windows": {str(length): count for length, count in distribution.iter_rows()},
        },
        "cold_target_share": None if windows.is_empty() else float(cold[windows["target"].to_numpy()].mean()),
        "target_in_history_share": windows.select(pl.col("history").list.contains(pl.col("target")).mean()).item(),
        "first": windows["timestamp"].min(),
        "last": windows["timestamp"].max(),
    }

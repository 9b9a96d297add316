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
        "splits": {split: _describe_split(dataset.scan_windows(split), counts == 0) for split in SPLITS},
        "dropped": card.dropped,
        "appended": [record.model_dump() for record in card.appended],
        "warnings": card.warnings,
    }


def _describe_split(windows: pl.LazyFrame, cold: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Counted in a stream: the windows are never in memory together."""
    questions = (
        windows.select(
            windows=pl.len(),
            known=pl.col("history").list.contains(pl.col("target")).sum(),
            first=pl.col("timestamp").min(),
            last=pl.col("timestamp").max(),
        ),
        windows.select(pl.col("user_id").unique()).select(users=pl.len()),
        windows.group_by(length=pl.col("history").list.len()).len(name="windows").sort("length"),
        windows.group_by("target").len(name="windows"),
    )
    whole, users, lengths, targets = pl.collect_all(questions, engine="streaming")
    count, known, first, last = whole.row(0)
    cold_targets = int(targets.filter(pl.Series(cold[targets["target"].to_numpy()]))["windows"].sum())
    return {
        "windows": count,
        "users": users.item(),
        "history_length": {
            "mean": lengths.select((pl.col("length") * pl.col("windows")).sum()).item() / count if count else None,
            "windows": {str(length): number for length, number in lengths.iter_rows()},
        },
        "cold_target_share": cold_targets / count if count else None,
        "target_in_history_share": known / count if count else None,
        "first": first,
        "last": last,
    }

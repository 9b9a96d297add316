"""Which interactions are training, validation and test.

The frames here hold one row per interaction, each user's rows together and in time order, with `user` (UInt32),
`timestamp` and `position` (UInt32, from 0 within the user).
"""

import polars as pl

from catalign.errors import UserError

SPLITS = ("train", "valid", "test")
SPLIT_TYPE = pl.Enum(SPLITS)
SHARES = (0.8, 0.1, 0.1)

_GIVEN_NAMES = {
    "train": "train", "training": "train",
    "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip


def cut_instants(timestamps: pl.Series, shares: tuple[float, ...] = SHARES) -> list[int]:
    """Return the instants at which time is cut so that the parts hold `shares` of the rows.

    A part begins at its instant and all rows of one instant fall on one side, so no part sees another's time; where
    many rows share an instant the parts are therefore only about as large as asked.

    Args:
        timestamps: milliseconds, without null.
        shares: of the parts, in time order; they sum to 1.

    Returns:
        One instant fewer than there are shares.
    """
    ordered = timestamps.sort()
    ends = [round(sum(shares[: part + 1]) * ordered.len(), 6) for part in range(len(shares) - 1)]
    return [int(ordered[min(int(end), ordered.len() - 1)]) for end in ends]


def chronological(interactions: pl.DataFrame, *, min_history: int) -> pl.Series:
    """Cut all interactions at two instants, so that the windows are divided 8:1:1 by the time of their target.

    Args:
        interactions: as in the head of this module, `timestamp` without null.
        min_history: an interaction with fewer ones before it is no target.

    Returns:
        The split of every interaction.
    """
    targets = interactions.filter(pl.col("position") >= min_history)["timestamp"]
    if targets.is_empty():
        raise UserError(
            "no user has enough interactions for one window", mend="lower --k-core, --min-rating or --min-history"
        )
    valid_from, test_from = cut_instants(targets)
    time = pl.col("timestamp")
    split = (
        pl.when(time < valid_from)
        .then(pl.lit("train"))
        .when(time < test_from)
        .then(pl.lit("valid"))
        .otherwise(pl.lit("test"))
    )
    return interactions.select(split=split.cast(SPLIT_TYPE))["split"]


def leave_one_out(interactions: pl.DataFrame) -> pl.Series:
    """Each user's last interaction is test, the one before it validation; users with fewer than three only train.

    It leaks: a user's training interactions may lie after another user's test interaction, so a model learns from
    the future of those it is tested on (Ji et al., "A critical study on data leakage in recommender system offline
    evaluation", 2023).
    """
    length = pl.len().over("user")
    from_end = length - 1 - pl.col("position")
    split = (
        pl.when((length >= 3) & (from_end == 0)).then(pl.lit("test"))
        .when((length >= 3) & (from_end == 1)).then(pl.lit("valid"))
        .otherwise(pl.lit("train"))
    )  # fmt: skip
    return interactions.select(split=split.cast(SPLIT_TYPE))["split"]


def given_names(column: pl.Expr) -> pl.Expr:
    """Read the names of splits (train, validation, val, dev, test... in any case); null where it is none."""
    return (
        column.cast(pl.String)
        .str.strip_chars()
        .str.to_lowercase()
        .replace_strict(_GIVEN_NAMES, default=None, return_dtype=SPLIT_TYPE)
    )

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
    split = pl.when(time < valid_from).then(_split("train")).when(time < test_from).then(_split("valid"))
    return interactions.select(split=split.otherwise(_split("test")))["split"]


def leave_one_out(interactions: pl.DataFrame) -> pl.Series:
    """Each user's last interaction is test, the one before it validation; users with fewer than three only train.

    It leaks: a user's training interactions may lie after another user's test interaction, so a model learns from
    the future of those it is tested on (Ji et al., "A critical study on data leakage in recommender system offline
    evaluation", 2023).
    """
    is_last = (pl.col("user") != pl.col("user").shift(-1)).fill_null(True)
    is_test = is_last & (pl.col("position") >= 2)
    is_valid = is_test.shift(-1, fill_value=False)
    split = pl.when(is_test).then(_split("test")).when(is_valid).then(_split("valid")).otherwise(_split("train"))
    return interactions.select(split=split)["split"]


def out_of_time_order(interactions: pl.DataFrame) -> int:
    """Count the interactions that come after one of a later split of the same user."""
    split = pl.col("split").to_physical().cast(pl.UInt64)
    place = pl.col("user").cast(pl.UInt64) * len(SPLITS) + split  # users come in the order of their numbers
    return int(interactions.select((place < place.cum_max()).sum()).item())


def _split(name: str) -> pl.Expr:
    return pl.lit(name, dtype=SPLIT_TYPE)


def given_names(column: pl.Expr) -> pl.Expr:
    """Read the names of splits (train, validation, val, dev, test... in any case); null where it is none."""
    return (
        column.cast(pl.String)
        .str.strip_chars()
        .str.to_lowercase()
        .replace_strict(_GIVEN_NAMES, default=None, return_dtype=SPLIT_TYPE)
    )

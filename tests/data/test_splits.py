"""Splits: what is training never lies after what is tested."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.data.splits import SPLITS, chronological, cut_instants, given_names, leave_one_out, out_of_time_order
from catalign.errors import UserError


def log(times: list[list[int]]) -> pl.DataFrame:
    """One list of times per user."""
    rows = [(user, time, place) for user, mine in enumerate(times) for place, time in enumerate(sorted(mine))]
    schema = {"user": pl.UInt32, "timestamp": pl.Int64, "position": pl.UInt32}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_twenty_targets_are_cut_sixteen_two_two() -> None:
    frame = log([[0, *range(1, 21)]])
    split = chronological(frame, min_history=1)
    targets = split.filter(frame["position"] >= 1)
    assert [targets.to_list().count(name) for name in SPLITS] == [16, 2, 2]
    assert split[0] == "train"  # an interaction without a window belongs to a split as well


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 1000), min_size=2, max_size=12), min_size=1, max_size=8))
def test_no_split_begins_before_the_one_before_it_ends(times: list[list[int]]) -> None:
    frame = log(times)
    frame = frame.with_columns(split=chronological(frame, min_history=1))
    spans = [frame.filter(pl.col("split") == name)["timestamp"] for name in SPLITS]
    for earlier in range(3):
        for later in range(earlier + 1, 3):
            if spans[earlier].len() and spans[later].len():
                assert int(spans[earlier].max()) < int(spans[later].min())  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=10, max_size=60, unique=True))
def test_distinct_times_are_cut_as_near_to_the_shares_as_can_be(times: list[int]) -> None:
    valid_from, test_from = cut_instants(pl.Series(times))
    before = sum(time < valid_from for time in times), sum(time < test_from for time in times)
    assert before == (len(times) * 8 // 10, len(times) * 9 // 10)


def test_nothing_to_cut_is_told() -> None:
    with pytest.raises(UserError, match="no user has enough interactions"):
        chronological(log([[1], [2]]), min_history=1)


def test_leave_one_out_takes_the_last_two_of_users_with_three() -> None:
    split = leave_one_out(log([[1, 2, 3, 4], [1, 2], [5, 6, 7]]))
    assert split.to_list() == ["train", "train", "valid", "test", "train", "train", "train", "valid", "test"]


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(SPLITS), max_size=6), max_size=6))
def test_splits_of_users_are_those_of_a_loop(given_splits: list[list[str]]) -> None:
    frame = log([list(range(len(mine))) for mine in given_splits])
    last_two = [
        "train" if len(mine) < 3 or place < len(mine) - 2 else "valid" if place == len(mine) - 2 else "test"
        for mine in given_splits
        for place in range(len(mine))
    ]
    assert leave_one_out(frame).to_list() == last_two
    flat = pl.Series("split", [split for mine in given_splits for split in mine], dtype=pl.Enum(SPLITS))
    late = [
        any(SPLITS.index(before) > SPLITS.index(split) for before in mine[:place])
        for mine in given_splits
        for place, split in enumerate(mine)
    ]
    assert out_of_time_order(frame.with_columns(flat)) == sum(late)


def test_the_names_of_given_splits() -> None:
    frame = pl.DataFrame({"split": ["Train", " validation", "val", "dev", "TEST", "other", None]})
    named = frame.select(given_names(pl.col("split")))["split"].to_list()
    assert named == ["train", "valid", "valid", "valid", "test", None, None]

"""Drawn negatives: what they never are, and that all others are as likely."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.errors import UserError
from catalign.evaluation import draws
from catalign.evaluation.draws import draw_candidates, draw_negatives


def windows_of(*rows: tuple[list[int], int]) -> pl.DataFrame:
    schema = {"history": pl.List(pl.UInt32), "target": pl.UInt32}
    return pl.DataFrame({"history": [row[0] for row in rows], "target": [row[1] for row in rows]}, schema=schema)


def items_of(titles: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"title": titles})


NONE = np.zeros(100, dtype=np.int64)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_negatives_look_like_nothing_else(data: st.DataObject) -> None:
    titles = data.draw(st.lists(st.sampled_from("abcdefghij"), min_size=6, max_size=20))
    item = st.integers(0, len(titles) - 1)
    rows = data.draw(st.lists(st.tuples(st.lists(item, min_size=1, max_size=3), item), min_size=1, max_size=5))
    free = min(len(set(titles) - {titles[number] for number in (*history, target)}) for history, target in rows)
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(titles), max_size=len(titles))))
    negative_WK = draw_negatives(windows_of(*rows), items_of(titles), counts, free, data.draw(st.integers(0, 9)))
    assert negative_WK.shape == (len(rows), free)
    for (history, target), negatives in zip(rows, negative_WK.tolist(), strict=True):
        looks = [titles[number] for number in (*negatives, target)]
        assert len(set(looks)) == free + 1
        assert not {titles[number] for number in negatives} & {titles[number] for number in history}
        for number in negatives:  # the most popular item of its title
            assert counts[number] == max(
                counts[other] for other in range(len(titles)) if titles[other] == titles[number]
            )
    with pytest.raises(UserError, match=f"{free + 1} negatives asked for, but of"):
        draw_negatives(windows_of(*rows), items_of(titles), counts, free + 1, 0)


def test_every_other_title_is_as_likely() -> None:
    """8,000 draws of 2 from the 4 titles that are neither history nor target: each stands in half of them."""
    windows = windows_of(*[([0], 1)] * 8_000)
    negative_WK = draw_negatives(windows, items_of(list("abcdef")), NONE[:6], 2, 0)
    share = np.bincount(negative_WK.ravel(), minlength=6) / 8_000
    assert share[:2].tolist() == [0, 0]
    assert np.abs(share[2:] - 0.5).max() < 4 * np.sqrt(0.25 / 8_000)
    first = np.bincount(negative_WK[:, 0], minlength=6) / 8_000
    assert np.abs(first[2:] - 0.25).max() < 4 * np.sqrt(0.1875 / 8_000)


def test_the_target_stands_anywhere() -> None:
    candidate_WN = draw_candidates(windows_of(*[([0], 1)] * 6_000), items_of(list("abcdef")), NONE[:6], 3, 0)
    assert candidate_WN.shape == (6_000, 3)
    place = (candidate_WN == 1).argmax(axis=1)
    assert ((candidate_WN == 1).sum(axis=1) == 1).all()
    assert np.abs(np.bincount(place) / 6_000 - 1 / 3).max() < 4 * np.sqrt(2 / 9 / 6_000)


def test_a_seed_draws_the_same_however_many_rows_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    windows, items = windows_of(*[([0], 1), ([2, 3], 4)] * 20), items_of(list("abcdefghij"))
    whole = draw_candidates(windows, items, NONE[:10], 4, 7)
    assert (whole != draw_candidates(windows, items, NONE[:10], 4, 8)).any()
    monkeypatch.setattr(draws, "_CHUNK_CELLS", 30)
    assert (whole == draw_candidates(windows, items, NONE[:10], 4, 7)).all()


def test_no_windows_no_negatives() -> None:
    assert draw_negatives(windows_of(), items_of(["a", "b"]), NONE[:2], 1, 0).shape == (0, 1)

import ast

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalign.evaluation import floor
from catalign.evaluation.floor import (
    BACKWARD,
    RECENCY,
    cosine_similarity,
    floor_metrics,
    floor_rankings,
    following_counts,
    ordered_similarity,
    rank_by_popularity,
    rank_by_similarity,
)
from catalign.evaluation.metrics import NO_ITEM, ndcg, ranks_of_targets
from conftest import SHARED

VIDEO_GAMES = SHARED / "data" / "amazon_video_games"


def windows(*pairs: tuple[list[int], int]) -> pl.DataFrame:
    schema = {"history": pl.List(pl.UInt32), "target": pl.UInt32}
    return pl.DataFrame(
        {"history": [history for history, _ in pairs], "target": [target for _, target in pairs]}, schema
    )


# Six items. 0 is followed by 1 (three times), 2 by 3 (twice); 4 is popular by itself; 5 never occurs.
TRAINING = windows(([0], 1), ([0], 1), ([0], 1), ([2], 3), ([2], 3))
COUNTS_I = np.array([3, 3, 2, 2, 9, 0])


def test_popularity_orders_by_count_then_index() -> None:
    history = windows(([0], 1), ([4, 0], 1))["history"]
    assert rank_by_popularity(COUNTS_I, history, depth=6).tolist() == [[4, 0, 1, 2, 3, 5]] * 2
    assert rank_by_popularity(COUNTS_I, history, depth=2).tolist() == [[4, 0]] * 2


def test_popularity_without_the_history() -> None:
    history = windows(([0], 1), ([4, 0, 4], 1))["history"]
    assert rank_by_popularity(COUNTS_I, history, depth=3, exclude_history=True).tolist() == [[4, 1, 2], [1, 2, 3]]
    everything = rank_by_popularity(COUNTS_I, history, depth=8, exclude_history=True)
    assert everything[0].tolist() == [4, 1, 2, 3, 5, NO_ITEM, NO_ITEM, NO_ITEM]
    assert everything[1].tolist() == [1, 2, 3, 5, NO_ITEM, NO_ITEM, NO_ITEM, NO_ITEM]


def test_neighbours_come_first_then_popularity_then_index() -> None:
    ranked = floor_rankings(TRAINING, COUNTS_I, windows(([0], 1), ([2], 3), ([1], 0), ([5], 0)), depth=6)
    assert ranked["item-kNN"].tolist() == [
        [1, 4, 0, 2, 3, 5],
        [3, 4, 0, 1, 2, 5],
        [0, 4, 1, 2, 3, 5],  # 1 follows 0, and the cosine has no order
        [4, 0, 1, 2, 3, 5],  # nothing is known about 5
    ]
    assert list(ranked) == ["popularity", "item-kNN", "item-kNN, ordered"]


def test_order_matters_to_the_ordered_form_only() -> None:
    training = windows(([0], 1), ([0], 1), ([2], 0), ([2], 0))  # 2, then 0, then 1
    counts_I = np.array([4, 2, 2])
    following_II = following_counts(training, 3)
    cosine_II, ordered_II = cosine_similarity(following_II, counts_I), ordered_similarity(following_II, counts_I)
    assert cosine_II[0, 1] == cosine_II[0, 2] == pytest.approx(2 / np.sqrt(4 * 2))
    assert ordered_II[0, 1] == pytest.approx(2 / (4**0.5 * 2**0.1))
    assert ordered_II[0, 2] == pytest.approx(BACKWARD * 2 / (4**0.5 * 2**0.1))


def test_recent_history_weighs_more() -> None:
    cosine_II = cosine_similarity(following_counts(windows(([0], 1), ([2], 3)), 4), np.ones(4, dtype=np.int64))
    history = windows(([0, 2], 0), ([2, 0], 0))["history"]
    ranked = rank_by_similarity(cosine_II, np.ones(4, dtype=np.int64), history, depth=2)
    assert ranked.tolist() == [[3, 1], [1, 3]]


def test_the_history_can_be_left_out() -> None:
    training = windows(([0], 1), ([1], 1), ([1], 1))  # 1 is followed by itself
    ranked = floor_rankings(training, np.array([1, 3, 0]), windows(([0, 1], 1)), depth=3)
    assert ranked["item-kNN"].tolist() == [[1, 0, 2]]
    ranked = floor_rankings(training, np.array([1, 3, 0]), windows(([0, 1], 1)), depth=3, exclude_history=True)
    assert all(lists.tolist() == [[2, NO_ITEM, NO_ITEM]] for lists in ranked.values())


def test_metrics_of_the_floor() -> None:
    asked = windows(([0], 1), ([2], 3), ([0], 5)).with_columns(user_id=pl.Series(["ann", "ann", "bob"]))
    metrics = floor_metrics(TRAINING, COUNTS_I, asked)
    assert metrics["item-kNN"]["hr@1"] == pytest.approx(2 / 3)
    assert metrics["item-kNN"]["warm"]["hr@1"] == 1
    assert (metrics["popularity"]["hr@1"], metrics["popularity"]["cold"]["n"]) == (0, 1)
    assert metrics["popularity"]["mrr@5"] == pytest.approx((1 / 3 + 1 / 5 + 0) / 3)  # 4, 0, 1, 2, 3, 5
    assert metrics["popularity"]["ci95_over"] == "users"


@st.composite
def worlds(draw: st.DrawFn) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    items = draw(st.integers(2, 9))
    pair = st.tuples(st.lists(st.integers(0, items - 1), min_size=1, max_size=4), st.integers(0, items - 1))
    train, test = (draw(st.lists(pair, min_size=1, max_size=8)) for _ in range(2))
    return windows(*train), windows(*test), items


@given(worlds(), st.booleans())
def test_agrees_with_a_plain_loop(world: tuple[pl.DataFrame, pl.DataFrame, int], exclude: bool) -> None:
    training, asked, items = world
    counts_I = np.bincount(training["target"], minlength=items)
    similarity_II = ordered_similarity(following_counts(training, items), counts_I)
    dense_II = similarity_II.toarray()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(floor, "_CHUNK_CELLS", 2 * items)  # two windows at once
        ranked_WK = rank_by_similarity(similarity_II, counts_I, asked["history"], depth=5, exclude_history=exclude)
    for history, row in zip(asked["history"].to_list(), ranked_WK.tolist(), strict=True):
        score_I = sum(RECENCY**age * dense_II[item] for age, item in enumerate(reversed(history)))
        left = [item for item in range(items) if not (exclude and item in history)]
        left.sort(key=lambda item: (-np.float32(score_I[item]), -counts_I[item], item))
        listed = [item for item in row if item != NO_ITEM]
        assert len(listed) == min(5, len(left)) and len(set(listed)) == len(listed)
        scores = [score_I[item] for item in listed]
        assert scores == pytest.approx(
            [score_I[item] for item in left[:5]], rel=1e-6
        )  # last bits depend on the order of a sum


def read_video_games(name: str) -> pl.DataFrame:
    table = pl.read_csv(VIDEO_GAMES / name, columns=["history_item_id", "item_id"])
    history = pl.Series("history", [ast.literal_eval(text) for text in table["history_item_id"]], pl.List(pl.UInt32))
    return pl.DataFrame({"history": history, "target": table["item_id"].cast(pl.UInt32)})


@pytest.mark.realdata
@pytest.mark.skipif(not VIDEO_GAMES.exists(), reason="no Amazon Video Games beside the project")
def test_video_games() -> None:
    training, test = read_video_games("train.csv.gz"), read_video_games("test.csv")
    counts_I = np.bincount(training["target"], minlength=3_858)
    target_W = test["target"].to_numpy().astype(np.int64)
    found = {
        name: ndcg(ranks_of_targets(ranked_WK, target_W), 10).mean()
        for name, ranked_WK in floor_rankings(training, counts_I, test).items()
    }
    assert 0.010 < found["popularity"] < 0.017
    assert 0.047 < found["item-kNN"] < 0.059
    assert 0.058 < found["item-kNN, ordered"] < 0.074

import doctest
import json
import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalign.errors import UserError
from catalign.evaluation import metrics
from catalign.evaluation.metrics import (
    KS,
    NO_ITEM,
    hit_rate,
    metric_of_ranks,
    mrr,
    ndcg,
    ranks_of_targets,
    summarise,
)
from conftest import SHARED

ORACLE = {"hr": ir_measures.Success, "ndcg": ir_measures.nDCG, "mrr": ir_measures.RR}
REFERENCE = SHARED / "vectors" / "reference.json"


def ranks(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_docstrings_compute_what_they_say() -> None:
    result = doctest.testmod(metrics)
    assert result.attempted >= 6
    assert result.failed == 0


def test_values_by_arithmetic() -> None:
    rank_W = ranks(1, 2, 5, 6, 0)
    assert hit_rate(rank_W, 5).tolist() == [1, 1, 1, 0, 0]
    assert ndcg(rank_W, 5) == pytest.approx([1 / math.log2(2), 1 / math.log2(3), 1 / math.log2(6), 0, 0])
    assert mrr(rank_W, 5) == pytest.approx([1 / 1, 1 / 2, 1 / 5, 0, 0])


@pytest.mark.realdata
@pytest.mark.skipif(not REFERENCE.exists(), reason="no reference values beside the project")
def test_reference_values() -> None:
    reference = json.loads(REFERENCE.read_text())["metrics"]
    rank_W = ranks(*(rank or 0 for rank in reference["rank_of_target"]))
    rank_W[rank_W > 20] = 0  # outside a list of 20
    ours = summarise(rank_W, np.ones(len(rank_W), dtype=bool), depth=20)
    for name, value in reference.items():
        if "@" in name:
            assert ours[name] == pytest.approx(value, abs=1e-10), name


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Ranked lists of 1 to 25 of 30 items, all of one length, and one target each."""
    windows, depth = draw(st.integers(1, 6)), draw(st.integers(1, 25))
    ranked = [draw(st.permutations(range(30)))[:depth] for _ in range(windows)]
    target = draw(st.lists(st.integers(0, 29), min_size=windows, max_size=windows))
    return np.array(ranked, dtype=np.int64), np.array(target, dtype=np.int64)


@given(rankings())
def test_agrees_with_ir_measures(ranking: tuple[np.ndarray, np.ndarray]) -> None:
    ranked_WK, target_W = ranking
    windows, depth = ranked_WK.shape
    qrels = [ir_measures.Qrel(str(row), str(target), 1) for row, target in enumerate(target_W)]
    run = [  # strictly falling scores: no tie for the oracle to break in its own way
        ir_measures.ScoredDoc(str(row), str(item), float(depth - place))
        for row in range(windows)
        for place, item in enumerate(ranked_WK[row])
    ]
    oracle = {f"{ours}@{k}": theirs @ k for ours, theirs in ORACLE.items() for k in KS if k <= depth}
    expected = ir_measures.calc_aggregate(oracle.values(), qrels, run)
    ours = summarise(ranks_of_targets(ranked_WK, target_W), np.ones(windows, dtype=bool), depth=depth)
    for name, measure in oracle.items():
        assert ours[name] == pytest.approx(expected[measure], abs=1e-10), name


@given(rankings())
def test_names_that_are_one_number_agree_with_ir_measures(ranking: tuple[np.ndarray, np.ndarray]) -> None:
    """Recall, mean average precision and precision are computed by the oracle on their own."""
    ranked_WK, target_W = ranking
    windows, depth = ranked_WK.shape
    qrels = [ir_measures.Qrel(str(row), str(target), 1) for row, target in enumerate(target_W)]
    run = [
        ir_measures.ScoredDoc(str(row), str(item), float(depth - place))
        for row in range(windows)
        for place, item in enumerate(ranked_WK[row])
    ]
    rank_W = ranks_of_targets(ranked_WK, target_W)
    found = ir_measures.calc_aggregate([ir_measures.R @ 5, ir_measures.AP @ 5, ir_measures.P @ 5], qrels, run)
    assert metric_of_ranks("recall@5", rank_W).mean() == pytest.approx(found[ir_measures.R @ 5])
    assert metric_of_ranks("map@5", rank_W).mean() == pytest.approx(found[ir_measures.AP @ 5])
    assert metric_of_ranks("hr@5", rank_W).mean() / 5 == pytest.approx(found[ir_measures.P @ 5])


@pytest.mark.parametrize("name", ["ndcg", "ndcg@", "ndcg@0", "ndcg@ten", "f1@5", ""])
def test_metrics_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"no such metric: ?{name}; choose from hr, ndcg, mrr, recall, map"):
        metric_of_ranks(name, ranks(1))


@given(rankings())
def test_rank_is_the_place_of_the_target(ranking: tuple[np.ndarray, np.ndarray]) -> None:
    ranked_WK, target_W = ranking
    expected = [
        row.index(target) + 1 if target in row else 0
        for row, target in zip(ranked_WK.tolist(), target_W.tolist(), strict=True)
    ]
    assert ranks_of_targets(ranked_WK, target_W).tolist() == expected


def test_ranked_list_may_end_early_but_holds_no_item_twice() -> None:
    assert ranks_of_targets(ranks(4, NO_ITEM, NO_ITEM)[None], ranks(4)).tolist() == [1]
    assert ranks_of_targets(ranks(4, NO_ITEM, NO_ITEM)[None], ranks(NO_ITEM)).tolist() == [0]
    with pytest.raises(ValueError, match="row 1 holds an item twice"):
        ranks_of_targets(np.stack([ranks(1, 2, 3), ranks(4, 5, 4)]), ranks(1, 4))
    with pytest.raises(ValueError, match="after a NO_ITEM"):
        ranks_of_targets(ranks(1, NO_ITEM, 3)[None], ranks(3))
    with pytest.raises(ValueError, match="do not belong together"):
        ranks_of_targets(ranks(1, 2, 3)[None], ranks(3, 1))


def test_summary_parts_warm_and_cold() -> None:
    summary = summarise(ranks(1, 2, 0, 4), np.array([True, True, False, False]), depth=20)
    assert (summary["n"], summary["warm"]["n"], summary["cold"]["n"]) == (4, 2, 2)
    assert (summary["hr@1"], summary["warm"]["hr@1"], summary["cold"]["hr@1"]) == (1 / 4, 1 / 2, 0)
    assert summary["mrr@5"] == pytest.approx((1 + 1 / 2 + 0 + 1 / 4) / 4)
    assert {f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in KS} == set(summary["cold"]["ci95"])
    for part in (summary, summary["warm"], summary["cold"]):
        for name, (low, high) in part["ci95"].items():
            assert low <= part[name] <= high
    assert json.loads(json.dumps(summary)) == summary


def test_summary_leaves_out_what_short_lists_cannot_tell() -> None:
    summary = summarise(ranks(1, 9), np.array([True, False]), depth=10)
    assert "hr@10" in summary and "hr@20" not in summary and "ndcg@20" not in summary["warm"]
    assert summary["depth"] == 10
    with pytest.raises(ValueError, match=r"0\.\.10, got 1\.\.11"):
        summarise(ranks(1, 11), np.array([True, False]), depth=10)


def test_summary_of_no_windows_and_of_users() -> None:
    no_cold = summarise(ranks(1, 2), np.array([True, True]), depth=5, groups_W=np.array(["ann", "ann"]))
    assert no_cold["cold"] == {"n": 0}
    assert no_cold["ci95_over"] == "users"
    assert no_cold["ci95"]["hr@1"] == [0.5, 0.5]  # one user only: nothing varies
    assert summarise(ranks(1, 2), np.array([True, True]), depth=5)["ci95_over"] == "windows"

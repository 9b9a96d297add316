"""The account of dropped rows."""

import json
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.data.ledger import Ledger


def frame(values: list[int]) -> pl.DataFrame:
    read = pl.DataFrame({"value": values}, schema={"value": pl.Int64})
    return read.with_columns(file=pl.lit("t.csv"), row=pl.int_range(pl.len()) + 2, ours=pl.lit("not shown"))


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=4), st.integers(0, 9), st.integers(0, 9))
def test_rows_in_are_rows_kept_and_rows_dropped(parts: list[list[int]], low: int, high: int) -> None:
    ledger, kept = Ledger(keep=3), 0
    for part in parts:
        ledger.enter("t", len(part))
        left = ledger.drop("t", frame(part), pl.col("value") < low, "low")
        kept += ledger.drop("t", left, pl.col("value") > high, "high").height
    values = [value for part in parts for value in part]
    assert ledger.rows_in.get("t", 0) == len(values)
    assert kept == len([value for value in values if low <= value <= high]) == (ledger.kept("t") if parts else 0)
    for reason in ("low", "high"):
        shown = [reject for reject in ledger.rejects if reject["reason"] == reason]
        assert len(shown) == min(ledger.dropped.get("t", {}).get(reason, 0), 3)


def test_null_is_no_reason_and_rejects_show_the_row_as_read(tmp_path: Path) -> None:
    ledger = Ledger()
    ledger.enter("t", 3)
    rows = frame([1, 2, 3]).with_columns(pl.when(pl.col("value") > 1).then("value"))
    assert ledger.drop("t", rows, pl.col("value") > 2, "large")["row"].to_list() == [2, 3]
    ledger.write(tmp_path / "rejects.jsonl")
    (line,) = (tmp_path / "rejects.jsonl").read_text().splitlines()
    assert json.loads(line) == {"table": "t", "reason": "large", "value": 3, "file": "t.csv", "row": 4}


def test_the_reasons_in_words_begin_with_the_largest() -> None:
    ledger = Ledger()
    assert ledger.reasons("t") == "nothing was dropped"
    ledger.note("t", "low", 2, [])
    ledger.note("t", "high", 1_234, [])
    assert ledger.reasons("t") == "1,234 high, 2 low"

"""Training windows near to a history, against counting by hand."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from catalign.explain.neighbours import nearest_windows
from tiny import tiny_trie

TITLES = [(5, 6), (5,), (7, 8), (5, 6), (10, 10)]  # items 0 and 3 share a title
TRIE = tiny_trie(TITLES)
ITEMS = st.integers(0, len(TITLES) - 1)
WINDOWS = st.lists(st.tuples(st.lists(ITEMS, min_size=1, max_size=5), ITEMS), max_size=12)


@given(WINDOWS, st.lists(ITEMS, min_size=1, max_size=5), ITEMS, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_most_titles_in_common_first(
    windows: list[tuple[list[int], int]], history: list[int], item: int, count: int
) -> None:
    schema = {"history": pl.List(pl.UInt32), "target": pl.UInt32}
    frame = pl.DataFrame({"history": [w[0] for w in windows], "target": [w[1] for w in windows]}, schema=schema)
    rows = []
    for seen, target in windows:
        common = {TITLES[other] for other in seen} & {TITLES[other] for other in history}
        if TITLES[target] == TITLES[item] and common:
            rows.append((len(common), seen, target))
    rows = sorted(rows, key=lambda row: (-row[0], len(row[1])))[:count]
    found = nearest_windows(frame, TRIE, history, item, count)
    assert [(row["shared"], row["history"], row["target"]) for row in found.to_dicts()] == rows

"""Scored positions against a walk over the titles, token by token."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from catalign.prompting.positions import scored_positions
from tiny import END, children_of, tiny_trie

Titles = list[tuple[int, ...]]
words = st.integers(3, 5)
catalogues = st.lists(st.lists(words, min_size=1, max_size=5).map(tuple), min_size=1, max_size=8)


def expected(titles: Titles, targets: list[int]) -> list[tuple[int, int, int, list[int], bool]]:
    """(window, depth, gold token, valid tokens, first) of every branching position."""
    found = []
    for window, target in enumerate(targets):
        first = True
        for depth, token in enumerate((*titles[target], END)):
            children = children_of(titles, titles[target][:depth])
            if len(children) > 1:
                found.append((window, depth, token, children, first))
                first = False
    return found


@given(catalogues, st.data())
def test_valid(titles: Titles, data: st.DataObject) -> None:
    targets = data.draw(st.lists(st.integers(0, len(titles) - 1), max_size=6))
    trie = tiny_trie(titles)
    positions = scored_positions(trie, np.array(targets, dtype=np.int64), "valid")
    token_E = trie.alphabet[positions.symbol_E]
    assert (np.diff(positions.position_E) >= 0).all()
    found = [
        (int(window), int(depth), int(token_E[gold]), token_E[positions.position_E == number].tolist(), bool(first))
        for number, (window, depth, gold, first) in enumerate(
            zip(positions.window_P, positions.depth_P, positions.gold_P, positions.first_P, strict=True)
        )
    ]
    assert found == expected(titles, targets)
    assert (positions.position_E[positions.gold_P] == np.arange(len(positions.gold_P))).all()
    assert positions.all_positions == sum(len(titles[target]) + 1 for target in targets)
    assert positions.gold_P.dtype == positions.position_E.dtype == positions.symbol_E.dtype == np.int64


@given(catalogues, st.data())
def test_vocabulary(titles: Titles, data: st.DataObject) -> None:
    targets = data.draw(st.lists(st.integers(0, len(titles) - 1), max_size=6))
    positions = scored_positions(tiny_trie(titles), np.array(targets, dtype=np.int64), "vocabulary")
    closed = [(*titles[target], END) for target in targets]
    assert positions.gold_P.tolist() == [token for title in closed for token in title]
    assert positions.depth_P.tolist() == [depth for title in closed for depth in range(len(title))]
    assert positions.window_P.tolist() == [window for window, title in enumerate(closed) for _ in title]
    assert positions.all_positions == len(positions.gold_P)
    assert len(positions.position_E) == len(positions.symbol_E) == 0

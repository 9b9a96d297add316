"""From titles to items."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from catalign.catalogue.trie import TitleTrie
from catalign.decoding.ranking import rank_items
from tiny import END


def make_trie() -> TitleTrie:
    """Items 0, 2 and 4 share a title (4 the most popular, then 0), 1 and 3 stand alone."""
    titles = [(5, END), (6, END), (5, END), (7, END), (5, END)]
    return TitleTrie.from_lists(titles, end_token=END, popularity=[2, 0, 1, 9, 7])


def test_a_title_gives_its_items_by_popularity() -> None:
    trie = make_trie()
    title_BK = np.array([[0, 1, 2], [2, 0, -1], [-1, -1, -1]])
    score_BK = np.array([[-1, -2, -3], [-1, -2, -np.inf], [-np.inf] * 3], dtype=np.float32)
    items, scores = rank_items(trie, title_BK, score_BK, 6)
    assert items.tolist() == [[4, 0, 2, 1, 3, -1], [3, 4, 0, 2, -1, -1], [-1] * 6]
    never = -np.inf
    assert scores.tolist() == [[-1, -1, -1, -2, -3, never], [-1, -2, -2, -2, never, never], [never] * 6]
    short, short_scores = rank_items(trie, title_BK, score_BK, 2)
    assert short.tolist() == [[4, 0], [3, 4], [-1, -1]]
    assert short_scores.tolist() == [[-1, -1], [-1, -2], [never, never]]


def test_closed_items_stay_out_although_their_title_is_found() -> None:
    closed = np.zeros((2, 5), dtype=np.bool_)
    closed[0, [4, 2]] = True
    closed[1, [0, 2, 4]] = True
    title_BK, score_BK = np.array([[0, 1], [0, 1]]), np.array([[-1, -2], [-1, -2]], dtype=np.float32)
    items, _ = rank_items(make_trie(), title_BK, score_BK, 3, closed)
    assert items.tolist() == [[0, 1, -1], [1, -1, -1]]


@given(st.data())
def test_brute_force(data: st.DataObject) -> None:
    trie = make_trie()
    users = data.draw(st.integers(1, 3))
    orders = [data.draw(st.permutations(range(3)).map(lambda order: order[:2])) for _ in range(users)]
    closed = np.array(data.draw(st.lists(st.booleans(), min_size=5 * users, max_size=5 * users))).reshape(users, 5)
    count = data.draw(st.integers(1, 7))
    score_BK = np.tile(np.array([-0.5, -1.5], dtype=np.float32), (users, 1))
    items, scores = rank_items(trie, np.array(orders), score_BK, count, closed)
    for user, order in enumerate(orders):
        found = [
            (int(item), float(score))
            for title, score in zip(order, score_BK[user], strict=True)
            for item in trie.items_of(title)
            if not closed[user, item]
        ][:count]
        found += [(-1, -np.inf)] * (count - len(found))
        assert list(zip(items[user].tolist(), scores[user].tolist(), strict=True)) == found

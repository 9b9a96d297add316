"""From found titles to ranked items."""

import numpy as np
import numpy.typing as npt

from catalign.catalogue.trie import TitleTrie

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
NO_ITEM = -1


def rank_items(
    trie: TitleTrie,
    title_BK: IntArray,
    score_BK: FloatArray,
    count: int,
    closed: npt.NDArray[np.bool_] | None = None,
) -> tuple[IntArray, FloatArray]:
    """Replace each title by the items that bear it (the most popular in training first) and keep the best `count`.

    Args:
        trie: the trie the titles belong to.
        title_BK: titles, best first, -1 where there is none.
        score_BK: their scores; items of one title get the same.
        count: items wanted per user.
        closed: [B, items]; items that a user must not get although they share a title with one that may be found.

    Returns:
        Items [B, count], -1 where there are fewer, and their scores, -inf there.
    """
    users = len(title_BK)
    known = title_BK >= 0
    title_F = title_BK[known]
    start_F = trie.title_items_start[title_F]
    copies_F = trie.title_items_start[title_F + 1] - start_F
    user_F, score_F = np.nonzero(known)[0], score_BK[known]
    within = np.arange(copies_F.sum()) - np.repeat(np.cumsum(copies_F) - copies_F, copies_F)
    item = trie.title_items[np.repeat(start_F, copies_F) + within].astype(np.int64)
    user, score = np.repeat(user_F, copies_F), np.repeat(score_F, copies_F)
    if closed is not None:
        keep = ~closed[user, item]
        item, user, score = item[keep], user[keep], score[keep]
    per_user = np.bincount(user, minlength=users)
    column = np.arange(len(item)) - np.repeat(np.cumsum(per_user) - per_user, per_user)
    keep = column < count
    item_BK = np.full((users, count), NO_ITEM, dtype=np.int64)
    ranked_score_BK = np.full((users, count), -np.inf, dtype=np.float32)
    item_BK[user[keep], column[keep]] = item[keep]
    ranked_score_BK[user[keep], column[keep]] = score[keep]
    return item_BK, ranked_score_BK

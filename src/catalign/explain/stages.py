"""What a training stage changed for one person: the lists of two runs side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from catalign.catalogue.catalogue import Catalogue
from catalign.decoding.candidates import score_candidates
from catalign.decoding.recommend import CatalogueSearch

DEPTH = 100  # a rank beyond this is not searched for


@dataclass(frozen=True)
class Move:
    """One item before and after.

    Attributes:
        item_id: as in the catalogue.
        title: its title.
        rank_before: its place in the first run's list, from 1; None below the depth of the search.
        rank_after: the same in the second run's.
        log_probability_before: of its title, exact, in the first run.
        log_probability_after: the same in the second.
    """

    item_id: str
    title: str
    rank_before: int | None
    rank_after: int | None
    log_probability_before: float
    log_probability_after: float


def compare_stages(
    before: CatalogueSearch, after: CatalogueSearch, catalogue: Catalogue, history: Sequence[int], k: int
) -> list[Move]:
    """Every item that is among the first k before or after, the best of the second run first.

    Args:
        before: search with the first model; its width is how deep ranks are known.
        after: search with the second one, over the same catalogue.
        catalogue: of both.
        history: item indices, oldest first.
        k: items of either list.
    """
    ranks = []
    for search in (before, after):
        (items,), _ = search.recommend_all([history], max(k, search.beams))
        ranks.append({item: rank for rank, item in enumerate(items.tolist(), 1) if item >= 0})
    first, second = ranks
    shown = [item for item in (*second, *first) if second.get(item, k + 1) <= k or first.get(item, k + 1) <= k]
    items = np.array(list(dict.fromkeys(shown)), dtype=np.int64)
    scores = [
        score_candidates(search.model, search.prompter, [history], [items], score=search.score)[0].tolist()
        for search in (before, after)
    ]
    return [
        Move(catalogue.item_ids[item], catalogue.titles[item], first.get(item), second.get(item), score, new_score)
        for item, score, new_score in zip(items.tolist(), *scores, strict=True)
    ]

"""Training windows near to a person: others who had much of the same history and then chose this very item."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from catalign.catalogue.trie import TitleTrie


def nearest_windows(
    windows: pl.DataFrame, trie: TitleTrie, history: Sequence[int], item: int, count: int = 3
) -> pl.DataFrame:
    """The training windows with this target that share most titles with a history.

    Exact and by counting: the model is not asked, so a near window is evidence in the data and not the reason of the
    model. Items with the same title count as one. Of windows that share as many titles the shorter history comes
    first, then the earlier row.

    Args:
        windows: `history` (list of item indices) and `target`.
        trie: of the same catalogue; says which items share a title.
        history: item indices.
        item: the target looked for.
        count: windows returned at most.

    Returns:
        The rows with a column `shared`, the number of titles in common; none where training never ended at the item.
    """
    title_I = pl.Series(trie.item_title.astype(np.uint32))
    wanted = title_I.gather(sorted(set(history))).unique()
    target = trie.items_of(int(trie.item_title[item])).tolist()
    numbers = pl.col("history").list.eval(pl.element().replace_strict(pl.Series(range(trie.items)), title_I))
    shared = numbers.list.set_intersection(pl.lit(wanted.implode())).list.len().alias("shared")
    return (
        windows.filter(pl.col("target").is_in(target))
        .with_columns(shared)
        .filter(pl.col("shared") > 0)
        .sort(pl.col("shared"), pl.col("history").list.len(), descending=[True, False], maintain_order=True)
        .head(count)
    )

"""Candidates drawn for a window: uniform over the catalogue's titles, without the history and the target.

Shapes: W windows, N candidates, T titles, I items.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.errors import UserError

Ints = npt.NDArray[np.int64]

_CHUNK_CELLS = 16_000_000  # random keys held at once


def draw_negatives(windows: pl.DataFrame, items: pl.DataFrame, training_counts_I: Ints, count: int, seed: int) -> Ints:
    """Draw negatives for every window, int64 [W, count].

    All sets of `count` titles that hold neither the target's title nor one of the history are equally likely. Of items
    that share a title the most popular in training stands for it, so no two candidates look alike.

    Args:
        windows: history and target.
        items: `title` of every item.
        training_counts_I: occurrences of each item in training.
        count: negatives per window.
        seed: the same seed, windows and catalogue give the same negatives.

    Raises:
        UserError: the catalogue has too few titles for some window.
    """
    item_T, title_I = _titles(items, training_counts_I)
    row_P, title_P = _closed_titles(windows, title_I)
    generator = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // len(item_T))
    drawn = []
    for start in range(0, len(windows), chunk):
        rows = min(chunk, len(windows) - start)
        key_CT = generator.random((rows, len(item_T)), dtype=np.float32)
        near_P = (row_P >= start) & (row_P < start + rows)
        key_CT[row_P[near_P] - start, title_P[near_P]] = np.inf
        open_C = np.isfinite(key_CT).sum(axis=1)
        if open_C.min() < count:
            raise UserError(
                f"{count} negatives asked for, but of {len(item_T):,} titles only {open_C.min()} are left outside the "
                f"history and the target of window {start + int(open_C.argmin())}",
                where="the catalogue",
                mend="ask for fewer candidates",
            )
        place_CK = np.argpartition(key_CT, count - 1, axis=1)[:, :count]
        order_CK = np.argsort(np.take_along_axis(key_CT, place_CK, axis=1), axis=1)
        drawn.append(item_T[np.take_along_axis(place_CK, order_CK, axis=1)])
    return np.concatenate([np.zeros((0, count), dtype=np.int64), *drawn])


def draw_candidates(windows: pl.DataFrame, items: pl.DataFrame, training_counts_I: Ints, count: int, seed: int) -> Ints:
    """Draw `count` - 1 negatives and put the target among them at a random place, int64 [W, count]; see above."""
    negative_WK = draw_negatives(windows, items, training_counts_I, count - 1, seed)
    target_W = windows["target"].to_numpy().astype(np.int64)
    candidate_WN = np.concatenate([target_W[:, None], negative_WK], axis=1)
    return np.random.default_rng([seed, 1]).permuted(candidate_WN, axis=1)


def _titles(items: pl.DataFrame, training_counts_I: Ints) -> tuple[Ints, Ints]:
    """The item that stands for each title [T], and the title of each item [I]."""
    numbered = items.select("title").with_row_index("item").with_columns(count=pl.Series(training_counts_I))
    first = numbered.sort("count", "item", descending=[True, False]).unique("title", keep="first", maintain_order=True)
    first = first.sort("item").with_row_index("number")
    title = numbered.join(first.select("title", "number"), on="title", how="left", maintain_order="left")["number"]
    return first["item"].to_numpy().astype(np.int64), title.to_numpy().astype(np.int64)


def _closed_titles(windows: pl.DataFrame, title_I: Ints) -> tuple[Ints, Ints]:
    """Row and title of everything that is no negative of a window."""
    closed = windows.select(pl.concat_list("history", "target"))["history"]
    row_P = np.repeat(np.arange(len(closed)), closed.list.len().to_numpy())
    return row_P, title_I[closed.explode(empty_as_null=False).to_numpy()]

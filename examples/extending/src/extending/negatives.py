"""A sampler of negatives: titles that look like the target's, because they stand beside it in the alphabet.

    catalign train --stage preference --negatives-from extending.negatives:alphabetical --from runs/msl --output runs/a

Legend: S = windows, I = items, M = proposals for each window.
"""

import numpy as np
import numpy.typing as npt
import polars as pl


def alphabetical(windows: pl.DataFrame, items: pl.DataFrame, count: int, seed: int) -> npt.NDArray[np.int64]:
    """The items nearest to the target in alphabetical order, the nearest first; [S, M]. Nothing is drawn.

    The alphabet is a circle, so every item has neighbours on both sides. The target itself comes first; catalign
    passes it over, and what is in the history.
    """
    order_I = items["title"].arg_sort().to_numpy().astype(np.int64)
    place_I = np.argsort(order_I)
    wanted = min(len(items), 4 * count + 50)  # proposals: the target and a history of ten may be among them
    step_M = np.arange(wanted)
    offset_M = np.where(step_M % 2, (step_M + 1) // 2, -(step_M // 2))  # 0, 1, -1, 2, -2, ...
    place_S = place_I[windows["target"].to_numpy()]
    nearest_SM: npt.NDArray[np.int64] = order_I[(place_S[:, None] + offset_M) % len(items)]
    return nearest_SM

"""Which items of a history a prompt shows."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class HistoryRule(BaseModel):
    """How much of a history is read; the same rule in training and in use.

    Attributes:
        kind: `last-n` shows the last `items` items. Its start moves with every target, so the windows of a long history
            share no prefix. `anchored` moves the start only every n items, n half of `items` rounded up: a target sees
            n to 2n - 1 items (or all, while there are fewer than n), and the windows between two moves share their
            prompt. It is another protocol than `last-n`, so results carry its name.
        items: the most items that are shown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["last-n", "anchored"] = "last-n"
    items: int = Field(default=10, ge=1)

    def shown(self, seen: int, available: int) -> int:
        """How many of the last items of a history are shown.

        Args:
            seen: items that the person had chosen before the target.
            available: items of the history at hand, at most `seen`.

        >>> anchored = HistoryRule(kind="anchored", items=9)
        >>> [anchored.shown(seen, seen) for seen in range(1, 16)]
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 5, 6, 7, 8, 9, 5]
        """
        if self.kind == "last-n":
            return min(self.items, available)
        step = (self.items + 1) // 2
        start = max(seen // step - 1, 0) * step
        return min(seen - start, available)


LAST_TEN = HistoryRule()
"""The published protocol: at most the last ten items."""

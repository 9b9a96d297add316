"""From windows to what one training step needs: a prefix forest, and which of its nodes predict which tokens.

Legend: S windows or sequences of a batch, P scored positions, E pairs of a scored position and a token valid there,
R rows, N nodes.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, overload

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from catalign.model.forest import pack_forest, pack_rows
from catalign.prompting.positions import Positions, Scores, needed_sequences, scored_positions, text_positions
from catalign.prompting.prompter import Prompter


class Histories(Sequence[npt.NDArray[np.uint32]]):
    """Histories in one array, without an object for each: those of tens of millions of windows fit into memory.

    Args:
        items: all their item indices, one history after the other.
        length_S: how many belong to each.
    """

    def __init__(self, items: npt.NDArray[np.uint32], length_S: npt.NDArray[np.integer]) -> None:
        self.items, self.length_S = items, length_S
        self._end_S = np.cumsum(length_S, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.length_S)

    @overload
    def __getitem__(self, number: int) -> npt.NDArray[np.uint32]: ...
    @overload
    def __getitem__(self, number: slice) -> list[npt.NDArray[np.uint32]]: ...
    def __getitem__(self, number: int | slice) -> npt.NDArray[np.uint32] | list[npt.NDArray[np.uint32]]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        end = self._end_S[number]
        return self.items[end - self.length_S[number] : end]


@dataclass(frozen=True)
class Windows:
    """Windows as arrays: ragged histories and one target each.

    Attributes:
        user_S: a number for each user.
        histories: item indices, oldest first.
        target_S: the item that followed.
        seen_S: how many items the user had chosen before the target, as far as the windows tell.
    """

    user_S: npt.NDArray[np.int64]
    histories: Sequence[npt.NDArray[np.uint32]]
    target_S: npt.NDArray[np.int64]
    seen_S: npt.NDArray[np.int64]

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> "Windows":
        """Read the frame of `Dataset.windows`; users are numbered in the order of their ids."""
        user = frame["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
        items = frame["history"].explode(empty_as_null=False).to_numpy()
        histories = Histories(items, frame["history"].list.len().to_numpy())
        return cls(user, histories, frame["target"].to_numpy().astype(np.int64), count_seen(frame))

    def __len__(self) -> int:
        return len(self.target_S)


def count_seen(frame: pl.DataFrame) -> npt.NDArray[np.int64]:
    """How many items each window's user had chosen before its target; [S].

    A history that grows is the whole past. A full one slides: each window that follows the row before it (same user,
    history moved on by that row's target) has seen one item more. Where a full history follows nothing, its length is
    taken.
    """
    history = frame["history"]
    length_S = history.list.len().to_numpy().astype(np.int64)
    follows = frame.select(
        (pl.col("user_id") == pl.col("user_id").shift(1))
        & (pl.col("history").list.len() == pl.col("history").list.len().shift(1))
        & (pl.col("history").list.last() == pl.col("target").shift(1))
    ).to_series()
    follows_S = follows.fill_null(False).to_numpy()
    running_S = np.cumsum(follows_S)
    start_S = np.maximum.accumulate(np.where(follows_S, 0, running_S))
    seen_S: npt.NDArray[np.int64] = length_S + running_S - start_S
    return seen_S


ROW_TOKENS = 512  # longest row, as long as `rows.set_row_tokens` has not said otherwise


class Batches(Protocol):
    """What the trainer asks of a maker of batches: the windows it draws from, and a batch of some of them.

    Attributes:
        windows: the windows.
        row_tokens: longest row of the forest.
    """

    windows: Windows
    row_tokens: int

    def __call__(self, numbers: list[int]) -> dict[str, torch.Tensor]:
        """The batch of the windows with these numbers; what the module's `forward` takes."""


def without_windows(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The rows of a batch with nothing in them to predict: its loss is 0, and so is all that is counted in it."""
    rows, listed = re.compile("_RN$"), re.compile("_[A-Z]$")  # by the shapes in their names
    return {
        name: value if rows.search(name) else value[:0] if listed.search(name) else torch.zeros_like(value)
        for name, value in batch.items()
    }


class BatchMaker:
    """Turns window numbers into a batch; the `data_collator` of the trainer.

    Args:
        windows: the windows to draw from.
        prompter: writes the prompts.
        scores: which tokens the objective compares the gold token with.
        row_tokens: most nodes in a row of the forest.
        share: merge common prefixes; off, every window is a row of its own (architectures where sharing is not exact).
    """

    def __init__(
        self, windows: Windows, prompter: Prompter, *, scores: Scores, row_tokens: int = ROW_TOKENS, share: bool = True
    ) -> None:
        self.windows = windows
        self.prompter = prompter
        self.scores: Scores = scores
        self.row_tokens = row_tokens
        self.share = share

    def __call__(self, numbers: list[int]) -> dict[str, torch.Tensor]:
        """Pack the windows with these numbers.

        Returns:
            What `pack` returns, first_P and all_positions.
        """
        batch, positions = self.pack(numbers, self.windows.target_S[numbers])
        return {
            **batch,
            "first_P": torch.from_numpy(positions.first_P),
            "all_positions": torch.tensor(positions.all_positions),
        }

    def prompts(self, numbers: Iterable[int]) -> list[npt.NDArray[np.int32]]:
        """The prompts of the windows with these numbers."""
        return [
            self.prompter.prompt(self.windows.histories[number], int(self.windows.seen_S[number])) for number in numbers
        ]

    def pack(
        self, numbers: list[int], item_S: npt.NDArray[np.int64], titles: int = 1
    ) -> tuple[dict[str, torch.Tensor], Positions]:
        """Pack prompts and those answer tokens that a later scored position needs.

        Args:
            numbers: of the windows.
            item_S: `titles` items for each window, one window after the other.
            titles: sequences that follow each window's prompt.

        Returns:
            token_RN, depth_RN, end_RN (absent without sharing), node_P, gold_P, position_E, symbol_E, token_counts
            (before and after merging), and pair_count, the pairs of a token and one it may attend to; and the scored
            positions.
        """
        positions = scored_positions(self.prompter.trie, item_S, self.scores)
        prompt_S = [prompt for prompt in self.prompts(numbers) for _ in range(titles)]
        return self._packed(needed_sequences(self.prompter.trie, prompt_S, item_S, positions), prompt_S, positions)

    def pack_texts(
        self, numbers: list[int], answers: list[npt.NDArray[np.int32]], texts: int = 1
    ) -> tuple[dict[str, torch.Tensor], Positions]:
        """As `pack`, with `texts` answers of any tokens for each window in place of titles; all tokens carry loss."""
        return self.pack_answers([prompt for prompt in self.prompts(numbers) for _ in range(texts)], answers)

    def pack_answers(
        self, prompt_S: list[npt.NDArray[np.int32]], answers: list[npt.NDArray[np.int32]]
    ) -> tuple[dict[str, torch.Tensor], Positions]:
        """As `pack_texts`, each answer after a prompt of its own."""
        positions = text_positions(answers)
        # The last token of an answer predicts nothing.
        sequences = [np.r_[prompt, answer[:-1]] for prompt, answer in zip(prompt_S, answers, strict=True)]
        return self._packed(sequences, prompt_S, positions)

    def _packed(
        self, sequences: list[npt.NDArray[np.int32]], prompt_S: list[npt.NDArray[np.int32]], positions: Positions
    ) -> tuple[dict[str, torch.Tensor], Positions]:
        forest = pack_forest(sequences, self.row_tokens) if self.share else pack_rows(sequences)
        length_S = np.fromiter(map(len, prompt_S), dtype=np.int64)
        node_P = forest.flat_nodes(positions.window_P, length_S[positions.window_P] - 1 + positions.depth_P)
        batch = {
            "token_RN": forest.token_RN,
            "depth_RN": forest.depth_RN,
            "node_P": torch.from_numpy(node_P),
            "gold_P": torch.from_numpy(positions.gold_P),
            "position_E": torch.from_numpy(positions.position_E),
            "symbol_E": torch.from_numpy(positions.symbol_E),
            "token_counts": torch.tensor([forest.tokens_in, forest.tokens_out]),
            "pair_count": torch.tensor(forest.pairs),
        }
        if forest.end_RN is not None:
            batch["end_RN"] = forest.end_RN
        return batch, positions

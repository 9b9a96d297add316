"""The task of pairs, as DMPO (arXiv 2405.16127) trains: the prompt lists a history and two candidates, the target and a
negative; the answer names both, the likelier first.

Fine-tuning learns the right order. The preference is for the right order over the swapped one, and each negative has a
prompt of its own.

Legend: S windows, K negatives of a window, C = 2 K answers to a window's K prompts: right order, swapped, right, ...
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from catalign.catalogue.catalogue import Catalogue
from catalign.data.dataset import Dataset
from catalign.evaluation.draws import draw_negatives
from catalign.model.language_model import LanguageModel
from catalign.prompting.choices import ChoicePrompter, template_of
from catalign.prompting.prompter import Prompter, TokenArray
from catalign.training.batches import BatchMaker, Windows
from catalign.training.preference_module import PreferenceBatches, preference_batch
from catalign.training.reference_cache import Hashes, hash_prompts

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Batch = dict[str, torch.Tensor]


def pair_prompter(dataset: Dataset, catalogue: Catalogue, model: LanguageModel) -> ChoicePrompter:
    """Writes the prompts of a dataset: in the published words of its domain, or in the same for any items."""
    template = template_of(dataset.card.options)
    return ChoicePrompter(
        catalogue, model.tokenizer, template, context=model.context, item_tokens=model.item_tokens(catalogue)
    )


def first_pairs(frame: pl.DataFrame, dataset: Dataset, seed: int) -> tuple[Ints, Bools]:
    """The negative that fine-tuning shows beside each target, and whether the target is shown first; [S] each.

    The first of the column `negatives` in its published place; else one drawn as for the protocol of pairs, and a
    coin.
    """
    if "negatives" not in frame.columns:
        drawn_S1 = draw_negatives(frame, dataset.items, dataset.training_counts(), 1, seed)
        return drawn_S1[:, 0], _coins(len(frame), 1, seed)[:, 0]
    negative_S = frame["negatives"].list.first().to_numpy().astype(np.int64)
    if "target_first_sft" not in frame.columns:
        return negative_S, _coins(len(frame), 1, seed)[:, 0]
    return negative_S, frame["target_first_sft"].to_numpy().astype(np.bool_)


def target_places(frame: pl.DataFrame, count: int, seed: int, *, given: bool) -> Bools:
    """Whether the prompt of each negative shows the target before it, [S, K]: as published, or by a coin.

    Args:
        frame: the training windows.
        count: K.
        seed: of the coin.
        given: the negatives are those of the windows.
    """
    if not given or "target_first" not in frame.columns:
        return _coins(len(frame), count, seed)
    first = frame["target_first"].list.head(count).explode(empty_as_null=False)
    return first.to_numpy().astype(np.bool_).reshape(-1, count)


def _coins(windows: int, count: int, seed: int) -> Bools:
    return np.random.default_rng([seed, 1]).random((windows, count)) < 0.5


class PairBatches:
    """Batches of fine-tuning: one pair of each window, answered in the right order.

    Attributes:
        windows: the windows to draw from.
    """

    def __init__(self, maker: BatchMaker, chooser: ChoicePrompter, negative_S: Ints, target_first_S: Bools) -> None:
        self.windows = maker.windows
        self._maker, self._chooser = maker, chooser
        self._pair_S2 = np.stack([maker.windows.target_S, negative_S], axis=1)
        self._target_first_S = target_first_S

    @property
    def row_tokens(self) -> int:
        """Longest row of the forest."""
        return self._maker.row_tokens

    @row_tokens.setter
    def row_tokens(self, length: int) -> None:
        self._maker.row_tokens = length

    def __call__(self, numbers: list[int]) -> Batch:
        """Pack the windows with these numbers; as `BatchMaker`."""
        histories, pairs = [self.windows.histories[number] for number in numbers], self._pair_S2[numbers]
        prompts = _prompts(self._chooser, histories, pairs, self._target_first_S[numbers])
        batch, positions = self._maker.pack_answers(prompts, [self._chooser.answer(pair) for pair in pairs])
        return {
            **batch,
            "first_P": torch.from_numpy(positions.first_P),
            "all_positions": torch.tensor(positions.all_positions),
        }


class PairPreferenceBatches(PreferenceBatches):
    """Batches of the preference stage: the right order against the swapped one, for every negative.

    `item_SC` holds the item that each answer names first, so that a cached log-probability is found by prompt and item.
    """

    def __init__(
        self,
        windows: Windows,
        prompter: Prompter,
        chooser: ChoicePrompter,
        target_first_SK: Bools,
        *,
        share: bool = True,
    ) -> None:
        self._chooser, self._target_first_SK = chooser, target_first_SK
        super().__init__(windows, prompter, scores="vocabulary", share=share)

    def change(self, negative_SK: Ints) -> None:
        """Take these negatives; their reference is not known yet."""
        target_SK = np.broadcast_to(self.windows.target_S[:, None], negative_SK.shape)
        self.item_SC = np.stack([target_SK, negative_SK], axis=2).reshape(len(negative_SK), -1)
        self.reference_SC = np.zeros(self.item_SC.shape, dtype=np.float32)

    def prompt_hashes(self) -> Hashes:
        """A hash of the prompt of each answer; [S, C]."""
        hash_N = hash_prompts(self._pair_prompts(range(len(self.windows)))[0])
        return np.repeat(hash_N, 2).reshape(self.item_SC.shape)

    def __call__(self, numbers: Sequence[int]) -> Batch:
        """Pack the windows with these numbers; as `PreferenceBatches`, but that each negative has its own positive."""
        prompts, pair_N2 = self._pair_prompts(numbers)
        answers = [self._chooser.answer(order) for pair in pair_N2 for order in (pair, pair[::-1])]
        batch, positions = self.maker.pack_answers([prompt for prompt in prompts for _ in range(2)], answers)
        sequence_N2 = torch.arange(len(answers)).view(-1, 2)
        example_N = torch.arange(len(numbers)).repeat_interleave(self.item_SC.shape[1] // 2)
        packed = preference_batch(batch, positions, self.reference_SC[list(numbers)], numbers)
        return {**packed, "positive_N": sequence_N2[:, 0], "negative_N": sequence_N2[:, 1], "example_N": example_N}

    def _pair_prompts(self, numbers: Sequence[int]) -> tuple[list[TokenArray], Ints]:
        """The prompt of every negative of some windows, and target and negative; [N, 2]."""
        chosen = list(numbers)
        count = self.item_SC.shape[1] // 2
        pair_N2 = self.item_SC[chosen].reshape(-1, 2)
        histories = [self.windows.histories[number] for number in chosen for _ in range(count)]
        return _prompts(self._chooser, histories, pair_N2, self._target_first_SK[chosen].ravel()), pair_N2


def _prompts(
    chooser: ChoicePrompter, histories: Sequence[npt.NDArray[np.uint32]], pair_N2: Ints, target_first_N: Bools
) -> list[TokenArray]:
    """The prompts that list target and negative in the order shown."""
    shown_N2 = np.where(target_first_N[:, None], pair_N2, pair_N2[:, ::-1])
    return [chooser.prompt(history, shown) for history, shown in zip(histories, shown_N2, strict=True)]

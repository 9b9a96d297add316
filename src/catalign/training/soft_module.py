"""The loss of the SOFT stage: the real title and the teacher's answers behind one prompt, weighed by the curriculum.

Legend: B windows, C answers behind each prompt (the real title first, then those of the teacher), S = B C sequences,
P scored positions.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from transformers import TrainerCallback

from catalign.catalogue.trie import TitleTrie
from catalign.model.language_model import LanguageModel
from catalign.objectives import Denominator
from catalign.prompting.prompter import Prompter, TokenArray
from catalign.training.batches import BatchMaker, Windows
from catalign.training.callbacks import StepMeans
from catalign.training.module import Objective, TrainingModule


class SoftBatches:
    """Turns window numbers into a batch; the `data_collator` of the trainer.

    The teacher's answers are items where it answered under the constraint, else texts of any tokens. Where it has
    several, their probabilities, made to sum to 1, are the weights of a soft target.

    Attributes:
        windows: the windows to draw from.
        maker: packs prompts and answers.
        weight_SC: weight of each answer of each window; the real title's is 1.
    """

    def __init__(
        self, maker: BatchMaker, answers: pl.DataFrame, texts: list[list[TokenArray]] | None, denominator: Denominator
    ) -> None:
        """Lay out the answers.

        Args:
            maker: of the windows.
            answers: one row per window, in their order: `items` and `scores`, see `distillation.SCHEMA`.
            texts: for each window the tokens of the real title and of the answers (`answer_tokens`), where these need
                not be titles; None, the items are the answers.
            denominator: which positions a mean is over, see `Objective`.
        """
        self.windows, self.maker, self._texts, self._denominator = maker.windows, maker, texts, denominator
        kept = int(answers["scores"].list.len().max() or 0)  # type: ignore[arg-type]
        score_SK = padded(answers["scores"], kept, -np.inf)
        probability_SK = np.exp(score_SK - score_SK.max(axis=1, keepdims=True))
        weight_SK = probability_SK / probability_SK.sum(axis=1, keepdims=True)
        self.weight_SC = np.concatenate([np.ones((len(answers), 1)), weight_SK], axis=1).astype(np.float32)
        if texts is None:
            item_SK = padded(answers["items"], kept, -1).astype(np.int64)
            target_S1 = self.windows.target_S[:, None]
            # Where there are fewer answers than elsewhere the real title stands in, with weight 0.
            self._item_SC = np.concatenate([target_S1, np.where(item_SK < 0, target_S1, item_SK)], axis=1)

    @property
    def row_tokens(self) -> int:
        """Longest row of the forest."""
        return self.maker.row_tokens

    @row_tokens.setter
    def row_tokens(self, length: int) -> None:
        self.maker.row_tokens = length

    def __call__(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        """Pack the windows with these numbers.

        Returns:
            What `BatchMaker.pack` returns; first_P, the first branching position of each real title; distilled_P,
            whether a position is of the teacher's answer; weight_P; and item_counts, the positions to divide by, of
            real titles and (weighted) of the teacher's answers.
        """
        answers = self.weight_SC.shape[1]
        if self._texts is None:
            batch, positions = self.maker.pack(list(numbers), self._item_SC[numbers].ravel(), answers)
        else:
            tokens = [tokens for number in numbers for tokens in self._texts[number]]
            batch, positions = self.maker.pack_texts(list(numbers), tokens, answers)
        weight_P = self.weight_SC[numbers].ravel()[positions.window_P]
        distilled_P = positions.window_P % answers > 0
        count_S = np.bincount(positions.window_P, minlength=len(numbers) * answers)
        if self._denominator == "all":
            trie = self.maker.prompter.trie
            count_S = trie.depth[trie.title_leaf[trie.item_title[self._item_SC[numbers].ravel()]]]
        counts = (count_S.reshape(-1, answers) * self.weight_SC[numbers]).sum(axis=0)
        return {
            **batch,
            "first_P": torch.from_numpy(positions.first_P & ~distilled_P),
            "distilled_P": torch.from_numpy(distilled_P),
            "weight_P": torch.from_numpy(weight_P),
            "item_counts": torch.tensor([counts[0], counts[1:].sum()], dtype=torch.float64),
        }


class SoftModule(TrainingModule):
    """(1 - lambda) L(x, y) + lambda L(x, y^), SOFT's loss (arXiv 2505.20771), for LML, MSL or MSL+ATS as L.

    Each L is a mean over its own scored positions of the whole step. Both answers stand behind one prompt, which is
    computed once. Under ATS the temperature follows the real titles.

    Attributes:
        weight: lambda; the curriculum moves it.
    """

    def __init__(self, model: LanguageModel, objective: Objective, trie: TitleTrie) -> None:
        super().__init__(model, objective, trie)
        self.weight = 1.0
        self.means = StepMeans("loss/real", "loss/self-distilled")

    def callbacks(self) -> list[TrainerCallback]:
        """Both losses are logged."""
        return [*super().callbacks(), self.means]

    def count_items(self, batch: dict[str, torch.Tensor]) -> int | torch.Tensor:
        """[2]: scored positions of real titles, and of the teacher's answers (weighted)."""
        return batch["item_counts"]

    def forward(
        self, *, num_items_in_batch: torch.Tensor | int | None = None, **batch: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return {"loss": the loss}; the arguments are those of `SoftBatches`."""
        loss_P = self.token_losses(**batch) * batch["weight_P"]
        distilled_P = batch["distilled_P"]
        total_2 = torch.stack([loss_P[~distilled_P].sum(), loss_P[distilled_P].sum()])
        counted_2 = batch["item_counts"] if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        count_2 = counted_2.to(total_2).clamp(min=1e-6)
        self.means.add(total_2.detach(), batch["item_counts"])
        lambda_2 = total_2.new_tensor([1 - self.weight, self.weight])
        return {"loss": self.scaled((lambda_2 * total_2 / count_2).sum())}


def answer_tokens(prompter: Prompter, windows: Windows, texts: list[list[TokenArray]]) -> list[list[TokenArray]]:
    """The real title's tokens before those of the teacher's answers, for each window."""
    node, offsets = prompter.trie.paths(windows.target_S)
    titles = np.split(prompter.trie.token[node].astype(np.int32), offsets[1:-1])
    return [[title, *answers] for title, answers in zip(titles, texts, strict=True)]


def padded(lists: pl.Series, width: int, fill: float) -> npt.NDArray[np.float64]:
    """Ragged lists of numbers as [rows, width], filled up."""
    length_S = lists.list.len().to_numpy()
    filled_SK = np.full((len(lists), width), fill)
    inside_SK = np.arange(width) < length_S[:, None]
    filled_SK[inside_SK] = lists.explode(empty_as_null=False).to_numpy()
    return filled_SK

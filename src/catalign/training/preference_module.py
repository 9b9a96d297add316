"""The loss of the preference stage: positive and negative titles behind one prompt, policy against reference.

Legend: B windows (examples), C titles behind each prompt (the target first, then its negatives), S = B C sequences,
N = B (C - 1) negatives, P scored positions, E pairs of a scored position and a valid token.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import TrainerCallback

from catalign.catalogue.trie import TitleTrie
from catalign.decoding.scoring import token_losses
from catalign.model.language_model import LanguageModel
from catalign.objectives import (
    Preference,
    margins,
    mean_of_examples,
    positive_losses,
    preference_losses,
)
from catalign.prompting.positions import Positions, Scores
from catalign.prompting.prompter import Prompter
from catalign.training.batches import ROW_TOKENS, BatchMaker, Windows
from catalign.training.callbacks import StepMeans
from catalign.training.module import LossModule
from catalign.training.reference_cache import Hashes, hash_prompts

PreferenceName = Literal["dmpo", "pairs", "sdpo", "pair-sum", "dpo", "dmpo-released"]
FORMULAS: dict[PreferenceName, Preference] = {
    "dmpo": "dmpo", "pairs": "pairs", "sdpo": "sdpo", "pair-sum": "pair-sum", "dpo": "pairs", "dmpo-released": "pairs",
}  # fmt: skip
Ints = npt.NDArray[np.int64]


class PreferenceObjective(BaseModel):
    """What the preference stage minimises.

    Attributes:
        name: `dmpo`, `pairs`, `sdpo`, `pair-sum` (see `objectives.preference`); `dpo`, all of them with one negative;
            `dmpo-released`, what the released DMPO script minimises: pairs without a reference, and the mean negative
            log-likelihood of the positive's tokens.
        beta: strength of the preference; how far the policy may go from the reference for it.
        score: the probability of a title: `valid`, of the softmax over the tokens that continue a title; `full`, over
            the whole vocabulary. Absent, what the run it starts from was trained with.
        sft_weight: of the mean loss of the positive's scored tokens beside the preference. Absent, 0; 1 in
            `dmpo-released`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: PreferenceName = "dmpo"
    beta: float = Field(default=0.1, gt=0)
    score: Literal["valid", "full"] = "full"
    sft_weight: float | None = Field(default=None, ge=0)

    @property
    def kind(self) -> Preference:
        """The formula."""
        return FORMULAS[self.name]

    @property
    def has_reference(self) -> bool:
        """Whether log-probabilities are compared with the reference's."""
        return self.name != "dmpo-released"

    @property
    def positive_weight(self) -> float:
        """Of the positive's own loss."""
        if self.sft_weight is not None:
            return self.sft_weight
        return 1.0 if self.name == "dmpo-released" else 0.0

    @property
    def scores(self) -> Scores:
        """Which tokens the gold token is compared with."""
        return "valid" if self.score == "valid" else "vocabulary"

    @property
    def label(self) -> str:
        """Short name for tables."""
        return self.name


class PreferenceBatches:
    """Turns window numbers into a batch; the `data_collator` of the trainer.

    Attributes:
        windows: the windows to draw from.
        maker: packs prompts and titles.
        item_SC: the titles behind each window's prompt, as items: the target, then the negatives.
        reference_SC: their reference log-probabilities; zeros until they are known, and where there is no reference.
    """

    def __init__(
        self, windows: Windows, prompter: Prompter, *, scores: Scores, row_tokens: int = ROW_TOKENS, share: bool = True
    ) -> None:
        self.windows = windows
        self.maker = BatchMaker(windows, prompter, scores=scores, row_tokens=row_tokens, share=share)
        self.change(np.zeros((len(windows), 0), dtype=np.int64))

    @property
    def row_tokens(self) -> int:
        """Longest row of the forest."""
        return self.maker.row_tokens

    @row_tokens.setter
    def row_tokens(self, length: int) -> None:
        self.maker.row_tokens = length

    def change(self, negative_SK: Ints) -> None:
        """Take these negatives; their reference is not known yet."""
        self.item_SC = np.concatenate([self.windows.target_S[:, None], negative_SK], axis=1)
        self.reference_SC = np.zeros(self.item_SC.shape, dtype=np.float32)

    def prompt_hashes(self) -> Hashes:
        """A hash of the prompt of each title; [S, C]."""
        return np.broadcast_to(self._hash_S[:, None], self.item_SC.shape)

    @cached_property
    def prompts(self) -> list[npt.NDArray[np.int32]]:
        """The prompt of each window."""
        return self.maker.prompts(range(len(self.windows)))

    @cached_property
    def _hash_S(self) -> Hashes:
        return hash_prompts(self.prompts)

    def __call__(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        """Pack the windows with these numbers.

        Returns:
            What `BatchMaker.pack` returns; sequence_P, the sequence of each scored position, and scored_S, how many
            each sequence has; reference_S; window_B, the numbers; and for each negative positive_N and negative_N, its
            positive and itself among the sequences, and example_N.
        """
        item_BC = self.item_SC[numbers]
        examples, titles = item_BC.shape
        batch, positions = self.maker.pack(list(numbers), item_BC.ravel(), titles)
        sequence_BC = torch.arange(examples * titles).view(examples, titles)
        return {
            **preference_batch(batch, positions, self.reference_SC[numbers], numbers),
            "positive_N": sequence_BC[:, :1].expand(-1, titles - 1).flatten(),
            "negative_N": sequence_BC[:, 1:].flatten(),
            "example_N": torch.arange(examples).repeat_interleave(titles - 1),
        }


def preference_batch(
    batch: dict[str, torch.Tensor],
    positions: Positions,
    reference_BC: npt.NDArray[np.float32],
    numbers: Sequence[int],
) -> dict[str, torch.Tensor]:
    """A packed batch with what the loss needs of its sequences, which are C behind each window."""
    return {
        **batch,
        "sequence_P": torch.from_numpy(positions.window_P),
        "scored_S": torch.from_numpy(np.bincount(positions.window_P, minlength=reference_BC.size)),
        "reference_S": torch.from_numpy(reference_BC.ravel()),
        "window_B": torch.tensor(list(numbers)),
    }


class PreferenceModule(LossModule):
    """A language model and a preference objective, averaged over the examples of a step.

    Dropout is off: `train()` leaves the model itself in evaluation mode, so that policy and reference are compared
    under the same network. Nothing here knows how titles and prompts were packed; every negative names its positive.
    """

    def __init__(self, model: LanguageModel, objective: PreferenceObjective, trie: TitleTrie) -> None:
        super().__init__(model, trie)
        self.objective = objective
        self.means = StepMeans("rewards/chosen", "rewards/rejected", "rewards/margins", "accuracy")

    def train(self, mode: bool = True) -> "PreferenceModule":
        """Dropout stays off."""
        super().train(mode)
        self.model.eval()
        return self

    def callbacks(self) -> list[TrainerCallback]:
        """Rewards, margins and accuracy are logged."""
        return [self.means]

    def count_items(self, batch: dict[str, torch.Tensor]) -> int:
        """The examples of a batch."""
        return len(batch["window_B"])

    def log_probabilities(
        self,
        *,
        token_RN: torch.Tensor,
        depth_RN: torch.Tensor,
        node_P: torch.Tensor,
        gold_P: torch.Tensor,
        position_E: torch.Tensor,
        symbol_E: torch.Tensor,
        sequence_P: torch.Tensor,
        scored_S: torch.Tensor,
        end_RN: torch.Tensor | None = None,
        **_: torch.Tensor,
    ) -> torch.Tensor:
        """log pi(title | prompt) of every sequence, by the very formulas of search and ranking; [S], float32."""
        hidden_PH = self.model.hidden_states(token_RN, depth_RN, end_RN, node_P)
        loss_P = token_losses(
            self.model, self.alphabet_A, hidden_PH, gold_P, position_E, symbol_E, self.objective.score
        )
        return -loss_P.new_zeros(len(scored_S)).index_add(0, sequence_P, loss_P)

    def forward(
        self, *, num_items_in_batch: torch.Tensor | int | None = None, **batch: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return {"loss": the loss}; the arguments are those of `PreferenceBatches`."""
        policy_S = self.log_probabilities(**batch)
        positive_N, negative_N, example_N = batch["positive_N"], batch["negative_N"], batch["example_N"]
        ratio_S, examples = policy_S - batch["reference_S"], len(batch["window_B"])
        margin_N = margins(ratio_S[positive_N], ratio_S[negative_N], self.objective.beta)
        loss_B = preference_losses(margin_N, example_N, examples, self.objective.kind)
        if self.objective.positive_weight:
            scored_N = batch["scored_S"][positive_N].clamp(min=1)
            sft_B = positive_losses(policy_S[positive_N], scored_N, example_N, examples)
            loss_B = loss_B + self.objective.positive_weight * sft_B
        with torch.no_grad():
            reward_S = self.objective.beta * ratio_S
            above_N = (policy_S[positive_N] > policy_S[negative_N]).to(margin_N.dtype)
            logged = (reward_S[positive_N], reward_S[negative_N], margin_N, above_N)
            mean_QB = torch.stack([mean_of_examples(value, example_N, examples) for value in logged])
            self.means.add(mean_QB.sum(1), mean_QB.new_full((len(logged),), examples))
        count = int(num_items_in_batch) if num_items_in_batch is not None else examples
        return {"loss": loss_B.sum() / count}

"""How the best epoch is chosen: by search over the full catalogue for windows of the validation split."""

import numpy as np
import numpy.typing as npt

from catalign.data.dataset import Dataset
from catalign.decoding.recommend import CatalogueSearch
from catalign.errors import UserError
from catalign.evaluation.metrics import hit_rate, ndcg, ranks_of_targets
from catalign.evaluation.predictions import draw_windows
from catalign.model.language_model import LanguageModel
from catalign.processes import in_shares
from catalign.prompting.prompter import Prompter
from catalign.training.batches import Windows
from catalign.training.recipe import StageRecipe, Validation

Ints = npt.NDArray[np.int64]


def choose_validation(
    dataset: Dataset, model: LanguageModel, prompter: Prompter, recipe: StageRecipe
) -> "Validator | None":
    """What the trainer calls after each epoch; None where the recipe wants no validation.

    Raises:
        UserError: the validation split has no windows.
    """
    if recipe.validation is None:
        return None
    frame = dataset.windows("valid")
    if frame.is_empty():
        raise no_windows("valid", dataset)
    drawn = draw_windows(frame, recipe.validation.windows, recipe.seed)
    return Validator(Windows.from_frame(drawn), model, prompter, recipe.validation)


def no_windows(split: str, dataset: Dataset) -> UserError:
    """What is said where a split that training needs is empty."""
    mend = "prepare it again with more data, milder filters or another --split"
    if split == "valid":
        mend += ", or train with --no-validation"
    return UserError(f"the split {split} has no windows", where=dataset.folder, mend=mend)


class Validator:
    """NDCG@10 and HR@10 by search over the full catalogue, on windows of the validation split."""

    def __init__(self, windows: Windows, model: LanguageModel, prompter: Prompter, settings: Validation) -> None:
        self.windows = windows
        self._search = CatalogueSearch(model, prompter, beams=settings.beams, score=settings.score)

    def __call__(self) -> dict[str, float]:
        """Return {"ndcg@10", "hr@10"}."""
        rank_W = in_shares(np.arange(len(self.windows)), self._ranks)
        return {"ndcg@10": float(np.mean(ndcg(rank_W, 10))), "hr@10": float(np.mean(hit_rate(rank_W, 10)))}

    def _ranks(self, numbers_W: Ints) -> Ints:
        """The rank of each target among the recommendations for these windows."""
        items_WK, _ = self._search.recommend_all([self.windows.histories[number] for number in numbers_W], 10)
        return ranks_of_targets(items_WK, self.windows.target_S[numbers_W])

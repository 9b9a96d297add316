"""How far a model's answers are from the truth: what SOFT's curriculum looks at (arXiv 2505.20771)."""

import copy

import numpy as np
import numpy.typing as npt
from peft import PeftModel

from catalign.catalogue.catalogue import Catalogue
from catalign.decoding.grounding import embed_texts
from catalign.model.language_model import LanguageModel
from catalign.processes import in_shares, share
from catalign.prompting.prompter import Prompter
from catalign.training.batches import Windows
from catalign.training.distillation import answerer
from catalign.training.soft_settings import Distillation


class AnswerDistance:
    """d: mean L2 distance between the embedding of the model's best answer and that of the true title.

    Always measured on the same training prompts, with embeddings of the frozen base model: under an adapter that is the
    model without it; where all weights train, a copy of the model as it is when this is made. Several processes measure
    a share each.

    Args:
        model: the model that trains.
        prompter: writes the prompts.
        catalogue: the titles.
        windows: the training windows.
        settings: the model answers as the teacher did.
        prompts: how many windows are drawn (all, if there are fewer).
        seed: of the draw.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompter: Prompter,
        catalogue: Catalogue,
        windows: Windows,
        settings: Distillation,
        *,
        prompts: int,
        seed: int,
    ) -> None:
        self._answer = answerer(model, prompter, catalogue, settings.model_copy(update={"best": 1}))
        self._windows = windows
        drawn = np.random.default_rng(seed).choice(len(windows), min(prompts, len(windows)), replace=False)
        self._drawn_S = np.sort(drawn)
        self._frozen = model if isinstance(model.causal, PeftModel) else frozen_copy(model)
        truth = [catalogue.titles[item] for item in windows.target_S[share(self._drawn_S)].tolist()]
        self._truth_SH = embed_texts(self._frozen, truth).double()

    def __call__(self) -> float:
        """Answer the prompts with the model as it is now, and measure."""
        return float(in_shares(self._drawn_S, self._distances).mean())

    def _distances(self, number_S: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """How far the answer to each of these windows, this process's share, is from the truth."""
        best = [texts[0] for texts in self._answer([self._windows.histories[number] for number in number_S]).texts]
        answer_SH = embed_texts(self._frozen, best).double()
        distance_S = (answer_SH - self._truth_SH.to(answer_SH.device)).norm(dim=1)
        return np.asarray(distance_S.cpu())


def frozen_copy(model: LanguageModel) -> LanguageModel:
    """The model as it is now, beside the one that trains on."""
    frozen = model.adapted(copy.deepcopy(model.causal))
    frozen.item_embedding = None  # it reads titles only, and the projector trains on
    frozen.requires_grad_(False)
    return frozen.eval()

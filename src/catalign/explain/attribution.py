"""How much each item of a history moved the score of an item: leave one out, exactly.

The score is the log-probability of the item's title. What a history item moved it by is the score with the whole
history less the score of the same prompt without that item (erasure: Li, Monroe and Jurafsky, *Understanding neural
networks through representation erasure*, 2016). Nothing is approximated: every shortened history is read by the model,
all of them in one forest pass, in which they share what they begin with.

Legend: H shown items of a history, T items explained.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalign.decoding.candidates import score_behind_prompts
from catalign.decoding.scores import ScoreMode
from catalign.errors import UserError
from catalign.model.language_model import LanguageModel
from catalign.prompting.prompter import Items, Prompter

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Attribution:
    """What each item of a history moved.

    Attributes:
        history: the items that the prompt shows, oldest first; what it leaves out can move nothing.
        items: the items explained.
        score_T: log-probability of each, given the whole history.
        without_HT: the same without each item of the history in turn.
    """

    history: list[int]
    items: list[int]
    score_T: Floats
    without_HT: Floats

    @property
    def moved_HT(self) -> Floats:
        """By how much each item of the history raised (above 0) or lowered the log-probability of each item."""
        return self.score_T - self.without_HT

    def contrast_H(self, chosen: int, other: int) -> Floats:
        """How much each item of the history speaks for the explained item number `chosen` rather than `other`.

        It is what it moved the difference of the two scores by; their sum need not be that difference.
        """
        moved_HT = self.moved_HT
        contrast: Floats = moved_HT[:, chosen] - moved_HT[:, other]
        return contrast


def attribute(
    model: LanguageModel,
    prompter: Prompter,
    histories: Sequence[Items],
    items: Sequence[Sequence[int]],
    *,
    score: ScoreMode = "valid",
) -> list[Attribution]:
    """Attribute the scores of some items to the items of each history, in one forest pass.

    Args:
        model: the language model.
        prompter: writes the prompts and holds the trie.
        histories: item indices, oldest first.
        items: for each history the items explained.
        score: see `decoding.search.search_titles`.

    Raises:
        UserError: a history of one item, where a prompt without any would have no token at all.
    """
    shown = [[int(item) for item in prompter.shown(history)] for history in histories]
    prompts, asked = [], []
    for history, explained in zip(shown, items, strict=True):
        shortened = [history[:place] + history[place + 1 :] for place in range(len(history))]
        prompts += [prompter.write(part) for part in (history, *shortened)]
        asked += [explained] * (len(history) + 1)
    if any(len(prompt) == 0 for prompt in prompts):
        raise UserError("one item alone cannot be left out: nothing would be left to read", where="the history",
                        mend="name at least two items")  # fmt: skip
    scores = score_behind_prompts(model, prompter, prompts, asked, score=score)
    start = np.cumsum([0, *(len(history) + 1 for history in shown)])
    attributions = []
    for number, (history, explained) in enumerate(zip(shown, items, strict=True)):
        score_PT = np.stack(scores[start[number] : start[number + 1]])
        attributions.append(Attribution(history, list(explained), score_PT[0], score_PT[1:]))
    return attributions

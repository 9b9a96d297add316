"""An explanation as people and programs read it: titles and numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from catalign.catalogue.catalogue import Catalogue
from catalign.decoding.scores import ScoreMode
from catalign.errors import UserError
from catalign.explain.attribution import Attribution, attribute
from catalign.model.language_model import LanguageModel
from catalign.prompting.prompter import Prompter


@dataclass(frozen=True)
class Contribution:
    """What one item of the history moved.

    Attributes:
        item_id: as in the catalogue.
        title: its title.
        moved: by how much it raised (above 0) or lowered the log-probability of the explained item.
        contrast: how much it speaks for that item rather than the other one; None where no other is named.
    """

    item_id: str
    title: str
    moved: float
    contrast: float | None


@dataclass(frozen=True)
class Explanation:
    """Why an item, and why not another.

    Attributes:
        item_id: the explained item.
        title: its title.
        log_probability: its score, given the whole history.
        instead_of: id of the item it is compared with, if there is one.
        margin: log-probability of the explained item less that of the other.
        contributions: of the items that the prompt shows, oldest first.
    """

    item_id: str
    title: str
    log_probability: float
    instead_of: str | None
    margin: float | None
    contributions: list[Contribution]


def explain(
    model: LanguageModel,
    prompter: Prompter,
    catalogue: Catalogue,
    history: Sequence[int],
    item: int,
    instead_of: int | None = None,
    *,
    score: ScoreMode = "valid",
) -> Explanation:
    """Explain the score of one item, or why it stands before another; see `attribute`.

    Raises:
        UserError: the two items share a title, or as `attribute`.
    """
    items = [item] if instead_of is None else [item, instead_of]
    (found,) = attribute(model, prompter, [history], [items], score=score)
    return as_explanation(catalogue, found)


def as_explanation(catalogue: Catalogue, found: Attribution) -> Explanation:
    """Read an attribution of one item, or of an item and another it is compared with.

    Raises:
        UserError: the two items share a title.
    """
    item, *others = found.items
    instead_of = others[0] if others else None
    if instead_of is not None and catalogue.titles[item] == catalogue.titles[instead_of]:
        raise UserError(f'both are "{catalogue.titles[item]}"', where="the items compared", mend="name another item")
    moved_H = found.moved_HT[:, 0].tolist()
    contrast_H = [None] * len(moved_H) if instead_of is None else found.contrast_H(0, 1).tolist()
    return Explanation(
        item_id=catalogue.item_ids[item],
        title=catalogue.titles[item],
        log_probability=float(found.score_T[0]),
        instead_of=None if instead_of is None else catalogue.item_ids[instead_of],
        margin=None if instead_of is None else float(found.score_T[0] - found.score_T[1]),
        contributions=[
            Contribution(catalogue.item_ids[shown], catalogue.titles[shown], moved, contrast)
            for shown, moved, contrast in zip(found.history, moved_H, contrast_H, strict=True)
        ],
    )

"""The face of the package: load a trained run, recommend from its catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

from catalign.catalogue.catalogue import Catalogue
from catalign.decoding.candidates import score_candidates
from catalign.decoding.generation import PUBLISHED_BEAMS
from catalign.decoding.grounded_generation import GroundedGeneration
from catalign.decoding.grounding import title_table
from catalign.decoding.recommend import CatalogueSearch
from catalign.decoding.scores import ScoreMode
from catalign.errors import UserError
from catalign.explain.explanation import Explanation, explain
from catalign.model.language_model import LanguageModel
from catalign.model.loading import load_language_model
from catalign.model.precision import choose_device
from catalign.training.run import Run, load_run


@dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Attributes:
        item_id: as in the catalogue.
        title: its title.
        probability: that the model answers with this title; items that share a title share it.
    """

    item_id: str
    title: str
    probability: float


@dataclass(frozen=True)
class RankedItem:
    """One candidate in its place.

    Attributes:
        item_id: as in the catalogue.
        title: its title.
        log_probability: of the title, exact; items that share a title share it.
    """

    item_id: str
    title: str
    log_probability: float


@dataclass(frozen=True)
class GroundedItem:
    """One item near to what the model wrote.

    Attributes:
        item_id: as in the catalogue.
        title: its title.
        distance: of the embedding of the title from that of the text; items that share a title share it.
    """

    item_id: str
    title: str
    distance: float


class Recommender:
    """Recommends items of a catalogue.

    >>> recommender = Recommender.load("runs/msl")                          # doctest: +SKIP
    >>> recommender.recommend(["The Two Towers", "The Return of the King"])  # doctest: +SKIP
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    @classmethod
    def load(cls, folder: str | Path, *, device: torch.device | None = None) -> "Recommender":
        """Load a run folder.

        Raises:
            UserError: it is not one.
        """
        return cls(load_run(Path(folder), device=device or choose_device()))

    @property
    def catalogue(self) -> Catalogue:
        """The items this recommender knows."""
        return self.run.catalogue

    def search(
        self,
        *,
        beams: int,
        score: ScoreMode = "valid",
        length_penalty: float = 0.0,
        exclude_history: bool = False,
        batch_size: int = 32,
    ) -> CatalogueSearch:
        """A search over the catalogue, for many histories of item indices."""
        return CatalogueSearch(
            self.run.model,
            self.run.prompter,
            beams=beams,
            score=score,
            length_penalty=length_penalty,
            exclude_history=exclude_history,
            batch_size=batch_size,
        )

    def grounding(
        self,
        *,
        beams: int = PUBLISHED_BEAMS,
        length_penalty: float = 1.0,
        exclude_history: bool = False,
        batch_size: int = 32,
    ) -> GroundedGeneration:
        """Free generation, grounded by the nearest title (BIGRec), for many histories of item indices.

        Embeddings are those of the model that the run began with; the titles' are kept in the folder `grounding` of
        the run, unless the model was not trained.

        Raises:
            UserError: the model that the run began with cannot be loaded.
        """
        model, trained = self.run.model, bool(self.run.training)
        own = isinstance(model.causal, PeftModel) or not trained
        embedder = model if own else self._load_untuned().to(model.device)
        cache = self.run.folder / "grounding" if trained else None
        table = title_table(embedder, self.catalogue, self.run.prompter.trie, cache)
        return GroundedGeneration(
            model,
            self.run.prompter,
            embedder,
            table,
            beams=beams,
            length_penalty=length_penalty,
            exclude_history=exclude_history,
            batch_size=batch_size,
        )

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        *,
        beams: int | None = None,
        score: ScoreMode = "valid",
        exclude_history: bool = True,
    ) -> list[Recommendation]:
        """Recommend `k` items to one person.

        Args:
            history: item ids or titles, oldest first; the last ones count, as many as the model was trained with.
            k: how many items.
            beams: width of the search, at least `k`; by default the larger of 10 and `k`.
            score: see `decoding.search.search_titles`.
            exclude_history: do not recommend what the person already has.

        Raises:
            UserError: an empty history, k below 1, or an item that the catalogue does not have (with suggestions).
        """
        return self.recommend_many([history], k, beams=beams, score=score, exclude_history=exclude_history)[0]

    def recommend_many(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        beams: int | None = None,
        score: ScoreMode = "valid",
        exclude_history: bool = True,
    ) -> list[list[Recommendation]]:
        """Recommend `k` items to each of several people; see `recommend`."""
        if k < 1:
            raise UserError(f"{k} recommendations asked for", where="-k", mend="ask for at least 1")
        indices = [self.indices(history, where=f"history {row}") for row, history in enumerate(histories, 1)]
        search = self.search(beams=max(beams or 10, k), score=score, exclude_history=exclude_history)
        items_BK, scores_BK = search.recommend_all(indices, k)
        probability_BK = torch.from_numpy(scores_BK).exp().tolist()
        return [
            [
                Recommendation(self.catalogue.item_ids[item], self.catalogue.titles[item], probability)
                for item, probability in zip(items, probabilities, strict=True)
                if item >= 0
            ]
            for items, probabilities in zip(items_BK.tolist(), probability_BK, strict=True)
        ]

    def _load_untuned(self) -> LanguageModel:
        """The model that the run began with."""
        from catalign.training.soft_stage import untuned  # brings the trainer along

        recipe = untuned(self.run.recipe)
        return load_language_model(recipe.model, trust_remote_code=recipe.trust_remote_code)

    def ground(
        self, history: Sequence[str], k: int = 10, *, beams: int = PUBLISHED_BEAMS, exclude_history: bool = True
    ) -> list[GroundedItem]:
        """Let the model write freely and return the `k` items nearest to its text, nearest first; see `grounding`.

        Args:
            history: item ids or titles, oldest first.
            k: how many items.
            beams: width of the free generation.
            exclude_history: do not recommend what the person already has.

        Raises:
            UserError: as `recommend` and `grounding`.
        """
        if k < 1:
            raise UserError(f"{k} recommendations asked for", where="-k", mend="ask for at least 1")
        decoder = self.grounding(beams=beams, exclude_history=exclude_history)
        (items,), (scores,) = decoder.recommend_all([self.indices(history)], k)
        return [
            GroundedItem(self.catalogue.item_ids[item], self.catalogue.titles[item], -score)
            for item, score in zip(items.tolist(), scores.tolist(), strict=True)
            if item >= 0
        ]

    def rank(
        self, history: Sequence[str], candidates: Sequence[str], *, score: ScoreMode = "valid"
    ) -> list[RankedItem]:
        """Rank given items for one person, best first, by the exact log-probability of their titles.

        Args:
            history: item ids or titles, oldest first.
            candidates: item ids or titles of the catalogue; equal scores stay in this order.
            score: see `decoding.search.search_titles`; `valid` compares with all titles of the catalogue.

        Raises:
            UserError: an empty history or no candidates, a candidate named twice, or an item that the catalogue does
                not have (with suggestions).
        """
        indices = self.indices(history)
        if isinstance(candidates, str) or not candidates:
            what = "is one text" if candidates else "there are none"
            raise UserError(what, where="the candidates", mend="give a list of item ids or titles")
        items = [self.catalogue.index_of(text) for text in candidates]
        repeated = {item for item in items if items.count(item) > 1}
        if repeated:
            title = self.catalogue.titles[min(repeated)]
            raise UserError(f'"{title}" is named twice', where="the candidates", mend="name each candidate once")
        (scores,) = score_candidates(self.run.model, self.run.prompter, [indices], [items], score=score)
        order = np.argsort(-scores, kind="stable").tolist()
        return [
            RankedItem(self.catalogue.item_ids[item], self.catalogue.titles[item], float(scores[place]))
            for place, item in ((place, items[place]) for place in order)
        ]

    def explain(
        self, history: Sequence[str], item: str, *, instead_of: str | None = None, score: ScoreMode = "valid"
    ) -> Explanation:
        """Say how much each item of a history moved the score of an item; see `explain.attribution`.

        Args:
            history: item ids or titles, oldest first.
            item: the item explained, by id or title.
            instead_of: another item: why not this one.
            score: see `decoding.search.search_titles`.

        Raises:
            UserError: an empty history, an item that the catalogue does not have, or one compared with itself.
        """
        other = None if instead_of is None else self.catalogue.index_of(instead_of)
        indices, chosen = self.indices(history), self.catalogue.index_of(item)
        return explain(self.run.model, self.run.prompter, self.catalogue, indices, chosen, other, score=score)

    def indices(self, history: Sequence[str], *, where: str = "the history") -> list[int]:
        """Item indices of a history; the prompt shows as many of the last as the model was trained with.

        Raises:
            UserError: an empty history, or an item that the catalogue does not have.
        """
        if isinstance(history, str):
            raise UserError("is one text", where=where, mend="give a list of item ids or titles")
        if not history:
            raise UserError("the history is empty", where=where, mend="name at least one item")
        return [self.catalogue.index_of(text) for text in history]

"""What the model is asked to do: search, rank, explain. Jobs over one version of the catalogue share a batch."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from catalign.decoding.candidates import score_candidates
from catalign.decoding.recommend import CatalogueSearch
from catalign.explain.attribution import Attribution, attribute

Scored = list[tuple[int, float]]
"""Item indices with their log-probabilities."""


@dataclass(frozen=True, eq=False)
class SearchJob:
    """The best `k` items for one history.

    Attributes:
        search: shared by all requests of one catalogue version, run, width and filter: these are mates.
        history: item indices.
        excluded: items left out.
        k: how many.
    """

    search: CatalogueSearch
    history: list[int]
    excluded: list[int]
    k: int

    @property
    def mates(self) -> Hashable:
        """The search."""
        return "search", self.search

    @classmethod
    def run(cls, jobs: Sequence["SearchJob"]) -> list[Scored]:
        """Best first; fewer where fewer may be recommended."""
        found: list[Scored] = [[] for _ in jobs]
        most = max(job.k for job in jobs)
        histories, excluded = [job.history for job in jobs], [job.excluded for job in jobs]
        for numbers, items_BK, scores_BK in jobs[0].search.recommend(histories, most, excluded):
            for number, items, scores in zip(numbers, items_BK.tolist(), scores_BK.tolist(), strict=True):
                ranked = [(item, score) for item, score in zip(items, scores, strict=True) if item >= 0]
                found[number] = ranked[: jobs[number].k]
        return found


@dataclass(frozen=True, eq=False)
class RankJob:
    """The log-probabilities of given items for one history; `search` says by which model and catalogue."""

    search: CatalogueSearch
    history: list[int]
    candidates: list[int]

    @property
    def mates(self) -> Hashable:
        """The search."""
        return "rank", self.search

    @classmethod
    def run(cls, jobs: Sequence["RankJob"]) -> list[Scored]:
        """In the order given."""
        search = jobs[0].search
        histories, candidates = [job.history for job in jobs], [job.candidates for job in jobs]
        scores = score_candidates(search.model, search.prompter, histories, candidates, score=search.score)
        return [list(zip(job.candidates, score.tolist(), strict=True)) for job, score in zip(jobs, scores, strict=True)]


@dataclass(frozen=True, eq=False)
class ExplainJob:
    """What each item of a history moved, for one item or two to compare."""

    search: CatalogueSearch
    history: list[int]
    items: list[int]

    @property
    def mates(self) -> Hashable:
        """The search."""
        return "explain", self.search

    @classmethod
    def run(cls, jobs: Sequence["ExplainJob"]) -> list[Attribution]:
        """All of them in one forest pass."""
        search = jobs[0].search
        histories, items = [job.history for job in jobs], [job.items for job in jobs]
        return attribute(search.model, search.prompter, histories, items, score=search.score)

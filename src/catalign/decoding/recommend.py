"""Ranked items for any number of histories, in batches."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from catalign.decoding.prompt_states import PromptStates
from catalign.decoding.ranking import rank_items
from catalign.decoding.scores import ScoreMode
from catalign.decoding.search import search_titles
from catalign.decoding.trie_tensors import Exclusions, Inclusions, TrieTensors
from catalign.model.language_model import LanguageModel
from catalign.prompting.prompter import Prompter

History = Sequence[int] | npt.NDArray[np.integer]


class Decoder(ABC):
    """Ranks the items of one catalogue with one model, for any number of histories.

    Attributes:
        exclude_history: leave out the items of the history.
    """

    exclude_history: bool

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What tells the results of two decoders of one model apart, for the record."""

    @abstractmethod
    def recommend(
        self, histories: Sequence[History], count: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Yield (numbers of the histories, items, scores) batch by batch; what is alike shares a batch.

        Args:
            histories: item indices, oldest first.
            count: items per history.

        Yields:
            numbers [B] into `histories`; items [B, count], -1 where there are fewer; scores [B, count], -inf there.
        """

    def recommend_all(
        self, histories: Sequence[History], count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Items and scores [W, count] of all histories, in the order given."""
        item_WK = np.full((len(histories), count), -1, dtype=np.int64)
        score_WK = np.full((len(histories), count), -np.inf, dtype=np.float32)
        for numbers, items, scores in self.recommend(histories, count):
            item_WK[numbers], score_WK[numbers] = items, scores
        return item_WK, score_WK


class CatalogueSearch(Decoder):
    """Searches one catalogue with one model; what does not depend on the history is prepared once.

    Args:
        model: the language model, put into evaluation mode while it searches.
        prompter: writes the prompts and holds the trie.
        beams: width of the search.
        score: see `search_titles`.
        length_penalty: see `search_titles`.
        exclude_history: leave out the items of the history.
        allowed: [items]; search only these.
        batch_size: histories in one batch.
        states: prompts of before, for a model whose weights do not change; see `Prompts`.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompter: Prompter,
        *,
        beams: int,
        score: ScoreMode = "valid",
        length_penalty: float = 0.0,
        exclude_history: bool = False,
        allowed: npt.NDArray[np.bool_] | None = None,
        batch_size: int = 32,
        states: PromptStates | None = None,
    ) -> None:
        self.model, self.prompter, self.states = model, prompter, states
        self.beams, self.score, self.length_penalty = beams, score, length_penalty
        self.exclude_history, self.allowed, self.batch_size = exclude_history, allowed, batch_size
        self._tensors: TrieTensors | None = None

    def _trie_on_device(self) -> TrieTensors:
        """The trie where the model is now: a trainer may move the model after this search was made."""
        if self._tensors is None or self._tensors.token.device != self.model.device:
            self._tensors = TrieTensors.of(self.prompter.trie, self.model.device, self.allowed)
        return self._tensors

    def within(self, allowed: npt.NDArray[np.bool_]) -> "CatalogueSearch":
        """The same search in some items alone, [items]; what does not depend on the filter is shared."""
        search = copy(self)
        search.allowed = allowed
        search._tensors = self._trie_on_device().within(self.prompter.trie, allowed)
        return search

    @property
    def settings(self) -> dict[str, Any]:
        """Width, score mode, length penalty and filter."""
        return {
            "beams": self.beams,
            "score": self.score,
            "length_penalty": self.length_penalty,
            "exclude_history": self.exclude_history,
        }

    def recommend(
        self,
        histories: Sequence[History],
        count: int,
        excluded: Sequence[History] | None = None,
        candidates: Sequence[History] | None = None,
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """See `Decoder.recommend`; histories of like length share a batch, scores are log-probabilities.

        Args:
            histories: as there.
            count: as there.
            excluded: for each history further items to leave out, inside the search as those of the history are.
            candidates: for each history the only items to search.
        """
        prompts = [self.prompter.prompt(history) for history in histories]
        order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
        left_out = self._left_out(histories, excluded)
        with self.model.evaluating():
            for start in range(0, len(order), self.batch_size):
                numbers = order[start : start + self.batch_size]
                closed = None if left_out is None else [left_out[number] for number in numbers]
                only = None if candidates is None else [candidates[number] for number in numbers]
                items, scores = self._search([prompts[number] for number in numbers], closed, only, count)
                yield numbers, items, scores

    def _left_out(
        self, histories: Sequence[History], excluded: Sequence[History] | None
    ) -> list[npt.NDArray[np.int64]] | None:
        """What must not be recommended to each; None where nothing is left out."""
        lists = [*([histories] if self.exclude_history else []), *([] if excluded is None else [excluded])]
        if not lists:
            return None
        return [
            np.concatenate([np.asarray(part, dtype=np.int64) for part in parts]) for parts in zip(*lists, strict=True)
        ]

    def _search(
        self,
        prompts: list[npt.NDArray[np.int32]],
        left_out: list[npt.NDArray[np.int64]] | None,
        candidates: Sequence[History] | None,
        count: int,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        trie, tensors = self.prompter.trie, self._trie_on_device()
        closed = self._closed(len(prompts), left_out, candidates)
        exclusions: Exclusions | Inclusions | None = None
        if candidates is not None:
            assert closed is not None
            exclusions = Inclusions(trie, [np.flatnonzero(~row) for row in closed], self.model.device)
        elif left_out is not None:
            exclusions = Exclusions(trie, left_out, tensors, self.allowed)
        found = search_titles(
            self.model,
            tensors,
            prompts,
            beams=self.beams,
            score=self.score,
            length_penalty=self.length_penalty,
            exclusions=exclusions,
            states=self.states,
        )
        return rank_items(trie, found.title_BK.cpu().numpy(), found.score_BK.float().cpu().numpy(), count, closed)

    def _closed(
        self, users: int, left_out: list[npt.NDArray[np.int64]] | None, candidates: Sequence[History] | None
    ) -> npt.NDArray[np.bool_] | None:
        """[users, items]; what may not be recommended to whom. None: everything may be."""
        if left_out is None and candidates is None and self.allowed is None:
            return None
        closed = np.full((users, self.prompter.trie.items), candidates is not None)
        for row, items in enumerate(candidates or ()):
            closed[row, items] = False
        if self.allowed is not None:
            closed |= ~self.allowed
        for row, items in enumerate(left_out or ()):
            closed[row, items] = True
        return closed

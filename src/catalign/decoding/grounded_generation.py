"""The decoder of BIGRec: the model writes freely, and the items nearest to what it wrote are recommended."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from catalign.decoding.generation import PUBLISHED_BEAMS, generate_in_batches
from catalign.decoding.grounding import TitleTable, embed_texts
from catalign.decoding.ranking import rank_items
from catalign.decoding.recommend import Decoder, History
from catalign.model.language_model import LanguageModel
from catalign.prompting.prompter import Prompter


class GroundedGeneration(Decoder):
    """Ranks items by the distance of their titles' embeddings from that of the best free text.

    Args:
        model: writes the texts; put into evaluation mode meanwhile.
        prompter: writes the prompts and holds the trie.
        embedder: the frozen base model that made the table.
        table: the embeddings of the titles, see `title_table`.
        beams: width of the free generation; 4 as published.
        length_penalty: of the free generation, see `generate_texts`; 1 as published.
        exclude_history: leave out the items of the history; the next nearest take their places.
        batch_size: histories in one batch.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompter: Prompter,
        embedder: LanguageModel,
        table: TitleTable,
        *,
        beams: int = PUBLISHED_BEAMS,
        length_penalty: float = 1.0,
        exclude_history: bool = False,
        batch_size: int = 32,
    ) -> None:
        self.model, self.prompter, self.embedder, self.table = model, prompter, embedder, table
        self.beams, self.length_penalty = beams, length_penalty
        self.exclude_history, self.batch_size = exclude_history, batch_size

    @property
    def settings(self) -> dict[str, Any]:
        """Width, length penalty and filter."""
        return {
            "decoder": "grounding",
            "beams": self.beams,
            "length_penalty": self.length_penalty,
            "exclude_history": self.exclude_history,
        }

    def recommend(
        self, histories: Sequence[History], count: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """See `Decoder.recommend`; scores are distances with a minus sign, the same for items that share a title."""
        trie, template = self.prompter.trie, self.prompter.template
        prompts = [self.prompter.prompt(history) for history in histories]
        for numbers, found in generate_in_batches(
            self.model, prompts, beams=self.beams, most_tokens=int(trie.depth.max()),
            length_penalty=self.length_penalty, batch_size=self.batch_size,
        ):  # fmt: skip
            texts = [template.bare(rows[0]) for rows in found.texts(self.model.tokenizer)]
            closed, wanted = None, count
            if self.exclude_history:
                closed = np.zeros((len(numbers), trie.items), dtype=np.bool_)
                for row, number in enumerate(numbers):
                    closed[row, np.asarray(histories[number], dtype=np.int64)] = True
                wanted += int(closed.sum(axis=1).max())
            title_BK, distance_BK = self.table.nearest(embed_texts(self.embedder, texts), wanted)
            items, scores = rank_items(trie, title_BK, -distance_BK, count, closed)
            yield numbers, items, scores

"""Prompts that list candidates: the published pair prompt, and one of N.

Like `prompter.py` it joins pieces that are tokenised once each, so that prompts share their beginnings. The text of a
published prompt is kept letter by letter (`ChoicePrompter.text`); its tokens may be cut otherwise than a tokenizer
would cut the whole text.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedTokenizerBase

from catalign.catalogue.catalogue import Catalogue
from catalign.errors import UserError
from catalign.prompting.prompter import TokenArray, encode_pieces, with_item_tokens
from catalign.prompting.templates import TITLE, TitleText

log = logging.getLogger(__name__)
Items = Sequence[int] | npt.NDArray[np.integer]


class ChoiceTemplate(BaseModel):
    """The pieces of a prompt that lists a history and candidates, and the form of its answer.

    Attributes:
        name: what the template is called in reports.
        opening: text before the history.
        item: one item of the history; `{title}` stands for its title.
        separator: text between two items of the history.
        question: text between the history and the candidates.
        candidate: one candidate.
        candidate_separator: text between two candidates.
        closing: text after the candidates.
        answer: one item of the answer; the model's end token follows the last.
        answer_separator: text between two items of an answer.
        answers_all: whether an answer names all candidates in order, or one of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    opening: str
    item: TitleText
    separator: str = ""
    question: str
    candidate: TitleText
    candidate_separator: str
    closing: str
    answer: TitleText
    answer_separator: str = ""
    answers_all: bool


def pair_template(name: str, thing: str, things: str, past: str, continuous: str) -> ChoiceTemplate:
    """The prompt of DMPO (arXiv 2405.16127): a history and two candidates; the answer is both, the likelier first."""
    piece = f" <Title:{TITLE}> "
    return ChoiceTemplate(
        name=name,
        opening=(
            f"You are an assistant working on {thing} recommendations. "
            f"Here is the user's history of {things} they have {past}: "
        ),
        item=piece,
        question=f". Rank the likelihood of the user {continuous} the two {things} ",
        candidate=piece,
        candidate_separator=" and ",
        closing=".",
        answer=piece,
        answer_separator=", ",
        answers_all=True,
    )


PAIRS = {
    "games": pair_template("pair, games", "Video Games", "Video Games", "shopped", "shopping"),
    "movies": pair_template("pair, movies", "movie", "movies", "watched", "watching"),
    "ml-1m": pair_template("pair, movies", "movie", "movies", "watched", "watching"),
}
"""The published wording for each published domain."""

PAIR = pair_template("pair", "item", "items", "chosen", "choosing")
"""The same wording for any other catalogue."""


def template_of(options: Mapping[str, Any]) -> ChoiceTemplate:
    """The pair prompt of a dataset by the options it was made with: that of its `domain`, or the one for any items."""
    return PAIRS.get(options.get("domain", ""), PAIR)


ONE_OF = ChoiceTemplate(
    name="one of",
    opening="A person chose these items, the oldest first: ",
    item=f'"{TITLE}"',
    separator=", ",
    question=".\nOne of these candidates is what the person chose next: ",
    candidate=f'"{TITLE}"',
    candidate_separator=", ",
    closing=".\nThe title of that candidate is: ",
    answer=f'"{TITLE}"',
    answers_all=False,
)
"""Choose one of N candidates, the task of S-DPO (arXiv 2406.09215) and its followers, in our own words."""


class ChoicePrompter:
    """Writes prompts with candidates for one catalogue, tokenizer and template; every item is tokenised once.

    Attributes:
        template: the template in use.
        longest_answer: tokens of the longest answer that names one item, the end token among them.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        tokenizer: PreTrainedTokenizerBase,
        template: ChoiceTemplate,
        *,
        context: int,
        item_tokens: npt.NDArray[np.integer] | None = None,
    ) -> None:
        """Tokenise the pieces.

        Args:
            catalogue: the items.
            tokenizer: of the model.
            template: what is written around them.
            context: the longest sequence of the model, in tokens.
            item_tokens: as `Prompter` puts them behind items; here behind candidates too, as LLaRA does.

        Raises:
            UserError: the tokenizer has no end token.
        """
        if tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has no end token", where=tokenizer.name_or_path, mend="use another model")
        self.template = template
        self._catalogue, self._context = catalogue, context
        begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        pieces = (
            template.opening, template.separator, template.question, template.candidate_separator, template.closing,
            template.answer_separator,
        )  # fmt: skip
        opening, *others = (np.array(tokens, dtype=np.int32) for tokens in encode_pieces(tokenizer, pieces))
        self._opening = np.concatenate([np.array(begin, dtype=np.int32), opening])
        self._separator, self._question, self._candidate_separator, self._closing, self._answer_separator = others
        self._end = np.array([tokenizer.eos_token_id], dtype=np.int32)
        tokens_of = {
            form: encode_pieces(tokenizer, _written(form, catalogue))
            for form in {template.item, template.candidate, template.answer}
        }
        self._items = with_item_tokens(tokens_of[template.item], item_tokens)
        self._candidates = with_item_tokens(tokens_of[template.candidate], item_tokens)
        self._answers = with_item_tokens(tokens_of[template.answer], None)
        self.longest_answer = max(map(len, self._answers)) + 1
        self._cut = False

    def prompt(self, history: Items, candidates: Items) -> TokenArray:
        """The prompt of a history and its candidates, in the order given.

        The oldest items of the history are left out where the context would not hold an answer after it: all candidates
        in any order, or any one item.

        Args:
            history: item indices, oldest first.
            candidates: item indices.

        Raises:
            UserError: the candidates alone are longer than the model's context.
        """
        listed = list(_between((self._candidates[item] for item in candidates), self._candidate_separator))
        after = [self._question, *listed, self._closing]
        room = self._context - len(self._opening) - sum(map(len, after)) - self._answer_room(candidates)
        shown = [self._items[item] for item in history]
        total = sum(map(len, shown)) + len(self._separator) * (len(shown) - 1)
        while shown and total > room:
            total -= len(shown.pop(0)) + len(self._separator)
            self._note_cut()
        if not shown:
            raise UserError(
                f"a prompt of {len(candidates)} candidates and one item of history is longer than the model's context "
                f"of {self._context} tokens",
                mend="ask for fewer candidates or use a model with a longer context",
            )
        return np.concatenate([self._opening, *_between(shown, self._separator), *after])

    def _answer_room(self, candidates: Items) -> int:
        """Tokens that an answer to a prompt with these candidates may have, the end token among them."""
        if not self.template.answers_all:
            return self.longest_answer
        named = sum(len(self._answers[item]) for item in candidates)
        return named + len(self._answer_separator) * (len(candidates) - 1) + 1

    def _note_cut(self) -> None:
        """Say once that histories are cut to the context."""
        if not self._cut:
            log.warning("some prompts are longer than the model's context; their oldest items are left out")
        self._cut = True

    def answer(self, items: Items) -> TokenArray:
        """The answer that names these items in this order, closed by the end token."""
        return np.concatenate([*_between((self._answers[item] for item in items), self._answer_separator), self._end])

    def text(self, history: Items, candidates: Items) -> str:
        """The whole prompt as text, however long."""
        template, titles = self.template, self._catalogue.titles
        shown = template.separator.join(template.item.replace(TITLE, titles[item]) for item in history)
        listed = template.candidate_separator.join(
            template.candidate.replace(TITLE, titles[item]) for item in candidates
        )
        return template.opening + shown + template.question + listed + template.closing

    def answer_text(self, items: Items) -> str:
        """The answer that names these items in this order, as text."""
        titles = self._catalogue.titles
        return self.template.answer_separator.join(self.template.answer.replace(TITLE, titles[item]) for item in items)


def _written(form: str, catalogue: Catalogue) -> list[str]:
    return [form.replace(TITLE, title) for title in catalogue.titles]


def _between(pieces: Sequence[TokenArray] | Iterator[TokenArray], separator: TokenArray) -> Iterator[TokenArray]:
    """The pieces with the separator between each two."""
    separated = chain.from_iterable((separator, piece) for piece in pieces)
    next(separated, None)
    return separated

"""From item indices to the tokens that the model reads and answers."""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from catalign.catalogue.catalogue import Catalogue
from catalign.catalogue.trie import TitleTrie
from catalign.errors import UserError
from catalign.prompting.histories import LAST_TEN, HistoryRule
from catalign.prompting.templates import TITLE, Template

log = logging.getLogger(__name__)
TokenArray = npt.NDArray[np.int32]
Items = Sequence[int] | npt.NDArray[np.integer]


def encode_pieces(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], known: dict[str, list[int]] | None = None
) -> list[list[int]]:
    """Token ids of each text. What looks like a special token in a title is text like any other.

    Args:
        tokenizer: the tokenizer.
        texts: the texts.
        known: token ids of texts of before, which are taken from there; the others are added.
    """
    if not texts:
        return []
    if known is not None:
        fresh = list({text for text in texts if text not in known})
        known.update(zip(fresh, encode_pieces(tokenizer, fresh), strict=True))
        return [known[text] for text in texts]
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def encode_answers(tokenizer: PreTrainedTokenizerBase, template: Template, texts: Sequence[str]) -> list[TokenArray]:
    """Tokens of answers that need not be titles, each closed by the end token; an empty text is that token alone."""
    encoded = encode_pieces(tokenizer, [template.answer.replace(TITLE, text) if text else "" for text in texts])
    return [np.array([*tokens, tokenizer.eos_token_id], dtype=np.int32) for tokens in encoded]


def with_item_tokens(
    items: Sequence[list[int]], item_tokens: npt.NDArray[np.integer] | None
) -> list[npt.NDArray[np.int32]]:
    """The tokens of each item, with the token that stands for it behind them, where it has one."""
    if item_tokens is None:
        return [np.array(tokens, dtype=np.int32) for tokens in items]
    pairs = zip(items, item_tokens.tolist(), strict=True)
    return [np.array([*tokens, own] if own >= 0 else tokens, dtype=np.int32) for tokens, own in pairs]


class Prompter:
    """Writes prompts for one catalogue, tokenizer and template; every item is tokenised once, at the start.

    Attributes:
        trie: the trie of the answers, each closed by the end token.
        template: the template in use.
        rule: which items of a history are shown.
        longest_prompt: tokens that a prompt may have, so that the longest answer still fits the model's context.
        item_tokens: the token behind each item of a history, as given.

    Args:
        examples: worked examples, each a history and the target that followed it. Every prompt begins with them,
            written as a training window is, the answer closed by the end token. They are the same for everybody, so a
            batch reads them once.
        item_tokens: [items]; a token to put behind each item of a history, which stands for it beside its title
            (`LanguageModel.item_tokens`); below 0, none. Answers have no such token.
        known: see `encode_pieces`; for a catalogue that changes a little at a time.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        *,
        context: int,
        rule: HistoryRule = LAST_TEN,
        examples: Sequence[tuple[Items, int]] = (),
        item_tokens: npt.NDArray[np.integer] | None = None,
        known: dict[str, list[int]] | None = None,
    ) -> None:
        end_token = tokenizer.eos_token_id
        if end_token is None:
            raise UserError("the tokenizer has no end token", where=tokenizer.name_or_path, mend="use another model")
        self.template = template
        self.rule = rule
        self.item_tokens = item_tokens
        begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        opening, separator, closing = (
            encode_pieces(tokenizer, [text])[0] for text in (template.opening, template.separator, template.closing)
        )
        self._opening = np.array(begin + opening, dtype=np.int32)
        self._separator = np.array(separator, dtype=np.int32)
        self._closing = np.array(closing, dtype=np.int32)
        if template.item == TITLE and not separator and not template.end_after_item:
            log.warning("template %s: nothing separates the titles of a history", template.name)

        after = [end_token] if template.end_after_item else []
        items = encode_pieces(tokenizer, [template.item.replace(TITLE, title) for title in catalogue.titles], known)
        self._items = with_item_tokens([tokens + after for tokens in items], item_tokens)
        self.trie: TitleTrie = catalogue.build_trie(
            lambda titles: encode_pieces(tokenizer, [template.answer.replace(TITLE, title) for title in titles], known),
            end_token,
        )
        self.longest_prompt = context - int(self.trie.depth.max())
        self._cut = 0
        self._check_lengths(catalogue, context)
        if examples:
            worked = [piece for history, target in examples for piece in (self.prompt(history), self._answer(target))]
            self._opening = np.concatenate([*worked, self._opening])
            self._check_lengths(catalogue, context, len(examples))

    def _answer(self, item: int) -> TokenArray:
        """The tokens of an answer, the end token among them."""
        node, _ = self.trie.paths([item])
        return self.trie.token[node]

    def _check_lengths(self, catalogue: Catalogue, context: int, examples: int = 0) -> None:
        """Refuse a catalogue whose longest title leaves no room for a history of one item."""
        fixed = len(self._opening) + len(self._closing)
        lengths = np.fromiter(map(len, self._items), dtype=np.int64)
        longest = int(lengths.argmax())
        if fixed + lengths[longest] > self.longest_prompt:
            shown = f"{examples} examples" if examples else "the prompt"
            remedy = "show fewer examples" if examples else "shorten the title"
            raise UserError(
                f"the title has {lengths[longest]} tokens: with {shown} and an answer of up to "
                f"{int(self.trie.depth.max())} tokens that is more than the model's context of {context}",
                where=f"item {catalogue.item_ids[longest]}",
                mend=f"{remedy} or use a model with a longer context",
            )

    def prompt(self, history: Items, seen: int | None = None) -> TokenArray:
        """The prompt of a history. The oldest items are left out where the context is too short.

        Args:
            history: item indices, oldest first.
            seen: how many items the person had chosen, if the history holds only the last of them.
        """
        return self.write(self.shown(history, seen))

    def shown(self, history: Items, seen: int | None = None) -> Items:
        """The items of a history that its prompt shows: the last ones, as the rule and the context have it."""
        count = self.rule.shown(len(history) if seen is None else seen, len(history))
        items = history[len(history) - count :]
        room = self.longest_prompt - len(self._opening) - len(self._closing)
        total = sum(len(self._items[item]) for item in items) + len(self._separator) * (len(items) - 1)
        while total > room:
            total -= len(self._items[items[0]]) + len(self._separator)
            items = items[1:]
            self._note_cut()
        return items

    def write(self, items: Items) -> TokenArray:
        """The prompt that shows exactly these items, none left out; it may be longer than the context."""
        separated = [piece for item in items for piece in (self._separator, self._items[item])][1:]
        return np.concatenate([self._opening, *separated, self._closing])

    def _note_cut(self) -> None:
        """Say once that histories are cut to the context."""
        if self._cut == 0:
            log.warning("some histories are longer than the model's context; their oldest items are left out")
        self._cut += 1

    def answer_nodes(self, items: npt.ArrayLike) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Trie nodes of the answers of several items, and their offsets (see `TitleTrie.paths`)."""
        return self.trie.paths(items)

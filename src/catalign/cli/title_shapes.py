"""What titles make of the trie: how many tokens they have, how many of these decide, where the first choice lies."""

from collections.abc import Iterator

import polars as pl
from transformers import PreTrainedTokenizerBase

from catalign.catalogue.catalogue import Catalogue
from catalign.catalogue.trie import TrieStatistics
from catalign.data.titles import TITLE, TitleFormat, distinguish, load_tokenizer, shorten_to_words, writable
from catalign.model.embedded import PRESETS, build_tokenizer
from catalign.prompting.prompter import encode_pieces

WORDS = (8, 4)  # the lengths that are tried


def trie_shape(titles: list[str], tokenizer_name: str | None) -> TrieStatistics:
    """The shape of the trie of some titles.

    Args:
        titles: one per item.
        tokenizer_name: a Hugging Face folder or the name of a model; None trains the byte-level BPE on these titles
            that `catalign model init` would.

    Raises:
        UserError: there is no such tokenizer, or a title has no tokens.
    """
    tokenizer: PreTrainedTokenizerBase
    if tokenizer_name is None:
        tokenizer = build_tokenizer(titles, PRESETS["small"].vocabulary)
    else:
        tokenizer = load_tokenizer(tokenizer_name)
    catalogue = Catalogue.from_lists(map(str, range(len(titles))), titles)
    trie = catalogue.build_trie(lambda texts: encode_pieces(tokenizer, texts), int(tokenizer.eos_token_id))
    return trie.statistics()


def strategies(items: pl.DataFrame) -> Iterator[tuple[str, list[str]]]:
    """The titles of a dataset's items as they are, then as each strategy would have them on top of that."""
    yield "as they are", items[TITLE].to_list()
    for column in items.drop("item_id", TITLE):
        if writable(column):
            with_column = TitleFormat(f"{{title}}[, {{{column.name}}}]")
            yield f"with {column.name}", with_column.write(items, clean=True)[0].to_list()
    for words in WORDS:
        yield f"{words} words", shorten_to_words(items[TITLE], words).to_list()
    yield "told apart", distinguish(items, clean=True)[0][TITLE].to_list()

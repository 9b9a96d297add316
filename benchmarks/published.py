"""The published flow, written plainly: padded sequences, logits of everything, a constraint walked in Python.

Legend: B rows of a batch, T tokens of a padded row, V vocabulary, P positions that predict a token of a title.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from catalign.catalogue.trie import TitleTrie
from catalign.decoding.search import ScoreMode
from catalign.model.language_model import LanguageModel

TokenArray = npt.NDArray[np.int32]


def title_tokens(trie: TitleTrie, titles: npt.NDArray[np.integer]) -> list[TokenArray]:
    """Tokens of titles, end token included."""
    node, offsets = trie.paths(trie.title_items[trie.title_items_start[titles]])
    return np.split(trie.token[node], offsets[1:-1])


class AllowedTokens:
    """The constraint of the published decoders: a dictionary from every beginning of a title to the tokens after it.

    The lists are kept as tensors, which `generate` takes as they are; lists of numbers would be slower.
    """

    def __init__(self, trie: TitleTrie, padding: int) -> None:
        after: dict[tuple[int, ...], set[int]] = {}
        self.title_of: dict[tuple[int, ...], int] = {}
        for title, array in enumerate(title_tokens(trie, np.arange(trie.titles))):
            tokens = tuple(array.tolist())
            self.title_of[tokens] = title
            for depth, token in enumerate(tokens):
                after.setdefault(tokens[:depth], set()).add(token)
        self._after = {prefix: torch.tensor(sorted(tokens)) for prefix, tokens in after.items()}
        self._nothing = torch.tensor([padding])
        self.prompt_length = 0

    def __call__(self, _: int, sequence: Tensor) -> Tensor:
        """What `generate` asks for every beam at every step."""
        return self._after.get(tuple(sequence[self.prompt_length :].tolist()), self._nothing)


def pad_left(prompts: Sequence[TokenArray], padding: int) -> tuple[Tensor, Tensor]:
    """Tokens [B, T] and attention mask [B, T]."""
    longest = max(map(len, prompts))
    token_BT = torch.full((len(prompts), longest), padding)
    for row, prompt in enumerate(prompts):
        token_BT[row, longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
    mask_BT = torch.arange(longest) >= longest - torch.tensor([len(prompt) for prompt in prompts])[:, None]
    return token_BT, mask_BT.long()


def search(
    model: LanguageModel,
    allowed: AllowedTokens,
    prompts: Sequence[TokenArray],
    *,
    beams: int,
    score: ScoreMode,
    longest_title: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Constrained beam search by `generate`: titles [B, K], -1 where none, and their log-probabilities.

    `full` is Hugging Face's order (softmax over the vocabulary, then the mask); for `valid` the scores are normalised
    again behind the mask.
    """
    padding = int(model.tokenizer.pad_token_id)
    token_BT, mask_BT = pad_left(prompts, padding)
    allowed.prompt_length = token_BT.shape[1]
    output = model.base.generate(  # type: ignore[operator]
        token_BT,
        attention_mask=mask_BT,
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=longest_title,
        prefix_allowed_tokens_fn=allowed,
        renormalize_logits=score == "valid",
        length_penalty=0.0,
        early_stopping=False,
        do_sample=False,
        eos_token_id=model.end_token,
        pad_token_id=padding,
        output_scores=True,
        return_dict_in_generate=True,
    )
    answers = output.sequences[:, token_BT.shape[1] :].tolist()
    titles = np.full(len(answers), -1, dtype=np.int64)
    for row, answer in enumerate(answers):
        if model.end_token in answer:
            titles[row] = allowed.title_of.get(tuple(answer[: answer.index(model.end_token) + 1]), -1)
    return titles.reshape(-1, beams), output.sequences_scores.float().numpy().reshape(-1, beams)

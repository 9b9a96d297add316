"""The published flow, written plainly: padded sequences, logits of everything, a constraint walked in Python.

Legend: B rows of a batch, T tokens of a padded row, V vocabulary, P positions that predict a token of a title.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from catalign.catalogue.trie import TitleTrie
from catalign.decoding.scores import ScoreMode
from catalign.model.language_model import LanguageModel

TokenArray = npt.NDArray[np.int32]


def title_tokens(trie: TitleTrie, titles: npt.NDArray[np.integer]) -> list[TokenArray]:
    """Tokens of titles, end token included."""
    node, offsets = trie.paths(trie.title_items[trie.title_items_start[titles]])
    return np.split(trie.token[node], offsets[1:-1])


class AllowedTokens:
    """The constraint of the published decoders: a dictionary from every beginning of a title to the tokens after it.

    The lists are kept as tensors, which `generate` takes as they are; lists of numbers would be slower, and so would
    tensors on another device than the scores.
    """

    def __init__(self, trie: TitleTrie, padding: int, device: torch.device | None = None) -> None:
        found: dict[tuple[int, ...], set[int]] = {}
        self.title_of: dict[tuple[int, ...], int] = {}
        for title, array in enumerate(title_tokens(trie, np.arange(trie.titles))):
            tokens = tuple(array.tolist())
            self.title_of[tokens] = title
            for depth, token in enumerate(tokens):
                found.setdefault(tokens[:depth], set()).add(token)
        self._after = {prefix: torch.tensor(sorted(tokens), device=device) for prefix, tokens in found.items()}
        self._nothing = torch.tensor([padding], device=device)
        self.prompt_length = 0

    def __call__(self, _: int, sequence: Tensor) -> Tensor:
        """What `generate` asks for every beam at every step."""
        return self.after(tuple(sequence[self.prompt_length :].tolist()))

    def after(self, prefix: tuple[int, ...]) -> Tensor:
        """The tokens that may follow the beginning of a title; padding where it is none."""
        return self._after.get(prefix, self._nothing)


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
    token_BT, mask_BT = (part.to(model.device) for part in pad_left(prompts, padding))
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
    return titles.reshape(-1, beams), output.sequences_scores.float().cpu().numpy().reshape(-1, beams)


@dataclass(frozen=True)
class PaddedRows:
    """Padded rows.

    Attributes:
        token_BT: prompts and titles, padded on the right.
        attention_BT: 1 where there is a token.
        label_BT: the tokens of the titles, -100 elsewhere.
    """

    token_BT: Tensor
    attention_BT: Tensor
    label_BT: Tensor

    def to(self, device: torch.device) -> Self:
        """The same rows on a device."""
        return replace(self, **{field.name: vars(self)[field.name].to(device) for field in fields(self)})


@dataclass(frozen=True)
class TrainingRows(PaddedRows):
    """Padded training rows as the published collator of MSL makes them.

    Attributes:
        valid_BTV: the tokens that may stand at each place of a title.
    """

    valid_BTV: Tensor


def pad_right(prompts: Sequence[TokenArray], titles: Sequence[TokenArray], padding: int) -> PaddedRows:
    """Rows of prompt and title."""
    shape = len(prompts), max(len(prompt) + len(title) for prompt, title in zip(prompts, titles, strict=True))
    token_BT, attention_BT = torch.full(shape, padding), torch.zeros(shape, dtype=torch.int64)
    label_BT = torch.full(shape, -100)
    for row, (prompt, title) in enumerate(zip(prompts, titles, strict=True)):
        start, end = len(prompt), len(prompt) + len(title)
        token_BT[row, :end] = torch.from_numpy(np.concatenate([prompt, title]).astype(np.int64))
        attention_BT[row, :end] = 1
        label_BT[row, start:end] = token_BT[row, start:end]
    return PaddedRows(token_BT, attention_BT, label_BT)


class Collator:
    """Makes the rows of a micro-batch; the children of every node are looked up by its beginning, in Python."""

    def __init__(self, allowed: AllowedTokens, vocabulary: int, padding: int) -> None:
        self._allowed, self._vocabulary, self._padding = allowed, vocabulary, padding

    def __call__(self, prompts: Sequence[TokenArray], titles: Sequence[TokenArray]) -> TrainingRows:
        """Rows of prompt and title, with the dense mask [B, T, V]."""
        rows = pad_right(prompts, titles, self._padding)
        valid_BTV = torch.zeros(*rows.token_BT.shape, self._vocabulary, dtype=torch.bool)
        for row, (prompt, title) in enumerate(zip(prompts, titles, strict=True)):
            tokens = tuple(title.tolist())
            for depth in range(len(title)):
                valid_BTV[row, len(prompt) + depth, self._allowed.after(tokens[:depth])] = True
        return TrainingRows(rows.token_BT, rows.attention_BT, rows.label_BT, valid_BTV)


def masked_loss(model: LanguageModel, rows: TrainingRows) -> Tensor:
    """Sum over all target positions of -log softmax over the valid tokens, from the logits of every position."""
    logits_BTV = model.base(input_ids=rows.token_BT, attention_mask=rows.attention_BT, use_cache=False).logits
    target_BT = rows.label_BT[:, 1:] != -100
    logits_PV = logits_BTV[:, :-1][target_BT].float()
    logits_PV = logits_PV.masked_fill(~rows.valid_BTV[:, 1:][target_BT], -torch.inf)
    return torch.nn.functional.cross_entropy(logits_PV, rows.label_BT[:, 1:][target_BT], reduction="sum")


def language_loss(model: LanguageModel, rows: PaddedRows) -> Tensor:
    """Sum over all target positions of -log softmax over the vocabulary, from the logits of every position."""
    logits_BTV = model.base(input_ids=rows.token_BT, attention_mask=rows.attention_BT, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1).float(), rows.label_BT[:, 1:].flatten(), ignore_index=-100, reduction="sum"
    )


def title_scores(
    model: LanguageModel, collate: Collator, prompt: TokenArray, titles: Sequence[TokenArray], score: ScoreMode
) -> Tensor:
    """Log-probabilities of titles, the prompt repeated for each, from the logits of every position."""
    rows = collate([prompt] * len(titles), titles)
    return row_scores(model, rows, rows.valid_BTV if score == "valid" else None)


def row_scores(model: LanguageModel, rows: PaddedRows, valid_BTV: Tensor | None = None) -> Tensor:
    """Log-probabilities [B] of the titles, from the logits of every position; with a mask, among the valid tokens."""
    logits_BTV = model.base(input_ids=rows.token_BT, attention_mask=rows.attention_BT, use_cache=False).logits[:, :-1]
    label_BT = rows.label_BT[:, 1:]
    if valid_BTV is not None:
        logits_BTV = logits_BTV.masked_fill((label_BT != -100)[..., None] & ~valid_BTV[:, 1:], -torch.inf)
    log_BT = logits_BTV.log_softmax(dim=-1).gather(2, label_BT.clamp(min=0)[..., None]).squeeze(2)
    score_B: Tensor = (log_BT * (label_BT != -100)).sum(dim=1)
    return score_B

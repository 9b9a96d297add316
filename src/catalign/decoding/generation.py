"""Free generation: beam search over the whole vocabulary, with no catalogue behind it.

What it finds are the texts of Hugging Face's `generate(num_beams=W, do_sample=False)`, token for token, with its
defaults `early_stopping=False` and `length_penalty=1` (those of the published SOFT and BIGRec decoders); one beam is
greedy search there and here. The keys and values of the prompts are computed once, and the tokens of the beams are
branches behind them (`branches.py`): nothing is replicated or reordered.

Legend: B users, W beams, C candidates of a user, L tokens of a text, H width, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from catalign.decoding.branches import Branches, PlainRows
from catalign.errors import UserError
from catalign.model.language_model import LanguageModel
from catalign.objectives.language import LOGITS_AT_ONCE

NEVER = float("-inf")
NO_TOKEN = -1
PUBLISHED_BEAMS = 4


@dataclass(frozen=True)
class GeneratedTexts:
    """The texts of each prompt, best first.

    Attributes:
        token_BWL: their tokens, the end token among them where there is one, -1 after the last.
        score_BW: sums of the tokens' log-probabilities, without a length penalty; -inf where a user has fewer texts.
    """

    token_BWL: npt.NDArray[np.int64]
    score_BW: npt.NDArray[np.float32]

    def texts(self, tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
        """The W texts of each prompt without special tokens and surrounding space; empty where nothing is left."""
        rows = [token_L[token_L != NO_TOKEN] for token_WL in self.token_BWL for token_L in token_WL]
        if not rows:
            return []
        texts = [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]
        beams = self.token_BWL.shape[1]
        return [texts[start : start + beams] for start in range(0, len(texts), beams)]


@torch.no_grad()
def generate_texts(
    model: LanguageModel,
    prompts: Sequence[npt.NDArray[np.integer]],
    *,
    beams: int = PUBLISHED_BEAMS,
    most_tokens: int,
    length_penalty: float = 1.0,
) -> GeneratedTexts:
    """Generate the most likely texts after each prompt of a batch.

    Args:
        model: the language model, in evaluation mode.
        prompts: B token arrays, none empty.
        beams: W, both the width of the search and the number of texts returned; 1 is greedy.
        most_tokens: a text ends here if it has not met its end token before.
        length_penalty: texts are compared by (sum of log-probabilities) / (tokens, the end token among them) to this
            power.

    Raises:
        UserError: a prompt and `most_tokens` do not fit the model's context.
    """
    if not prompts:
        return GeneratedTexts(np.zeros((0, beams, 0), dtype=np.int64), np.zeros((0, beams), dtype=np.float32))
    longest = max(map(len, prompts))
    if longest + most_tokens > model.context:
        raise UserError(
            f"a prompt of {longest} tokens and a text of up to {most_tokens} do not fit the model's context of "
            f"{model.context}",
            mend="allow fewer tokens",
        )
    generation = _Generation(model, prompts, beams, most_tokens, length_penalty)
    while generation.step():
        pass
    token_BWL, score_BW = generation.done_token_BWL.cpu().numpy(), generation.done_score_BW.cpu().numpy()
    return GeneratedTexts(token_BWL[..., : int((token_BWL != NO_TOKEN).sum(axis=2).max())], score_BW)


def generate_in_batches(
    model: LanguageModel,
    prompts: Sequence[npt.NDArray[np.integer]],
    *,
    beams: int = PUBLISHED_BEAMS,
    most_tokens: int,
    length_penalty: float = 1.0,
    batch_size: int = 32,
) -> Iterator[tuple[npt.NDArray[np.int64], GeneratedTexts]]:
    """Generate texts for any number of prompts; see `generate_texts`.

    Prompts that begin alike share a batch, in which their beginning is read once; equal prompts are answered once. The
    model is put into evaluation mode meanwhile.

    Yields:
        numbers [B] into `prompts`, and their texts.
    """
    numbers_of: dict[bytes, list[int]] = {}
    for number, prompt in enumerate(prompts):
        numbers_of.setdefault(prompt.astype(">u4").tobytes(), []).append(number)  # compares as the tokens do
    groups = [numbers_of[key] for key in sorted(numbers_of)]
    with model.evaluating():
        for start in range(0, len(groups), batch_size):
            batch = groups[start : start + batch_size]
            distinct = [prompts[numbers[0]] for numbers in batch]
            found = generate_texts(model, distinct, beams=beams, most_tokens=most_tokens, length_penalty=length_penalty)
            row = np.repeat(np.arange(len(batch)), [len(numbers) for numbers in batch])
            yield np.concatenate(batch), GeneratedTexts(found.token_BWL[row], found.score_BW[row])


class _Generation:
    """The state of one batch. A beam that does not exist has score -inf.

    What is done is kept for all users; everything else for those that are still `open`.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[npt.NDArray[np.integer]],
        beams: int,
        most_tokens: int,
        length_penalty: float,
    ) -> None:
        self.model, self.beams, self.most_tokens = model, beams, most_tokens
        self.length_penalty = length_penalty
        users, device = len(prompts), model.device
        self.done_token_BWL = torch.full((users, beams, most_tokens), NO_TOKEN, device=device)
        self.done_score_BW = torch.full((users, beams), NEVER, device=device)
        self.done_value_BW = self.done_score_BW.clone()  # with the length penalty: what texts are compared by
        self.open_B = torch.arange(users, device=device)
        self.branches = Branches(model, prompts) if model.shares_prefixes else PlainRows(model, prompts)
        self.hidden_BWH = self.branches.hidden_B1H
        self.score_BW = torch.zeros(users, 1, device=device)
        self.token_BWL = torch.zeros(users, 1, 0, dtype=torch.int64, device=device)

    def step(self) -> bool:
        """Let every beam choose its next token; returns whether anything is left to do."""
        length = self.token_BWL.shape[2] + 1
        score_BC, parent_BC, token_BC = self._best()
        ends_BC = (token_BC == self.model.end_token) | (length == self.most_tokens)
        path_BCL = self.token_BWL.gather(1, parent_BC[..., None].expand(-1, -1, length - 1))
        path_BCL = torch.cat([path_BCL, token_BC[..., None]], dim=2)
        # As in `generate`: what ends counts only among the best W, the others are there so that W can go on.
        ended_BW = score_BC[:, : self.beams].masked_fill(~ends_BC[:, : self.beams], NEVER)
        self._finish(ended_BW, path_BCL[:, : self.beams])
        self.score_BW, order_BW = score_BC.masked_fill(ends_BC, NEVER).topk(min(self.beams, score_BC.shape[1]), dim=1)
        self.token_BWL = path_BCL.gather(1, order_BW[..., None].expand(-1, -1, length))
        return self._go_on(parent_BC.gather(1, order_BW))

    def _best(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The 2W best continuations of each user: score, beam and token (W may end, so that W go on)."""
        head_VH, bias_V = self.model.head_VH, self.model.head_bias_V
        width, count = self.score_BW.shape[1], min(2 * self.beams, len(head_VH))
        users = max(LOGITS_AT_ONCE // (width * len(head_VH)), 1)
        best, tokens = [], []
        for hidden_BWH in torch.split(self.hidden_BWH, users):
            logits_BWV = nn.functional.linear(hidden_BWH.to(head_VH.dtype), head_VH, bias_V).float()
            log_BWV = self.model.finish_logits(logits_BWV).log_softmax(dim=-1)
            log_BWC, token_BWC = log_BWV.topk(count, dim=2)
            best.append(log_BWC)
            tokens.append(token_BWC)
        score_BX = (torch.cat(best) + self.score_BW[..., None]).flatten(1)
        score_BC, column_BC = score_BX.topk(count, dim=1)
        return score_BC, column_BC // count, torch.cat(tokens).flatten(1).gather(1, column_BC)

    def _finish(self, score_BW: torch.Tensor, token_BWL: torch.Tensor) -> None:
        """Merge texts that ended into the W best so far."""
        value_BX = torch.cat([self.done_value_BW[self.open_B], score_BW / self._length_share(token_BWL)], dim=1)
        value_BW, order_BW = value_BX.topk(self.beams, dim=1)
        score_BX = torch.cat([self.done_score_BW[self.open_B], score_BW], dim=1)
        padded_BWL = nn.functional.pad(token_BWL, (0, self.most_tokens - token_BWL.shape[2]), value=NO_TOKEN)
        token_BXL = torch.cat([self.done_token_BWL[self.open_B], padded_BWL], dim=1)
        self.done_value_BW[self.open_B] = value_BW
        self.done_score_BW[self.open_B] = score_BX.gather(1, order_BW)
        self.done_token_BWL[self.open_B] = token_BXL.gather(1, order_BW[..., None].expand(-1, -1, self.most_tokens))

    def _length_share(self, token_BWL: torch.Tensor) -> float:
        """What the scores of texts of this length are divided by."""
        return float(token_BWL.shape[2] ** self.length_penalty)

    def _go_on(self, parent_BW: torch.Tensor) -> bool:
        """Read the chosen tokens of the users whose texts may still become better; returns whether there are any."""
        worst_B = self.done_value_BW[self.open_B, -1]
        better_B = self.score_BW[:, 0] / self._length_share(self.token_BWL) > worst_B
        left = better_B.nonzero()[:, 0]
        if len(left) == 0:
            return False
        if len(left) < len(better_B):
            self.branches.keep(left)
            self.open_B, self.score_BW, self.token_BWL = self.open_B[left], self.score_BW[left], self.token_BWL[left]
            parent_BW = parent_BW[left]
        self.hidden_BWH = self.branches.grow(self.token_BWL, parent_BW)
        return True

"""Texts that grow as branches behind prompts that were read once.

Every user has a row of slots (`prompts.py`): those of the prompt, then those of all tokens that were appended behind
it. A mask tells which of them each branch sees: the prompt and its own ancestors.

Legend: B users, W branches of a user, T prompt slots, G slots appended to them, L tokens of a branch, X all slots,
H width.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from catalign.decoding.prompts import Prompts
from catalign.model.language_model import LanguageModel


class Branches:
    """Branches behind prompts, for models in which prefixes can be shared.

    Attributes:
        hidden_B1H: hidden states of the last token of each prompt.
    """

    def __init__(self, model: LanguageModel, prompts: Sequence[npt.NDArray[np.integer]]) -> None:
        self._prompts = Prompts(model, prompts)
        self._seen_BWG = torch.zeros(len(prompts), 1, 0, dtype=torch.bool, device=model.device)
        self.hidden_B1H = self._prompts.hidden_BH[:, None]

    def grow(self, token_BWL: torch.Tensor, parent_BW: torch.Tensor) -> torch.Tensor:
        """Append the last token of every branch behind its parent; returns their hidden states [B, W, H].

        Args:
            token_BWL: the branches, each one token longer than before.
            parent_BW: which of the branches before each one continues.
        """
        width, length = token_BWL.shape[1:]
        before_BWG = self._seen_BWG.gather(1, parent_BW[..., None].expand(-1, -1, self._seen_BWG.shape[2]))
        own_WW = torch.eye(width, dtype=torch.bool, device=token_BWL.device)
        self._seen_BWG = torch.cat([before_BWG, own_WW.expand(len(token_BWL), -1, -1)], dim=2)
        visible_BWX = torch.cat([self._prompts.seen_BT[:, None].expand(-1, width, -1), self._seen_BWG], dim=2)
        position_BW = (self._prompts.length_B[:, None] + length - 1).expand(-1, width)
        return self._prompts.append(token_BWL[..., -1], position_BW, visible_BWX)

    def keep(self, user_B: torch.Tensor) -> None:
        """Go on with these users only."""
        self._seen_BWG = self._seen_BWG[user_B]
        self._prompts.keep(user_B)


class PlainRows:
    """The same face for models in which nothing can be shared: prompt and branch are read again for every token."""

    def __init__(self, model: LanguageModel, prompts: Sequence[npt.NDArray[np.integer]]) -> None:
        self._model = model
        self._length_B = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        padded_BT = np.zeros((len(prompts), max(map(len, prompts))), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            padded_BT[row, : len(prompt)] = prompt
        self._token_BT = torch.from_numpy(padded_BT).to(model.device)
        self.hidden_B1H = self._last_hidden(self._token_BT[:, None], self._length_B)

    def _last_hidden(self, token_BWX: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
        """Hidden states [B, W, H] of the last token of each row."""
        users, width, length = token_BWX.shape
        hidden_BWXH = self._model.rows_hidden(token_BWX.flatten(0, 1)).view(users, width, length, -1)
        return hidden_BWXH[torch.arange(users, device=length_B.device), :, length_B - 1]

    def grow(self, token_BWL: torch.Tensor, parent_BW: torch.Tensor) -> torch.Tensor:
        """See `Branches.grow`; the parents are in the tokens."""
        users, width, length = token_BWL.shape
        token_BWX = torch.nn.functional.pad(self._token_BT, (0, length))[:, None].repeat(1, width, 1)
        slot_BWL = (self._length_B[:, None] + torch.arange(length, device=token_BWL.device))[:, None]
        token_BWX.scatter_(2, slot_BWL.expand(users, width, length), token_BWL)
        return self._last_hidden(token_BWX, self._length_B + length)

    def keep(self, user_B: torch.Tensor) -> None:
        """Go on with these users only."""
        self._length_B, self._token_BT = self._length_B[user_B], self._token_BT[user_B]

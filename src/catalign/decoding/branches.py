"""Prompts read once, and texts that grow behind them as branches.

Every user has a row of the cache: the slots of the prompt, then the slots of all tokens that were appended behind it. A
mask tells which of them each branch sees: the prompt and its own ancestors. Nothing is copied or reordered when a
branch is given up or splits.

Legend: B users, W branches of a user, T prompt slots of the cache, G slots appended to it, L tokens of a branch,
R rows of a forest, N nodes of a row, H width.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from catalign.model.forest import ancestor_mask, pack_forest
from catalign.model.language_model import LanguageModel

ROW_TOKENS = 256  # of a forest of prompts, unless one of them is longer
ROOM = 64  # slots made free behind those that are needed


def common_length(prompts: Sequence[npt.NDArray[np.integer]]) -> int:
    """Length of the common beginning of all prompts, at most one token less than the shortest has."""
    most = min(map(len, prompts)) - 1
    same_T = (np.stack([prompt[:most] for prompt in prompts]) == prompts[0][:most]).all(axis=0)
    return most if same_T.all() else int(same_T.argmin())


class Branches:
    """Branches behind prompts, for models in which prefixes can be shared.

    Attributes:
        hidden_B1H: hidden states of the last token of each prompt.
    """

    def __init__(self, model: LanguageModel, prompts: Sequence[npt.NDArray[np.integer]]) -> None:
        self._model = model
        self._cache: Cache = DynamicCache()
        self._slots: list[_Slots] = []
        device = model.device
        self._length_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self._seen_BT = torch.arange(int(self._length_B.max()), device=device) < self._length_B[:, None]
        self._seen_BWG = torch.zeros(len(prompts), 1, 0, dtype=torch.bool, device=device)
        self.hidden_B1H = self._read(prompts)

    def _read(self, prompts: Sequence[npt.NDArray[np.integer]]) -> torch.Tensor:
        """Run the prompts: their common beginning once, what follows as a forest; then give every user their row."""
        device = self._model.device
        shared = common_length(prompts)
        if shared > 0:
            token_1T = torch.from_numpy(prompts[0][None, :shared].astype(np.int64)).to(device)
            self._decode(token_1T, torch.arange(shared, device=device)[None])
        rest = [prompt[shared:] for prompt in prompts]
        forest = pack_forest(rest, max(ROW_TOKENS, *map(len, rest)))
        assert forest.end_RN is not None
        if shared > 0:
            self._cache.batch_repeat_interleave(len(forest.token_RN))
        own_R1NN = ancestor_mask(forest.end_RN.to(device))
        mask = torch.cat([own_R1NN.new_ones(*own_R1NN.shape[:3], shared), own_R1NN], dim=3)
        hidden_RNH = self._decode(
            forest.token_RN.to(device), forest.depth_RN.to(device) + shared, self._model.attention_mask(mask)
        )
        node_BT = forest.row_S[:, None] * forest.token_RN.shape[1] + forest.node_ST.clip(min=0)
        place_BT = torch.from_numpy(node_BT).to(device)
        for layer in self._cache.layers:
            assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
            self._slots.append(_Slots(_rows_of(layer.keys, shared, place_BT), _rows_of(layer.values, shared, place_BT)))
        self._cache = Cache(layers=[*self._slots])
        last = torch.from_numpy(forest.flat_nodes(np.arange(len(rest)), np.array([len(one) - 1 for one in rest])))
        return hidden_RNH.flatten(0, 1)[last.to(device)][:, None]

    def _decode(
        self, token_BM: torch.Tensor, position_BM: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run tokens and append their keys and values to the cache; causal attention where no mask is given."""
        hidden_BMH: torch.Tensor = self._model.decoder(
            **self._model.inputs(token_BM),
            position_ids=position_BM,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return hidden_BMH

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
        mask_BWX = torch.cat([self._seen_BT[:, None].expand(-1, width, -1), self._seen_BWG], dim=2)
        position_BW = (self._length_B[:, None] + length - 1).expand(-1, width)
        return self._decode(token_BWL[..., -1], position_BW, self._model.attention_mask(mask_BWX[:, None]))

    def keep(self, user_B: torch.Tensor) -> None:
        """Go on with these users only."""
        self._length_B, self._seen_BT = self._length_B[user_B], self._seen_BT[user_B]
        self._seen_BWG = self._seen_BWG[user_B]
        for slots in self._slots:
            slots.keep(user_B)


class _Slots(DynamicLayer):  # type: ignore[no-untyped-call]
    """The keys and values of one layer, a row per user, with room behind them: a step copies nothing but its own."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Start with the slots of the prompts, [B, heads, T, width] each."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._keys, self._values, self._filled = keys, values, keys.shape[2]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the slots of a step; returns all slots that are filled, as views."""
        start, self._filled = self._filled, self._filled + key_states.shape[2]
        if self._filled > self._keys.shape[2]:
            self._keys, self._values = (_with_room(slots, self._filled + ROOM) for slots in (self._keys, self._values))
        self._keys[:, :, start : self._filled] = key_states
        self._values[:, :, start : self._filled] = value_states
        return self._keys[:, :, : self._filled], self._values[:, :, : self._filled]

    def get_seq_length(self) -> int:
        """The slots that are filled."""
        return self._filled

    def keep(self, user_B: torch.Tensor) -> None:
        """Keep the rows of these users."""
        self._keys, self._values = self._keys[user_B], self._values[user_B]


def _rows_of(cached: torch.Tensor, shared: int, place_BT: torch.Tensor) -> torch.Tensor:
    """Keys or values [B, heads, shared + T, width] of every prompt, from those of a forest behind shared tokens.

    Args:
        cached: [R, heads, shared + N, width]; the shared slots are the same in every row.
        shared: how many they are.
        place_BT: flat number [R * N] of each prompt's tokens after them.
    """
    own = cached[:, :, shared:].transpose(1, 2).flatten(0, 1)[place_BT].transpose(1, 2)
    return torch.cat([cached[:1, :, :shared].expand(len(place_BT), -1, -1, -1), own], dim=2)


def _with_room(slots: torch.Tensor, count: int) -> torch.Tensor:
    """The same slots, with free ones behind them up to `count`."""
    roomy = slots.new_empty(*slots.shape[:2], count, slots.shape[3])
    roomy[:, :, : slots.shape[2]] = slots
    return roomy


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

"""Prompts read once: their keys and values as slots, a row per user, with room for the tokens that come behind them.

Prompts are read as a forest, so nothing is padded and what they share is read once; then every user gets a row. A row
has the slots of the prompt, then those of everything that was appended behind it. Nothing is copied or reordered when
a beam is given up or splits: a mask says which slots a token sees.

Legend: B users, T prompt slots, G slots appended to them, M tokens appended at once, X = T + G + M, R rows of a forest,
N nodes of a row, L tokens of one prompt, H width.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from catalign.decoding.prompt_states import PromptState, PromptStates
from catalign.model.forest import ancestor_mask, pack_forest
from catalign.model.language_model import LanguageModel

TokenArrays = Sequence[npt.NDArray[np.integer]]
ROW_TOKENS = 256  # of a forest of prompts, unless one of them is longer
ROOM = 64  # slots made free behind those that are needed


def common_length(prompts: TokenArrays) -> int:
    """Length of the common beginning of all prompts, at most one token less than the shortest has."""
    most = min(map(len, prompts)) - 1
    same_T = (np.stack([prompt[:most] for prompt in prompts]) == prompts[0][:most]).all(axis=0)
    return most if same_T.all() else int(same_T.argmin())


class Prompts:
    """Prompts that were read, for models in which prefixes can be shared.

    Args:
        model: the language model.
        prompts: B token arrays, none empty.
        states: prompts of before; what they share with these is not read again, and these are kept there.

    Attributes:
        length_B: tokens of each prompt.
        seen_BT: which slots hold tokens of the prompt.
        hidden_BH: hidden states of the last token of each prompt.
    """

    def __init__(self, model: LanguageModel, prompts: TokenArrays, states: PromptStates | None = None) -> None:
        self._model = model
        self.length_B = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        self.seen_BT = torch.arange(max(map(len, prompts)), device=model.device) < self.length_B[:, None]
        if states is None:
            self._slots, self.hidden_BH = _read(model, prompts)
        else:
            self._slots, self.hidden_BH = _read_with_states(model, prompts, states)

    def append(
        self,
        token_BM: torch.Tensor,
        position_BM: torch.Tensor,
        visible_BMX: torch.Tensor,
        user_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run tokens behind the prompts; returns their hidden states [B, M, H].

        Args:
            token_BM: the tokens.
            position_BM: their positions.
            visible_BMX: which slots each of them sees; its own are the last M.
            user_B: the users that these are the rows of; all by default. The slots of the others stay empty.
        """
        for slots in self._slots:
            slots.user_B = user_B
        cache = Cache(layers=[*self._slots])
        return _decode(self._model, cache, token_BM, position_BM, self._model.attention_mask(visible_BMX[:, None]))

    def keep(self, user_B: torch.Tensor) -> None:
        """Go on with these users only."""
        self.length_B, self.seen_BT = self.length_B[user_B], self.seen_BT[user_B]
        for slots in self._slots:
            slots.keep(user_B)


class _Slots(DynamicLayer):  # type: ignore[no-untyped-call]
    """The keys and values of one layer, with room behind them: a step copies nothing but its own.

    Attributes:
        user_B: the rows that take part in the next step; None, all.
    """

    def __init__(self, slots: torch.Tensor) -> None:
        """Start with the slots of the prompts, keys and values: [2, B, heads, T, width]."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._both, self._filled = slots, slots.shape[3]
        self.user_B: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the slots of a step; returns all slots that are filled, as views where all rows take part."""
        start, self._filled = self._filled, self._filled + key_states.shape[2]
        if self._filled > self._both.shape[3]:
            self._both = _with_room(self._both, self._filled + ROOM)
        rows = slice(None) if self.user_B is None else self.user_B
        self._both[0, rows, :, start : self._filled] = key_states
        self._both[1, rows, :, start : self._filled] = value_states
        filled = self._both[..., : self._filled, :]
        return filled[0, rows], filled[1, rows]

    def get_seq_length(self) -> int:
        """The slots that are filled."""
        return self._filled

    def keep(self, user_B: torch.Tensor) -> None:
        """Keep the rows of these users."""
        self._both = self._both[:, user_B]

    def row(self, user: int, start: int, stop: int) -> torch.Tensor:
        """A copy of one user's slots, [2, heads, stop - start, width]."""
        return self._both[:, user, :, start:stop].clone()


def _decode(
    model: LanguageModel,
    cache: Cache,
    token_BM: torch.Tensor,
    position_BM: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Run tokens and append their keys and values to the cache; causal attention where no mask is given."""
    masked = {} if mask is None else {"attention_mask": mask}
    hidden_BMH: torch.Tensor = model.decoder(
        **model.inputs(token_BM), position_ids=position_BM, past_key_values=cache, use_cache=True, **masked
    ).last_hidden_state
    return hidden_BMH


def _read(model: LanguageModel, prompts: TokenArrays) -> tuple[list[_Slots], torch.Tensor]:
    """Run the prompts: their common beginning once, what follows as a forest; then give every user their row."""
    device = model.device
    cache = DynamicCache()
    shared = common_length(prompts) if len(prompts) > 1 else len(prompts[0])
    if shared > 0:
        token_1T = torch.from_numpy(prompts[0][None, :shared].astype(np.int64)).to(device)
        hidden_1TH = _decode(model, cache, token_1T, torch.arange(shared, device=device)[None])
        if len(prompts) == 1:
            return [_Slots(_both(layer)) for layer in cache.layers], hidden_1TH[:, -1]
    rest = [prompt[shared:] for prompt in prompts]
    forest = pack_forest(rest, max(ROW_TOKENS, *map(len, rest)))
    assert forest.end_RN is not None
    if shared > 0:
        cache.batch_repeat_interleave(len(forest.token_RN))
    own_R1NN = ancestor_mask(forest.end_RN.to(device))
    mask = torch.cat([own_R1NN.new_ones(*own_R1NN.shape[:3], shared), own_R1NN], dim=3)
    depth_RN = forest.depth_RN.to(device) + shared
    hidden_RNH = _decode(model, cache, forest.token_RN.to(device), depth_RN, model.attention_mask(mask))
    node_BT = forest.row_S[:, None] * forest.token_RN.shape[1] + forest.node_ST.clip(min=0)
    place_BT = torch.from_numpy(node_BT).to(device)
    last = torch.from_numpy(forest.flat_nodes(np.arange(len(rest)), np.array([len(one) - 1 for one in rest])))
    slots = [_Slots(_rows_of(_both(layer), shared, place_BT)) for layer in cache.layers]
    return slots, hidden_RNH.flatten(0, 1)[last.to(device)]


def _both(layer: object) -> torch.Tensor:
    """Keys and values of a layer of the cache, [2, R, heads, slots, width]."""
    assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
    return torch.stack([layer.keys, layer.values])


def _rows_of(cached: torch.Tensor, shared: int, place_BT: torch.Tensor) -> torch.Tensor:
    """Keys and values [2, B, heads, shared + T, width] of every prompt, from those of a forest behind shared tokens.

    Args:
        cached: [2, R, heads, shared + N, width]; the shared slots are the same in every row.
        shared: how many they are.
        place_BT: flat number [R * N] of each prompt's tokens after them.
    """
    own = cached[:, :, :, shared:].transpose(2, 3).flatten(1, 2)[:, place_BT].transpose(2, 3)
    return torch.cat([cached[:, :1, :, :shared].expand(-1, len(place_BT), -1, -1, -1), own], dim=3)


def _with_room(slots: torch.Tensor, count: int) -> torch.Tensor:
    """The same slots, with free ones behind them up to `count`; zeros, since rows that take no part see them masked."""
    roomy = slots.new_zeros(*slots.shape[:3], count, slots.shape[4])
    roomy[..., : slots.shape[3], :] = slots
    return roomy


def _read_with_states(
    model: LanguageModel, prompts: TokenArrays, states: PromptStates
) -> tuple[list[_Slots], torch.Tensor]:
    """As `_read`; what is known of a prompt is taken from its state, if that is at least half of it."""
    found = [states.find(prompt) for prompt in prompts]
    known = np.array([0 if one is None else one[1] for one in found])
    length = np.array(list(map(len, prompts)))
    known[2 * known < length] = 0
    anew, further = np.flatnonzero(known == 0), np.flatnonzero((known > 0) & (known < length))
    state_of: list[PromptState | None] = [None if one is None else one[0] for one in found]
    states.count(int(length.sum()), int(known.sum()))
    for numbers in (anew.tolist(), further.tolist()):
        if not numbers:
            continue
        part = [prompts[number] for number in numbers]
        if known[numbers[0]]:
            before = [state_of[number] for number in numbers]
            read = _read_further(model, part, [one for one in before if one is not None], known[numbers])
        else:
            read = _as_states(*_read(model, part), part)
        for number, state in zip(numbers, read, strict=True):
            states.keep(prompts[number], state)
            state_of[number] = state
    return _as_slots([state for state in state_of if state is not None])


def _read_further(
    model: LanguageModel, prompts: TokenArrays, before: Sequence[PromptState], known: npt.NDArray[np.int64]
) -> list[PromptState]:
    """Run what follows the first `known` tokens of each prompt, whose slots are taken from another's state."""
    device = model.device
    slots, _ = _as_slots([state.cut(length) for state, length in zip(before, known.tolist(), strict=True)])
    rest = [prompt[length:] for prompt, length in zip(prompts, known, strict=True)]
    rest_B = torch.tensor(list(map(len, rest)), device=device)
    padded_BM = np.zeros((len(rest), max(map(len, rest))), dtype=np.int64)
    for row, tokens in enumerate(rest):
        padded_BM[row, : len(tokens)] = tokens
    token_BM = torch.from_numpy(padded_BM).to(device)
    known_B = torch.from_numpy(known).to(device)
    step_M = torch.arange(token_BM.shape[1], device=device)
    seen_BT = torch.arange(int(known.max()), device=device) < known_B[:, None]
    own_MM = step_M <= step_M[:, None]
    mask_BMX = torch.cat([seen_BT[:, None].expand(-1, len(step_M), -1), own_MM.expand(len(rest), -1, -1)], dim=2)
    hidden_BMH = _decode(
        model, Cache(layers=[*slots]), token_BM, known_B[:, None] + step_M, model.attention_mask(mask_BMX[:, None])
    )
    start = seen_BT.shape[1]
    made = []
    for row, (state, length, tokens) in enumerate(zip(before, known.tolist(), rest, strict=True)):
        own = [layer.row(row, start, start + len(tokens)) for layer in slots]
        whole = [torch.cat([old[:, :, :length], new], dim=2) for old, new in zip(state.layers, own, strict=True)]
        made.append(PromptState(whole, hidden_BMH[row, int(rest_B[row]) - 1].clone()))
    return made


def _as_states(slots: list[_Slots], hidden_BH: torch.Tensor, prompts: TokenArrays) -> list[PromptState]:
    """The state of each prompt, copied out of the rows."""
    return [
        PromptState([layer.row(row, 0, len(prompt)) for layer in slots], hidden_BH[row].clone())
        for row, prompt in enumerate(prompts)
    ]


def _as_slots(states: Sequence[PromptState]) -> tuple[list[_Slots], torch.Tensor]:
    """Rows of several states, with room behind them."""
    longest = max(state.length for state in states)
    slots = []
    for parts in zip(*(state.layers for state in states), strict=True):
        heads, width = parts[0].shape[1], parts[0].shape[3]
        both = parts[0].new_zeros(2, len(parts), heads, longest, width)
        for row, part in enumerate(parts):
            both[:, row, :, : part.shape[2]] = part
        slots.append(_Slots(both))
    return slots, torch.stack([state.hidden_H for state in states])

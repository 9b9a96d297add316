"""What a model computed of prompts, kept for prompts that begin alike: a person who comes back with a longer history.

Keys and values of a token follow from the tokens before it and from the weights, from nothing else. States are
therefore found by tokens: a catalogue that changes changes nothing in them, and a title that changes has other tokens.
One store belongs to one model whose weights do not change.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

TOKEN = np.dtype(">u4")  # keys of such bytes are sorted as their tokens are


@dataclass(frozen=True, eq=False)
class PromptState:
    """One prompt after it was read.

    Attributes:
        layers: keys and values of every layer, [2, heads, tokens, width].
        hidden_H: hidden state of the last token.
    """

    layers: Sequence[torch.Tensor]
    hidden_H: torch.Tensor

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return self.layers[0].shape[2]

    @property
    def bytes(self) -> int:
        """Memory of the tensors."""
        return sum(tensor.nbytes for tensor in (*self.layers, self.hidden_H))

    def cut(self, length: int) -> "PromptState":
        """Its first tokens, as views; the hidden state is not theirs."""
        return PromptState([layer[:, :, :length] for layer in self.layers], self.hidden_H)


class PromptStates:
    """States by the tokens of their prompts; the one that was not used for the longest time goes first.

    Args:
        most_bytes: memory of all states together; a single larger one is not kept.

    Attributes:
        bytes: memory in use.
        tokens: tokens of all prompts asked for.
        tokens_found: those that did not have to be read.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._states: OrderedDict[bytes, PromptState] = OrderedDict()
        self._sorted: list[bytes] = []
        self.bytes = self.tokens = self.tokens_found = 0

    def __len__(self) -> int:
        return len(self._states)

    def find(self, prompt: npt.NDArray[np.integer]) -> tuple[PromptState, int] | None:
        """The state that begins most like a prompt, and how many tokens they share; None if they share nothing.

        A whole prompt is shared only with itself: else its last token is left to be read, whose hidden state is needed.
        """
        key = prompt.astype(TOKEN).tobytes()
        if key in self._states:
            self._states.move_to_end(key)
            return self._states[key], len(prompt)
        place = bisect_left(self._sorted, key)
        near = self._sorted[max(place - 1, 0) : place + 1]  # sorted, the most alike are neighbours
        shared = [min(_shared(key, other), len(prompt) - 1) for other in near]
        if not shared or max(shared) == 0:
            return None
        best = near[int(np.argmax(shared))]
        self._states.move_to_end(best)
        return self._states[best], max(shared)

    def keep(self, prompt: npt.NDArray[np.integer], state: PromptState) -> None:
        """Keep a state; one of a prompt that this one goes on with is no longer needed."""
        key = prompt.astype(TOKEN).tobytes()
        if key in self._states or state.bytes > self._most_bytes:
            return
        place = bisect_left(self._sorted, key)
        if place and key.startswith(self._sorted[place - 1]):
            self._drop(self._sorted[place - 1])
        insort(self._sorted, key)
        self._states[key] = state
        self.bytes += state.bytes
        while self.bytes > self._most_bytes:
            self._drop(next(iter(self._states)))

    def count(self, tokens: int, tokens_found: int) -> None:
        """Count the tokens of a batch of prompts, and those that were found here."""
        self.tokens += tokens
        self.tokens_found += tokens_found

    def _drop(self, key: bytes) -> None:
        self.bytes -= self._states.pop(key).bytes
        del self._sorted[bisect_left(self._sorted, key)]


def _shared(one: bytes, other: bytes) -> int:
    """Tokens at the beginning of both."""
    length = min(len(one), len(other))
    same = np.frombuffer(one[:length], TOKEN) == np.frombuffer(other[:length], TOKEN)
    return len(same) if same.all() else int(same.argmin())

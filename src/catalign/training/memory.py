"""What fits into memory at once: a step's windows in passes, smaller ones after memory ran out, layers computed twice.

A pass is what goes through the model forwards and backwards at once (a micro-batch). The loss of a step is a sum
divided by what the whole step counts, so how a step is cut into passes does not change it.
"""

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from catalign.errors import UserError
from catalign.model.language_model import LanguageModel
from catalign.processes import count
from catalign.progress import console
from catalign.training.batches import Batches, without_windows

Ints = npt.NDArray[np.int64]
Batch = dict[str, torch.Tensor]
NO_MEMORY = ("out of memory", "can't allocate memory")  # GPUs and MPS; torch's allocator on CPUs
MEND = "pass --gradient-checkpointing, --lora or a shorter --history, or take a smaller model"


@dataclass(frozen=True)
class Pass:
    """Windows that go through the model at once, packed.

    Attributes:
        numbers: of the windows; none where a process only runs along with the others.
        batch: what the module's `forward` takes.
    """

    numbers: Ints
    batch: Batch

    @property
    def tokens(self) -> int:
        """Tokens after merging common prefixes, with the padding of the rows: what is computed and kept."""
        return self.batch["token_RN"].numel()


class Passes:
    """Cuts the windows of a step into as few passes as fit, neighbours together.

    Args:
        batches: packs them.
        windows: most windows of a pass.
        tokens: most tokens of a pass; None, any number. A window with more than that by itself is a pass of its own.
    """

    def __init__(self, batches: Batches, *, windows: int, tokens: int | None = None) -> None:
        self.windows, self.tokens = windows, tokens
        self._batches, self._warned = batches, False

    def __call__(self, numbers: Ints) -> list[Pass]:
        """The passes of these windows, in their order."""
        passes, most = [], self.windows
        while len(numbers):
            first = self._first(numbers[: self.windows], most)
            passes.append(first)
            numbers, most = numbers[len(first.numbers) :], max(len(first.numbers), 1)
        return passes

    def idle(self, number: int) -> Pass:
        """A pass without windows, for a process that has none left while others have; its loss is 0."""
        return Pass(np.zeros(0, dtype=np.int64), without_windows(self._batches([number])))

    def _first(self, numbers: Ints, guess: int) -> Pass:
        """The longest beginning of some windows that fits."""
        fits, too_many, best = 0, len(numbers) + 1, None
        size = min(guess, len(numbers))
        while too_many - fits > 1:
            packed = self._packed(numbers[:size])
            if self.tokens is None or packed.tokens <= self.tokens or size == 1:
                fits, best = size, packed
            else:
                too_many = size
            size = (fits + too_many) // 2 if fits == 0 else min((fits + too_many) // 2, 2 * fits)
        assert best is not None
        if self.tokens is not None and best.tokens > self.tokens and not self._warned:
            self._warned = True
            console.print(
                f"window {int(best.numbers[0]):,} has {best.tokens:,} tokens, more than the {self.tokens:,} of a pass: "
                "such windows are passes of their own",
                markup=False,
                soft_wrap=True,
            )
        return best

    def _packed(self, numbers: Ints) -> Pass:
        return Pass(numbers, self._batches(numbers.tolist()))

    def smaller(self, failed: Pass) -> int:
        """What a pass may hold, half of one that did not fit: tokens if they are counted, else windows; 0, give up."""
        if len(failed.numbers) <= 1:
            return 0
        return len(failed.numbers) // 2 if self.tokens is None else min(self.tokens, failed.tokens) // 2

    def shrink(self, most: int) -> str:
        """Take a smaller limit; what it is now, in words."""
        if self.tokens is None:
            self.windows = most
            return f"{most:,} windows"
        self.tokens = most
        return f"{most:,} tokens"


@runtime_checkable
class CountsSteps(Protocol):
    """A callback that counts while a step is computed."""

    def forget_step(self) -> None:
        """Drop what was counted in this step: it is computed anew."""
        ...


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of an accelerator or of the machine."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in NO_MEMORY)


def too_large(failed: Pass | None) -> UserError:
    """What is said when a pass of one window does not fit."""
    if failed is None:
        return UserError("another process ran out of memory with a single window", where="catalign train", mend=MEND)
    window = f"window {int(failed.numbers[0]):,}" if len(failed.numbers) else "a pass without windows"
    what = f"out of memory: {window} alone ({failed.tokens:,} tokens) does not fit"
    return UserError(what, where="catalign train", mend=MEND)


def ends_all(failed: Pass) -> UserError:
    """What is said when memory runs out in one of several processes that hold parts of the weights."""
    what = f"out of memory: a pass of {len(failed.numbers):,} windows ({failed.tokens:,} tokens) does not fit"
    mend = "go on with --resume on fewer or larger GPUs, or train anew with a smaller --max-tokens"
    return UserError(what, where="catalign train", mend=mend)


def free_memory() -> None:
    """Give back what a failed pass held."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def smallest(value: float, device: torch.device) -> float:
    """The smallest of the numbers of all processes."""
    if count() == 1:
        return value
    agreed = torch.tensor(value, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(agreed, op=torch.distributed.ReduceOp.MIN)
    return float(agreed)


def same_number(passes: list[Pass], idle: Callable[[], Pass], device: torch.device) -> list[Pass]:
    """The passes of this process, and idle ones up to the number of the process that has most."""
    most = -int(smallest(-len(passes), device))
    return passes + [idle() for _ in range(most - len(passes))]


NOTHING_FAILED = math.inf


class RandomState:
    """The random states of torch at one moment, on the CPU and on the device that computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._own = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state()

    def restore(self) -> None:
        """Draw again what was drawn since."""
        torch.set_rng_state(self._cpu)
        if self._own is not None:
            torch.get_device_module(self._device).set_rng_state(self._own)


def add_gradients(module: nn.Module) -> None:
    """The mean of the gradients of all processes, in each: what `DistributedDataParallel` does while it goes backwards.

    It is done when all passes of all processes have ended well, so that a process that ran out of memory leaves no
    other waiting.
    """
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in weights:
        weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad.div_(count())
    started = [torch.distributed.all_reduce(weight.grad, async_op=True) for weight in weights]
    for work in started:
        work.wait()


def checkpoint_layers(model: LanguageModel) -> None:
    """Gradient checkpointing: keep what enters each layer only, and compute the rest again on the way back.

    Transformers does so in training mode alone; the preference stage trains in evaluation mode (without dropout), so
    here it depends on whether a gradient is asked for. Random states are those of the first time.

    Raises:
        UserError: the architecture has no layers that Transformers knows how to compute again.
    """
    layers = [module for module in model.causal.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"{type(model.base).__name__} has no layers that can be computed twice",
            where="--gradient-checkpointing",
            mend="leave the option out",
        )
    for layer in layers:
        layer.forward = partial(_twice, layer.forward)


def _twice(forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(partial(forward, **named), *arguments, use_reentrant=False)

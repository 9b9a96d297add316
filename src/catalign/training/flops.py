"""How much a training step computes, and how much the device could: model FLOP utilisation.

Utilisation is what the model needs divided by what the device could have done in that time (PaLM, arXiv 2204.02311,
appendix B). What is computed beyond need does not count: padding, masked pairs of attention, layers computed twice.
"""

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from catalign.model.language_model import LanguageModel

KNOWN_PEAKS = {  # bfloat16 with float32 sums, without sparsity: the makers' data sheets, by a part of the name
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "B200": 2250e12,
}
MEASURED_WIDTH = {"cpu": 1024}  # of the matrices of a measurement: ten milliseconds or so
ACCELERATOR_WIDTH = 8192


@dataclass(frozen=True)
class Peak:
    """The most operations a second that a device does, and how that is known."""

    flops: float
    source: str


@dataclass(frozen=True)
class StepCost:
    """Operations (multiplications and additions) of forward and backward pass, for what a batch counts.

    With W weights in the matrices of the trunk, L layers, D the width of all attention heads together, H the model's
    width, and a factor of 3 for one product forwards and two backwards (towards its input and towards its weights),
    2 where the weights are frozen:

    - a token: 2 W 3, or 2 W 2 for those W that are frozen;
    - a pair of a token and one that it may attend to: 4 D L 3 (scores, and the sum of values);
    - an entry of the head, which is a position and one token it is scored against: 2 H 3, or 2 H 2.

    The input embedding, norms and activations are left out. So are experts that a token does not visit: a mixture of
    experts is not counted right.
    """

    per_token: float
    per_pair: float
    per_entry: float
    vocabulary: int

    @classmethod
    def of(cls, model: LanguageModel) -> "StepCost":
        """The cost of a model with its adapter."""
        config = model.base.config.get_text_config()
        heads = config.num_attention_heads
        width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
        return cls(
            per_token=sum(2 * size * (3 if trains else 2) for size, trains in matrices(model)),
            per_pair=4 * width * config.num_hidden_layers * 3,
            per_entry=2 * config.hidden_size * (3 if model.head_VH.requires_grad else 2),
            vocabulary=len(model.head_VH),
        )

    def of_batch(self, batch: dict[str, torch.Tensor]) -> float:
        """Operations of a packed batch."""
        entries = len(batch["symbol_E"]) or len(batch["node_P"]) * self.vocabulary
        counted = int(batch["token_counts"][1]) * self.per_token + int(batch["pair_count"]) * self.per_pair
        return counted + entries * self.per_entry


def matrices(model: LanguageModel) -> list[tuple[int, bool]]:
    """The weights of each matrix of the trunk, adapters included, and whether it trains."""
    found = []
    for module in model.decoder.modules():
        if isinstance(module, nn.Linear):  # of a quantised one the tensor is packed: its features are asked
            found.append((module.in_features * module.out_features, module.weight.requires_grad))
        elif isinstance(module, Conv1D):
            found.append((cast(torch.Tensor, module.weight).numel(), module.weight.requires_grad))
    return found


def find_peak(device: torch.device, dtype: torch.dtype, given: float | None = None) -> Peak:
    """The peak of a device: as given, known by its name, or measured by a product of matrices.

    Args:
        device: what computes.
        dtype: of the products.
        given: operations a second, by the user.
    """
    if given is not None:
        return Peak(given, "given")
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for known, flops in KNOWN_PEAKS.items():
            if known in name.replace("-", " ").split(" ") or (" " in known and known in name):
                return Peak(flops, f"data sheet of {known}, bfloat16")
    return _measured(str(device), dtype, torch.get_num_threads())


@lru_cache
def _measured(device: str, dtype: torch.dtype, threads: int) -> Peak:
    """The fastest of a few products of square matrices."""
    width = MEASURED_WIDTH.get(torch.device(device).type, ACCELERATOR_WIDTH)
    square = torch.ones(width, width, dtype=dtype, device=device)
    seconds = []
    for _ in range(4):  # the first is a warm-up
        started = time.perf_counter()
        _ = square @ square
        if torch.device(device).type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - started)
    number_format = str(dtype).removeprefix("torch.")
    how = f"measured here: the fastest of 3 products of {width:,} x {width:,} in {number_format}"
    how += f", {threads} threads" if device == "cpu" else ""
    return Peak(2 * width**3 / min(seconds[1:]), how)

"""Which number format to compute in on this machine, and why."""

from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class PrecisionChoice:
    """A number format and the reason it was chosen, for people to read."""

    dtype: torch.dtype
    reason: str


def choose_device() -> torch.device:
    """The first accelerator, or the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator if accelerator is not None else torch.device("cpu")


def choose_precision(device: torch.device, asked: Precision = "auto") -> PrecisionChoice:
    """bfloat16 autocast in training where the hardware multiplies it natively, float32 elsewhere."""
    if asked != "auto":
        return PrecisionChoice(getattr(torch, asked), "asked for")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return PrecisionChoice(torch.bfloat16, "the GPU multiplies bfloat16 natively")
        return PrecisionChoice(torch.float32, "the GPU does not multiply bfloat16 natively")
    if device.type == "cpu":
        found = [name for name in ("avx512_bf16", "amx_bf16", "bf16") if torch.cpu.get_capabilities().get(name)]
        if found:
            return PrecisionChoice(torch.bfloat16, f"the CPU multiplies bfloat16 natively ({', '.join(found)})")
        return PrecisionChoice(torch.float32, "the CPU has no bfloat16 instructions")
    return PrecisionChoice(torch.float32, f"bfloat16 is not tried on {device.type}")

"""Base models in eight or four bits below an adapter, by bitsandbytes (QLoRA, arXiv 2305.14314)."""

from importlib import metadata
from typing import Literal

import torch
from transformers import BitsAndBytesConfig

from catalign.errors import UserError

Quantize = Literal["8bit", "4bit"]
LIBRARY = "bitsandbytes"
DEVICES = ("cuda", "xpu")  # what it is made for; on a CPU it would run, slower than without


def check_quantize(quantize: Quantize) -> None:
    """Refuse where the library is missing, or an accelerator that it is made for.

    Raises:
        UserError: either.
    """
    where = f"--quantize {quantize}"
    try:
        metadata.version(LIBRARY)
    except metadata.PackageNotFoundError as error:
        raise UserError(f"needs {LIBRARY}", where=where, mend="pip install 'catalign[quantize]'") from error
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None or accelerator.type not in DEVICES:
        found = "there is no accelerator here" if accelerator is None else f"here is {accelerator.type}"
        raise UserError(
            f"needs an NVIDIA, AMD or Intel GPU, and {found}",
            where=where,
            mend="leave the option out, or use such a GPU",
        )


def quantization(quantize: Quantize, dtype: torch.dtype) -> BitsAndBytesConfig:
    """How Transformers loads the weights: linear layers in eight bits, or in NF4 with doubly quantised scales.

    Args:
        quantize: bits of a weight.
        dtype: what products are computed in.
    """
    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )

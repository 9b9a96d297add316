"""The number format and its reason."""

import pytest
import torch

from catalign.model.precision import choose_device, choose_precision

CPU = torch.device("cpu")


def test_asked_for() -> None:
    assert choose_precision(CPU, "bfloat16").dtype == torch.bfloat16
    assert choose_precision(CPU, "float32").dtype == torch.float32
    assert choose_precision(CPU, "float32").reason == "asked for"


@pytest.mark.parametrize(
    ("capabilities", "dtype", "named"),
    [
        ({}, torch.float32, "no bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": False}, torch.float32, "no bfloat16"),
        ({"avx512_bf16": True}, torch.bfloat16, "avx512_bf16"),
        ({"amx_bf16": True}, torch.bfloat16, "amx_bf16"),
        ({"bf16": True}, torch.bfloat16, "bf16"),
    ],
)
def test_cpu(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], dtype: torch.dtype, named: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    choice = choose_precision(CPU)
    assert choice.dtype == dtype
    assert named in choice.reason


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_cuda(monkeypatch: pytest.MonkeyPatch, native: bool, dtype: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    choice = choose_precision(torch.device("cuda"))
    assert choice.dtype == dtype
    assert "GPU" in choice.reason


def test_other_devices_stay_in_float32() -> None:
    choice = choose_precision(torch.device("mps"))
    assert choice.dtype == torch.float32 and "mps" in choice.reason


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert choose_device() == CPU
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert choose_device() == torch.device("cuda")

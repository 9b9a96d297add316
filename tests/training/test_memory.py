"""What fits into memory: passes by a token budget, memory that runs out, layers computed twice, weights in few bits."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaMLP

from catalign.errors import UserError
from catalign.model import quantized
from catalign.model.loading import load_language_model
from catalign.model.quantized import quantization
from catalign.training.memory import Passes, checkpoint_layers, is_out_of_memory
from catalign.training.module import LossModule, TrainingModule
from catalign.training.preference_module import PreferenceModule
from catalign.training.soft_module import SoftModule
from tiny import tiny_model
from toy import catalign, log_lines, mistake, repeatable, series, works

USUAL = {
    "batch-size": 8, "epochs": 1, "train-examples": 37, "learning-rate": 1e-3, "logging-steps": 1,
    "precision": "float32", "row-tokens": 32,
}  # fmt: skip
OPTIONS = [*[text for name, value in USUAL.items() for text in (f"--{name}", value)], "--no-validation"]
SAME: dict[str, float] = {"rel": 1e-6, "abs": 1e-6}
STAGES = ["sft", "ats", "soft", "preference"]
MODULES = {"sft": TrainingModule, "ats": TrainingModule, "soft": SoftModule, "preference": PreferenceModule}


class Stages:
    """The options of each stage; a run to start from is trained where a stage needs it."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._made = request.getfixturevalue

    def __getitem__(self, stage: str) -> list[object]:
        if stage == "soft":
            return ["--stage", "soft", "--from", self._made("toy_run"), "--curriculum", "linear"]
        if stage == "preference":
            return ["--stage", "preference", "--from", self._made("toy_run"), "--negatives", 2, "--lora"]
        places = ["--dataset", self._made("toy_dataset"), "--model", self._made("toy_model")]
        objective = ["lml"] if stage == "sft" else ["msl+ats", "--lora", "--lora-dropout", 0]
        return [*places, "--objective", *objective]


@pytest.fixture
def stages(request: pytest.FixtureRequest) -> Stages:
    return Stages(request)


def trained(run: Path, *options: object) -> list[dict[str, Any]]:
    """Train and return the log, without what depends on how windows meet."""
    works("train", *options, *OPTIONS, "--output", run)
    return [{name: value for name, value in line.items() if name != "tokens_saved"} for line in repeatable(run)]


def assert_same(lines: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(lines) == len(expected) >= 5
    for line, other in zip(lines, expected, strict=True):
        assert line == pytest.approx(other, **SAME)


class Costs:
    """Batches whose windows cost a number of tokens each, after a prompt that all share."""

    windows: Any = None
    row_tokens = 32

    def __init__(self, costs: list[int], shared: int) -> None:
        self.costs, self.shared = costs, shared

    def __call__(self, numbers: list[int]) -> dict[str, torch.Tensor]:
        return {"token_RN": torch.zeros(1, self.shared + sum(self.costs[number] for number in numbers))}


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(0, 3), st.integers(1, 30), st.integers(1, 12))
def test_as_few_passes_as_fit(costs: list[int], shared: int, tokens: int, windows: int) -> None:
    passes = Passes(Costs(costs, shared), windows=windows, tokens=tokens)(np.arange(len(costs)))
    assert [number for each in passes for number in each.numbers] == list(range(len(costs)))
    for each in passes:
        assert len(each.numbers) == 1 or each.tokens <= tokens
        assert len(each.numbers) <= windows
    for each, following in pairwise(passes):  # none could have taken in one window more
        full = len(each.numbers) == windows
        assert full or each.tokens + costs[following.numbers[0]] > tokens


@pytest.mark.parametrize("stage", STAGES)
def test_a_token_budget_changes_no_loss(stages: Stages, stage: str, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", *stages[stage])
    forward, sizes = MODULES[stage].forward, []

    def counted(self: LossModule, **batch: Any) -> Any:
        sizes.append(batch["token_RN"].numel())
        return forward(self, **batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULES[stage], "forward", counted)
        cut = trained(tmp_path / "cut", *stages[stage], "--max-tokens", 70)
    assert_same(cut, whole)
    assert max(sizes) <= 70 and len(sizes) > 6


def test_a_window_above_the_budget_is_a_pass_of_its_own(stages: Stages, tmp_path: Path) -> None:
    ended = catalign("train", *stages["sft"], *OPTIONS, "--max-tokens", 5, "--output", tmp_path / "run")
    assert ended.code == 0 and ended.err.count("such windows are passes of their own") == 1
    assert_same(
        [{n: v for n, v in line.items() if n != "tokens_saved"} for line in repeatable(tmp_path / "run")],
        trained(tmp_path / "whole", *stages["sft"]),
    )


class Memory:
    """Lets the forward pass of a stage run out of memory, after it has counted what it counts.

    Args:
        calls: numbers of the passes, from 0, that fail.
        windows: passes of more windows fail; None, none.
    """

    def __init__(self, patch: pytest.MonkeyPatch, stage: str, *calls: int, windows: int | None = None) -> None:
        forward, self.calls = MODULES[stage].forward, 0

        def limited(module: LossModule, **batch: Any) -> Any:
            answer = forward(module, **batch)
            call, self.calls = self.calls, self.calls + 1
            if call in calls or (windows is not None and len(batch["token_RN"]) > windows):
                if call % 2:
                    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return answer

        patch.setattr(MODULES[stage], "forward", limited)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("call", [0, 5])
def test_memory_that_ran_out_once(
    stages: Stages, stage: str, call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes of four: the first fails, or the second of the third step, whose first is done anew."""
    options = [*stages[stage], "--micro-batch-size", 4]
    expected = trained(tmp_path / "small", *stages[stage], "--micro-batch-size", 2)
    Memory(monkeypatch, stage, call)
    ended = catalign("train", *options, *OPTIONS, "--output", tmp_path / "run")
    assert ended.code == 0 and ended.err.count("out of memory in step") == 1
    assert f"out of memory in step {1 if call == 0 else 3}" in ended.err and "at most 2 windows" in ended.err
    lines = [{n: v for n, v in line.items() if n != "tokens_saved"} for line in repeatable(tmp_path / "run")]
    assert_same(lines, expected)


def test_the_budget_is_halved(stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(tmp_path / "whole", *stages["ats"])
    Memory(monkeypatch, "ats", 0, 1)
    ended = catalign("train", *stages["ats"], *OPTIONS, "--max-tokens", 100, "--output", tmp_path / "run")
    assert ended.code == 0 and ended.err.count("out of memory in step") == 2 and " tokens" in ended.err
    lines = [{n: v for n, v in line.items() if n != "tokens_saved"} for line in repeatable(tmp_path / "run")]
    assert_same(lines, whole)


def test_dropout_is_drawn_anew(stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*stages["ats"], "--lora-dropout", 0.5]
    expected = trained(tmp_path / "small", *options, "--micro-batch-size", 4)
    Memory(monkeypatch, "ats", 0)
    assert_same(trained(tmp_path / "run", *options), expected)


def test_a_single_window_that_does_not_fit(stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Memory(monkeypatch, "sft", *range(100))
    ended = catalign("train", *stages["sft"], *OPTIONS, "--output", tmp_path / "run")
    last = ended.err.strip().splitlines()[-1]
    assert ended.code == 2 and "Traceback" not in ended.err
    assert "alone" in last and "tokens) does not fit" in last and "--gradient-checkpointing" in last


def test_what_says_that_memory_ran_out() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("anything"))
    assert is_out_of_memory(RuntimeError("HIP out of memory. Tried"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(MemoryError("Python's own"))


def test_another_error_is_not_swallowed(stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingModule, "forward", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        catalign("train", *stages["sft"], *OPTIONS, "--output", tmp_path / "run")


@pytest.mark.parametrize("stage", STAGES)
def test_layers_computed_twice_train_alike(
    stages: Stages, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*stages[stage], *(["--lora-dropout", 0.3] if stage == "ats" else [])]
    forward, calls = LlamaMLP.forward, []
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: calls.append(x.requires_grad) or forward(self, x))
    once = trained(tmp_path / "once", *options)
    plain, calls[:] = len(calls), []
    assert_same(trained(tmp_path / "twice", *options, "--gradient-checkpointing"), once)
    layers_of_steps = 2 * 5
    assert len(calls) >= plain + layers_of_steps


def test_layers_keep_less(tmp_path: Path) -> None:
    """The tensors that wait for the backward pass: fewer numbers with checkpointing, and the same gradient."""
    token_RN, kept = torch.arange(24)[None] % 8, []
    depth_RN, end_RN = torch.arange(24)[None], torch.full((1, 24), 24)
    gradients = []
    for twice in (False, True):
        model = tiny_model()
        if twice:
            checkpoint_layers(model)
        held: list[int] = []

        def hold(tensor: torch.Tensor, held: list[int] = held) -> torch.Tensor:
            held.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            loss = model.hidden_states(token_RN, depth_RN, end_RN, torch.arange(24)).square().sum()
        torch.autograd.backward(loss)
        kept.append(sum(held))
        gradients.append([weight.grad for weight in model.parameters() if weight.grad is not None])
    assert kept[1] < kept[0] / 2
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_no_layers_to_compute_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalign.training.memory.GradientCheckpointingLayer", torch.nn.Conv3d)
    with pytest.raises(UserError, match="computed twice"):
        checkpoint_layers(tiny_model())
    assert LlamaDecoderLayer.__name__ not in ("Conv3d",)


def test_bits_are_refused(stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    train = ["train", *stages["sft"], "--output", run, "--quantize"]
    assert "add --lora" in mistake(*train, "4bit")
    assert "choose from 8bit, 4bit" in mistake(*train, "2bit", "--lora")
    monkeypatch.setattr(quantized, "LIBRARY", "a-library-that-is-not-there")
    assert "pip install 'catalign[quantize]'" in mistake(*train, "8bit", "--lora")
    monkeypatch.setattr(quantized, "LIBRARY", "torch")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert "there is no accelerator here" in mistake(*train, "8bit", "--lora")
    assert not run.exists()


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_bits_reach_transformers(toy_model: Path, bits: quantized.Quantize, monkeypatch: pytest.MonkeyPatch) -> None:
    load, asked = AutoModelForCausalLM.from_pretrained, {}

    def loads(name: str, **named: Any) -> Any:
        asked.update(named)
        return load(name, dtype=named["dtype"])

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", loads)
    load_language_model(str(toy_model), quantize=quantization(bits, torch.bfloat16))
    config = asked["quantization_config"]
    assert (config.load_in_8bit, config.load_in_4bit) == (bits == "8bit", bits == "4bit")
    assert bits == "8bit" or (config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)
    assert list(asked["device_map"]) == [""]


def test_the_log_tells_losses(stages: Stages, tmp_path: Path) -> None:
    """The tests above compare something."""
    run = tmp_path / "run"
    works("train", *stages["preference"], *OPTIONS, "--output", run)
    assert len(set(series(run))) == 5 and {"rewards/margins", "loss"} <= log_lines(run)[0].keys()

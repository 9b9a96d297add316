"""What a run tells of itself: operations, rates, phases, a trace."""

import gzip
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.flop_counter import FlopCounterMode

from catalign.files import read_json
from catalign.model.forest import pack_forest, pack_rows
from catalign.model.loading import Lora, add_lora
from catalign.training.flops import StepCost, find_peak, matrices
from catalign.training.memory import Pass
from catalign.training.observe import PHASES, Clock, Meter
from catalign.training.profile import TABLE, TRACE
from tiny import tiny_model
from toy import log_lines, works

RATES = {"speed/windows_per_second", "speed/tokens_per_second", "speed/utilisation", "memory/resident_gb"}


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_operations_are_those_that_torch_counts(adapter: bool) -> None:
    """One plain sequence: torch counts its matrix products forwards and backwards, and all pairs of attention."""
    model = tiny_model()
    if adapter:
        model = add_lora(model, Lora(rank=2, dropout=0, target_modules=("q_proj",)), seed=0)
        # The first layer's input needs no gradient where all is frozen before it; the formula does not know that.
        model.base.get_input_embeddings().weight.requires_grad_(True)
    token_RN = torch.arange(6)[None] % 8
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        hidden_RNH = model.rows_hidden(token_RN)
        torch.autograd.backward(hidden_RNH.sum())
    cost = StepCost.of(model)
    assert counter.get_total_flops() == pytest.approx(6 * cost.per_token + 36 * cost.per_pair)


def test_the_head_counts_entries() -> None:
    model = tiny_model()
    cost = StepCost.of(model)
    counts = {"token_counts": torch.tensor([9, 0]), "pair_count": torch.tensor(0)}
    width, vocabulary = model.base.config.hidden_size, len(model.head_VH)
    some = {**counts, "node_P": torch.zeros(4), "symbol_E": torch.zeros(10)}
    assert cost.of_batch(some) == 10 * 2 * width * 3
    assert cost.of_batch({**some, "symbol_E": torch.zeros(0)}) == 4 * vocabulary * 2 * width * 3


def test_matrices_of_a_model_without_linear_layers() -> None:
    assert sum(size for size, _ in matrices(tiny_model("gpt2"))) > 0


def test_pairs_are_those_of_the_sequences() -> None:
    sequences = [np.array([1, 2, 3]), np.array([1, 2, 4, 5])]
    assert pack_rows(sequences).pairs == 6 + 10
    assert pack_forest(sequences, 99).pairs == 6 + 3 + 4  # tokens 3, 4 and 5 see their own ancestors alone
    assert pack_forest(sequences, 4).pairs == 6 + 10


def test_the_peak() -> None:
    measured = find_peak(torch.device("cpu"), torch.float32)
    assert measured.flops > 1e8 and measured.source.startswith("measured here")
    assert find_peak(torch.device("cpu"), torch.float32, 5e12).flops == 5e12


@pytest.mark.parametrize(
    ("name", "flops"),
    [("NVIDIA H200", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA L4", 121e12),
     ("NVIDIA L40S", 362e12), ("NVIDIA A100-SXM4-80GB", 312e12)],
)  # fmt: skip
def test_known_peaks(name: str, flops: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert find_peak(torch.device("cuda"), torch.bfloat16).flops == flops


def test_every_moment_belongs_to_one_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Clock()

    def later(seconds: float) -> None:
        now[0] += seconds

    later(1)
    with clock.phase("backward"):
        later(2)
        with clock.phase("forward"):
            later(4)
        later(8)
    clock.enter("optimiser")
    later(16)
    clock.leave()
    assert clock.taken() == {"other": 1, "backward": 10, "forward": 4, "optimiser": 16}
    later(3)
    assert clock.taken() == {"other": 3}


def test_the_meter_goes_on() -> None:
    cost = StepCost(per_token=2.0, per_pair=0.0, per_entry=0.0, vocabulary=1)
    peak = find_peak(torch.device("cpu"), torch.float32, 1e3)
    batch = {
        "token_counts": torch.tensor([30, 12]), "pair_count": torch.tensor(0), "node_P": torch.zeros(1),
        "symbol_E": torch.zeros(1),
    }  # fmt: skip
    first, second = Meter(cost, peak), Meter(cost, peak)
    first.add([Pass(np.arange(3), batch), Pass(np.zeros(0, dtype=np.int64), {**batch, "token_counts": torch.zeros(2)})])
    second.restore(json.loads(json.dumps(first.kept())))
    second.add([Pass(np.arange(1), batch)])
    logs: dict[str, Any] = {"loss": 1.0}
    nothing = SimpleNamespace()
    second.on_log(nothing, nothing, nothing, logs=logs)  # type: ignore[arg-type]
    assert logs["tokens_saved"] == pytest.approx(0.6)
    rates = logs["speed/windows_per_second"], logs["speed/tokens_per_second"], logs["speed/utilisation"]
    assert rates[1] / rates[0] == pytest.approx(24 / 4) and rates[2] / rates[0] == pytest.approx(48 / 4 / 1e3)
    assert second.summary()["peak_flops_from"] == "given"


def test_what_a_run_tells(toy_dataset: Path, toy_model: Path, tmp_path: Path) -> None:
    """The log, the events of TensorBoard and the provenance; and a trace, where it is asked for."""
    run = tmp_path / "run"
    usual = ["--dataset", toy_dataset, "--model", toy_model, "--train-examples", 40, "--batch-size", 8, "--epochs", 2]
    works("train", *usual, "--valid-windows", 4, "--logging-steps", 1, "--profile", "--output", run)
    lines = [line for line in log_lines(run) if "loss" in line]
    phases = {f"seconds/{name}" for name in PHASES}
    for line in lines:
        assert line.keys() >= RATES | phases | {"tokens_saved"}
        assert all(line[name] > 0 for name in RATES) and all(line[name] >= 0 for name in phases)
        assert all(line[f"seconds/{name}"] > 0 for name in ("packing", "forward", "backward", "optimiser"))
    assert lines[5]["seconds/validation"] > 0 and lines[5]["seconds/checkpoint"] > 0  # between two lines
    assert lines[1]["seconds/validation"] == 0

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert {f"train/{name}" for name in RATES | phases} <= set(events.Tags()["scalars"])
    observed = read_json(run / "provenance.json")["training"]["observed"]
    assert observed["peak_flops_from"].startswith("measured here") and RATES | phases <= observed.keys()

    with gzip.open(run / "profile" / TRACE) as trace:
        traced = json.load(trace)["traceEvents"]
    assert sum(event["name"] == "Optimizer.step#AdamW.step" for event in traced) == 3
    assert "addmm" in (run / "profile" / TABLE).read_text() or "aten::mm" in (run / "profile" / TABLE).read_text()

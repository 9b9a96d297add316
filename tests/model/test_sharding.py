"""Cut weights in a single process: the same losses, files and optimiser. Two processes are in test_two_processes.py."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, nn
from torch.distributed.tensor import DTensor

from catalign.errors import UserError
from catalign.model.language_model import LanguageModel
from catalign.model.loading import Lora, add_lora, load_weights, save_weights
from catalign.model.sharding import (
    check_shardable,
    cut_optimizer_state,
    gathered,
    gathered_weights,
    is_sharded,
    shard,
    whole_weights,
)
from tiny import tiny_model

TOKENS = torch.tensor([[3, 4, 5, 6]])


class Loss(nn.Module):
    """Reads rows of the head beside the model, as the project's losses do."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self) -> dict[str, torch.Tensor]:
        hidden_RNH = self.model.rows_hidden(TOKENS)
        return {"loss": (hidden_RNH @ self.model.head_VH[[3, 5]].T).square().sum()}


@pytest.fixture
def group() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def cut(loss: Loss) -> Loss:
    shard(loss, set(loss.model.base._no_split_modules or ()))
    return loss


def trained(loss: Loss, steps: int, state: dict[str, object] | None = None) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW([each for each in loss.parameters() if each.requires_grad], lr=1e-2)
    if state is not None:
        optimizer.load_state_dict(cut_optimizer_state(state, optimizer))
    for _ in range(steps):
        loss()["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_steps_and_files_are_those_of_whole_weights(
    architecture: str, lora: bool, group: None, tmp_path: Path
) -> None:  # fmt: skip
    modules = ("c_attn",) if architecture == "gpt2" else ("q_proj",)
    model = tiny_model(architecture)
    if lora:
        model = add_lora(model, Lora(dropout=0, target_modules=modules), 0)
    plain = Loss(model)
    parts = cut(copy.deepcopy(plain))
    assert is_sharded(parts) and not is_sharded(plain)
    plain_state = trained(plain, 2).state_dict()
    state = gathered(trained(parts, 2).state_dict())
    save_weights(plain.model, tmp_path / "plain")
    save_weights(parts.model, tmp_path / "parts")
    (file,) = (path.name for path in (tmp_path / "plain").glob("*.safetensors"))
    weights, expected = (load_file(tmp_path / name / file) for name in ("parts", "plain"))
    assert weights.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name])

    # Another one goes on from what was written.
    other = add_lora(tiny_model(architecture), Lora(dropout=0, target_modules=modules), 1) if lora else None
    resumed = cut(Loss(other or tiny_model(architecture, seed=5)))
    load_weights(resumed.model, tmp_path / "parts")
    trained(plain, 2, plain_state)
    trained(resumed, 2, state)
    whole = gathered_weights(resumed)
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(whole[name], weight)


def test_whole_weights(group: None) -> None:
    loss = Loss(tiny_model("llama"))
    expected = loss.model.rows_hidden(TOKENS)
    cut(loss)()
    with whole_weights(loss), torch.no_grad():
        assert not any(isinstance(weight, DTensor) for weight in loss.parameters())
        for _ in range(2):
            torch.testing.assert_close(loss.model.rows_hidden(TOKENS), expected)
            assert not any(isinstance(weight, DTensor) for weight in loss.parameters())
    assert all(isinstance(weight, DTensor) for weight in loss.parameters())
    trained(loss, 1)


def test_tied_weights_stay_tied(group: None) -> None:
    loss = cut(Loss(tiny_model("llama")))
    weights = gathered_weights(loss.model.causal)
    assert weights["lm_head.weight"] is weights["model.embed_tokens.weight"]


def test_quantised_weights_are_refused() -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UserError, match="quantised"):
        check_shardable(module)

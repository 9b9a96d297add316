"""Weights cut into a part for each process (FSDP2), and whole again where something needs them whole.

Each decoder layer is a group: its weights are gathered when its forward or backward pass begins and freed when that
ends. Everything else (embeddings, head, last norm, projector of item embeddings) is the group of the root, gathered
from the beginning of the loss's forward pass to the end of its backward pass. So a loss that is computed inside that
pass reads rows of the head as plain tensors, tied embeddings or not, and their gradients take the way of all others.
A group is gathered by all processes together: outside a training step, where processes run the model a different
number of times (searches, reference passes), the weights have to be whole before (`whole_weights`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from catalign.errors import UserError
from catalign.processes import count, is_main


def check_shardable(module: nn.Module) -> None:
    """Refuse weights that cannot be cut.

    Raises:
        UserError: they are no floating-point numbers, but quantised.
    """
    if not all(parameter.is_floating_point() for parameter in module.parameters()):
        mend = "leave --quantize out, or start plain data parallel (recipes/accelerate/ddp.yaml)"
        raise UserError("quantised weights are not cut into parts", where="FSDP", mend=mend)


def shard(module: nn.Module, layer_classes: set[str]) -> None:
    """Cut the weights of a module, which are the same in all processes, and leave each process its part.

    Args:
        module: the root; whatever reads its weights does so inside its forward pass or in `whole_weights`.
        layer_classes: names of the classes of the layers that are gathered one by one.
    """
    mesh = init_device_mesh(next(module.parameters()).device.type, (count(),))
    for layer in [part for part in module.modules() if type(part).__name__ in layer_classes]:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    fully_shard(module, mesh=mesh, reshard_after_forward=False)
    assert isinstance(module, FSDPModule)
    module.set_reduce_scatter_unused_params(True)  # an expert may be used in one process and not in another


def is_sharded(module: nn.Module) -> bool:
    """Whether the weights of a module are cut."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


@contextmanager
def whole_weights(module: nn.Module) -> Iterator[None]:
    """Let every process have all weights of a root inside the block, however often it runs the model, to read them."""
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    layers = [part for part in parts if part is not module]
    for part in parts:
        part.unshard()
    for layer in layers:
        layer.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_reshard_after_forward(True, recurse=False)
        for part in parts:
            part.reshard()


def gathered_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a module whose weights are cut, put together in the main process; elsewhere nothing.

    All processes must call this. Tied weights stay tied.
    """
    state = module.state_dict(keep_vars=True)
    whole = {key: gathered(tensor) for key, tensor in {id(tensor): tensor for tensor in state.values()}.items()}
    return {name: whole[id(tensor)] for name, tensor in state.items()} if is_main() else {}


def gathered(value: Any) -> Any:
    """Put together every cut tensor inside (nested) dictionaries and lists, on the CPU of the main process.

    All processes must call this, with values of the same form; what the others get is of no use.
    """
    if isinstance(value, Mapping):
        return {name: gathered(part) for name, part in value.items()}
    if isinstance(value, list):
        return [gathered(part) for part in value]
    if isinstance(value, DTensor):
        whole = value.full_tensor().detach()
        return whole.cpu() if is_main() else None
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def cut(value: torch.Tensor, like: nn.Module) -> torch.Tensor:
    """This process's part of a whole tensor, cut as the weights of a module are; the tensor itself, where none are."""
    for parameter in like.parameters():
        if isinstance(parameter, DTensor):
            mesh = parameter.device_mesh
            return distribute_tensor(value.to(mesh.device_type), mesh, [Shard(0)], src_data_rank=None)
    return value


def cut_optimizer_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A whole state of an optimiser (`state_dict`), cut as the weights that it optimises.

    What has the shape of its weight (moments) is cut like it; counters stay.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]

    def cut_like(weight: torch.Tensor, value: Any) -> Any:
        if not (isinstance(weight, DTensor) and isinstance(value, torch.Tensor) and value.shape == weight.shape):
            return value
        whole = value.to(weight.device_mesh.device_type)
        return distribute_tensor(whole, weight.device_mesh, weight.placements, src_data_rank=None)

    weight_of = dict(zip(numbers, weights, strict=True))
    cut_states = {
        number: {name: cut_like(weight_of[number], value) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": cut_states}

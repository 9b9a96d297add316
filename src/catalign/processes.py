"""Several processes that work as one: who is the main one, what each computes, how they meet.

`torchrun` or `accelerate launch` starts them; without either there is one, and everything here does nothing. Each
process reads the same files and takes the same decisions; only the main one writes and prints. PyTorch is imported
where there are several alone: commands that need no model start at once.
"""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from catalign.errors import UserError
from catalign.progress import console

T = TypeVar("T")
LONGEST_WAIT = timedelta(hours=2)  # for another process; one that has died is noticed at once, by the launcher
USE_FSDP, USE_DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"  # how accelerate launch asks for it

_asked_to_shard = False


def processes_started() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def join_processes() -> None:
    """Meet the other processes, where a launcher started several; all but the main one fall silent.

    Raises:
        UserError: the launcher was told to shard the model in a way that is not known here.
    """
    _read_sharding()
    if processes_started() == 1 or count() > 1:
        return
    import torch
    from accelerate import PartialState  # type: ignore[import-untyped]

    PartialState(cpu=not torch.accelerator.is_available(), timeout=LONGEST_WAIT)  # NCCL on GPUs, gloo on CPUs
    if not is_main():
        console.quiet = True
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # until the process ends


def _read_sharding() -> None:
    """Take note of what the launcher asks for, and keep it from accelerate, which would not shard on CPUs."""
    global _asked_to_shard
    if os.environ.get(USE_DEEPSPEED, "false").lower() == "true":
        raise UserError(
            "DeepSpeed is not supported: its checkpoints would hold a part of the weights only",
            where="accelerate launch", mend="shard with FSDP2 (recipes/accelerate/fsdp2.yaml)",
        )  # fmt: skip
    if os.environ.get(USE_FSDP, "false").lower() != "true":
        return
    for name, supported in (("FSDP_VERSION", "2"), ("FSDP_OFFLOAD_PARAMS", "false")):
        given = os.environ.get(name, supported).lower()
        if given != supported:
            what = f"{name.lower()}: {given} is not supported, {supported} is"
            raise UserError(what, where="accelerate launch", mend="use recipes/accelerate/fsdp2.yaml")
    os.environ[USE_FSDP] = "false"
    _asked_to_shard = True


def shards() -> bool:
    """Whether each process is to hold a part of the weights only (FSDP2), as the launcher asked."""
    return _asked_to_shard and count() > 1


def refuse_processes(command: str) -> None:
    """Refuse to run a command in several processes.

    Raises:
        UserError: a launcher started several.
    """
    if processes_started() > 1:
        raise UserError("runs in one process", where=command, mend="start it without torchrun or accelerate launch")


def count() -> int:
    """How many processes work together: 1 before `join_processes`."""
    if processes_started() == 1:
        return 1
    from torch import distributed

    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    if count() == 1:
        return 0
    from torch import distributed

    return distributed.get_rank()


def is_main() -> bool:
    """Whether this process writes and prints."""
    return rank() == 0


def wait_for_all() -> None:
    """Return when every process has come here."""
    if count() == 1:
        return
    import torch
    from torch import distributed

    on_gpu = distributed.get_backend() == "nccl"
    distributed.barrier(device_ids=[torch.accelerator.current_device_index()] if on_gpu else None)


def share(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """This process's part of some numbers, in one piece; the parts differ in length by one at most."""
    return np.array_split(numbers, count())[rank()]


def in_shares(numbers_S: npt.NDArray[np.int64], compute: Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]]) -> Any:
    """What `compute` returns for some numbers, a row for each, when every process computes a share of them.

    Args:
        numbers_S: at least one; the same in all processes.
        compute: called once, with one number or more; not called in a process that has no share.

    Returns:
        The rows of all numbers, in their order, in every process.
    """
    if count() == 1:
        return compute(numbers_S)
    from torch import distributed

    share_S = share(numbers_S)
    parts: list[Any] = [None] * count()
    distributed.all_gather_object(parts, compute(share_S) if len(share_S) else None)
    return np.concatenate([part for part in parts if part is not None])


def from_main(compute: Callable[[], T]) -> T:
    """What `compute` returns in the main process; it is called there alone."""
    if count() == 1:
        return compute()
    from torch import distributed

    values: list[Any] = [compute() if is_main() else None]
    distributed.broadcast_object_list(values)
    return values[0]  # type: ignore[no-any-return]

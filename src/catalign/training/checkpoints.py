"""Checkpoints that survive: written beside, sealed with checksums, renamed; the newest whole one is found again.

A checkpoint is a folder `checkpoint-STEP` with the weights, what the Trainer keeps (optimiser, schedule, random
states), `stage.json` with what the callbacks keep, and `sealed.json` with the SHA-256 of every other file. A folder
whose files do not match its seal was torn (a crash, a full disk) and is passed over.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from transformers import TrainerCallback

from catalign.errors import UserError
from catalign.files import read_json, sha256_of, to_disk, write_json
from catalign.progress import console

SEAL, STAGE, PARTIAL = "sealed.json", "stage.json", ".partial"
KEPT = 2  # newest checkpoints that stay: the last, and the one before it in case the last is torn


@runtime_checkable
class Remembers(Protocol):
    """A callback whose state must outlive an interruption."""

    def kept(self) -> dict[str, Any]:
        """What to write into the checkpoint; JSON."""
        ...

    def restore(self, kept: dict[str, Any]) -> None:
        """Take back what `kept` returned."""
        ...


def remembered(callbacks: Iterable[TrainerCallback]) -> dict[str, dict[str, Any]]:
    """What the callbacks keep, by the name of their class."""
    return {type(callback).__name__: callback.kept() for callback in callbacks if isinstance(callback, Remembers)}


def restore(callbacks: Iterable[TrainerCallback], kept: dict[str, dict[str, Any]]) -> None:
    """Give the callbacks back what they kept; every one that keeps something must be in the checkpoint."""
    for callback in callbacks:
        if isinstance(callback, Remembers):
            callback.restore(kept[type(callback).__name__])


def step_of(checkpoint: Path) -> int:
    """The optimiser steps done before a checkpoint."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first, whole or torn."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=step_of, reverse=True)


def seal(checkpoint: Path) -> None:
    """Write the checksums of all files, the last thing that is written into a checkpoint, and make it lasting."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    for path in files:
        to_disk(path)
    write_json(checkpoint / SEAL, {path.relative_to(checkpoint).as_posix(): sha256_of(path) for path in files})
    to_disk(checkpoint / SEAL)
    to_disk(checkpoint)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file of a checkpoint is as it was when it was sealed."""
    try:
        sums = read_json(checkpoint / SEAL)
        return all(sha256_of(checkpoint / name) == digest for name, digest in sums.items())
    except (UserError, OSError, AttributeError):  # no seal, no JSON, no such file, no object
        return False


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; torn ones are passed over with a line that says so."""
    for checkpoint in checkpoints(folder):
        if is_whole(checkpoint):
            return checkpoint
        console.print(f"{checkpoint} is torn: going on from the one before it", markup=False, soft_wrap=True)
    return None


def publish(partial: Path, folder: Path, *, best_step: int | None) -> None:
    """Seal a checkpoint, give it its name, and remove those that are neither among the newest nor the best."""
    seal(partial)
    final = folder / partial.name
    if final.exists():  # a torn one of the same step
        shutil.rmtree(final)
    partial.rename(final)
    to_disk(folder)
    for later in checkpoints(folder):  # torn ones that were passed over
        if step_of(later) > step_of(final):
            shutil.rmtree(later)
    for old in checkpoints(folder)[KEPT:]:
        if step_of(old) != best_step:
            shutil.rmtree(old)

"""Two processes train as one does: the same losses, the same metrics, one run folder."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import psutil  # type: ignore[import-untyped]
import pytest
from safetensors.torch import load_file

from catalign.files import read_json
from catalign.model.item_embedding import ItemVectors
from catalign.training.checkpoints import checkpoints, newest_whole, step_of
from catalign.training.distillation import read_answers
from toy import ITEMS, mistake, repeatable, works

pytestmark = pytest.mark.slow

COMMANDS = """
import json, sys
from catalign.cli.main import main
from catalign.training import distillation

distillation.CHUNK = 8
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["catalign", *arguments]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""
USUAL = {
    "batch-size": 8, "epochs": 2, "train-examples": 41, "learning-rate": 3e-3, "valid-windows": 13, "logging-steps": 1,
    "precision": "float32",
}  # fmt: skip
OPTIONS = [text for name, value in USUAL.items() for text in (f"--{name}", str(value))]


SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}  # as accelerate launch says it


def started(*program: object, processes: int = 2, sharded: bool = False) -> "subprocess.Popen[str]":
    """Start a program in several processes, as a user does."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [*torchrun, *map(str, program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **(SHARDED if sharded else {})},
    )  # fmt: skip


def in_processes(folder: Path, *commands: list[object], sharded: bool = False) -> str:
    """Run commands one after the other in two processes, which takes one start; what they printed."""
    (folder / "commands.py").write_text(COMMANDS)
    asked = json.dumps([list(map(str, command)) for command in commands])
    process = started(folder / "commands.py", asked, sharded=sharded)
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    return out


def assert_same(run: Path, other: Path, *, tolerance: float = 1e-5) -> None:
    lines, others = (
        [{name: line[name] for name in line if name != "tokens_saved"} for line in repeatable(folder)]  # in each share
        for folder in (run, other)
    )
    assert len(lines) == len(others) > 10
    for line, expected in zip(lines, others, strict=True):
        assert line == pytest.approx(expected, rel=tolerance, abs=1e-6)


PROTOCOLS: dict[str, list[object]] = {"full": [], "candidates": ["--candidates", 5], "pairs": []}


@dataclass(frozen=True)
class Alone:
    """What one process makes: the options of each stage, and a folder with the run of each and its evaluations."""

    stages: dict[str, list[object]]
    folder: Path


@pytest.fixture(scope="module")
def alone(
    toy_dataset: Path, toy_model: Path, toy_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Alone:  # fmt: skip
    folder = tmp_path_factory.mktemp("alone")
    vector_IW = np.random.default_rng(0).normal(size=(ITEMS, 8)).astype(np.float32)
    ItemVectors([f"i{item:03d}" for item in range(ITEMS)], vector_IW).save_as(folder / "items.parquet")
    places: list[object] = ["--dataset", toy_dataset, "--model", toy_model]
    hard = ["--negatives", 2, "--negatives-from", "hard", "--refresh-steps", 4]
    adapter = ["--lora", "--lora-dropout", 0]
    stages: dict[str, list[object]] = {
        "lml": [*places, "--objective", "lml", "--micro-batch-size", 4, "--batching", "shuffled"],
        "ats": [*places, "--objective", "msl+ats", "--gradient-checkpointing"],
        "lora": [*places, "--objective", "msl", *adapter, "--item-embeddings", folder / "items.parquet"],
        "soft": ["--stage", "soft", "--from", toy_run, "--curriculum-steps", 4, "--answers-kept", 2],
        "dmpo": ["--stage", "preference", "--from", toy_run, *hard, *adapter],  # the reference is without the adapter
        "dmpo-lora": ["--stage", "preference", "--from", folder / "lora", *hard],  # the reference is another adapter
    }
    for name, options in stages.items():
        works("train", *options, *OPTIONS, "--output", folder / name)
    for protocol, options in PROTOCOLS.items():
        works("evaluate", toy_run, "--protocol", protocol, *options, "--output", folder / protocol)
    return Alone(stages, folder)


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp2"])
def test_every_stage(alone: Alone, sharded: bool, tmp_path: Path) -> None:
    """41 windows in batches of 8: the last batch of an epoch has one window, so one process has none."""
    commands = [
        ["train", *options, *OPTIONS, "--output", tmp_path / name] for name, options in alone.stages.items()
    ]  # fmt: skip
    out = in_processes(tmp_path, *commands, sharded=sharded)
    assert out.count("best epoch") == len(alone.stages)
    for name in alone.stages:
        assert_same(tmp_path / name, alone.folder / name)
        files = [{path.name for path in run.iterdir()} for run in (tmp_path / name, alone.folder / name)]
        assert files[0] == files[1]
        for file in alone.folder.joinpath(name).glob("*.safetensors"):
            weights, expected = load_file(tmp_path / name / file.name), load_file(file)
            assert weights.keys() == expected.keys()
            assert all((weights[key] - expected[key]).abs().max() < 1e-5 for key in expected)
    answers = [read_answers(folder / "soft/distilled").drop("scores") for folder in (tmp_path, alone.folder)]
    assert answers[0].equals(answers[1]) and len(list(tmp_path.glob("soft/distilled/part-*.parquet"))) == 6


def test_evaluation(alone: Alone, toy_run: Path, tmp_path: Path) -> None:
    asked = [
        ["evaluate", toy_run, "--protocol", name, *options, "--output", tmp_path / name]
        for name, options in PROTOCOLS.items()
    ]  # fmt: skip
    in_processes(tmp_path, *asked)
    for name in PROTOCOLS:
        assert read_json(tmp_path / name / "metrics.json") == read_json(alone.folder / name / "metrics.json")
        users = [set(pl.read_parquet(part)["user_id"]) for part in (tmp_path / name).glob("part-*.parquet")]
        assert len(users) == 2 and users[0].isdisjoint(users[1])


def wait_for_checkpoint(run: Path, process: "subprocess.Popen[str]", after: int = 0) -> None:
    deadline = time.monotonic() + 240
    while not any(step_of(checkpoint) > after for checkpoint in checkpoints(run / "checkpoints")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp2"])
def test_killed_and_resumed(toy_dataset: Path, toy_model: Path, sharded: bool, tmp_path: Path) -> None:
    """One process dies: all end. SIGTERM to the launcher: all stop at a checkpoint. A single process finishes."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    options = [*OPTIONS, "--learning-rate", 1e-3, "--epochs", 8, "--checkpoint-steps", 2]
    train = ["train", "--dataset", toy_dataset, "--model", toy_model, *options]
    process = started("-m", "catalign", *train, "--output", run, sharded=sharded)
    wait_for_checkpoint(run, process)
    (second,) = (child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == "1")
    second.kill()
    process.communicate(timeout=240)
    assert process.returncode != 0
    step = step_of(newest_whole(run / "checkpoints") or Path("checkpoint-0"))
    assert step > 0

    process = started("-m", "catalign", "train", "--resume", "--output", run, sharded=sharded)
    wait_for_checkpoint(run, process, after=step)
    process.terminate()
    _, told = process.communicate(timeout=240)
    assert process.returncode != 0 and told.count("catalign train --resume --output") == 1
    works("train", "--resume", "--output", run)
    works(*train, "--output", whole)
    assert_same(run, whole)
    assert len(read_json(run / "provenance.json")["resumed"]) == 2


@pytest.mark.parametrize("preset", ["ddp", "fsdp2"])
def test_presets(preset: str, alone: Alone, tmp_path: Path) -> None:
    """The files that are shipped, as the documentation has them; without a GPU the processes meet over gloo."""
    config = Path(__file__).parents[2] / "recipes/accelerate" / f"{preset}.yaml"
    launch = [
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        config,
        "--num_processes",
        2,
        "--main_process_port",
        0,
    ]
    train = ["-m", "catalign", "train", *alone.stages["ats"], *OPTIONS, "--output", tmp_path / "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    program = [sys.executable, *map(str, [*launch, *train])]
    ended = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert_same(tmp_path / "run", alone.folder / "ats")
    assert read_json(tmp_path / "run/provenance.json")["machine"]["processes"] == 2


@pytest.mark.parametrize(("asked", "said"), [
    ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "fsdp_version: 1 is not supported, 2 is"),
    ({**SHARDED, "FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params: true is not supported"),
    ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed is not supported"),
], ids=["fsdp1", "offload", "deepspeed"])  # fmt: skip
def test_refusals(asked: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", **asked}.items():
        monkeypatch.setenv(name, value)
    options = ["--dataset", tmp_path, "--model", tmp_path, "--output", tmp_path / "run"]
    assert said in mistake("train", *options)
    assert "in one process" in mistake("model", "init", "--dataset", tmp_path, "--output", tmp_path / "lm")
    assert not (tmp_path / "run").exists()


SMALL_MEMORY = """
import os, sys
import torch
from catalign.cli.main import main
from catalign.training.module import TrainingModule

forward, calls = TrainingModule.forward, []

def limited(self, **batch):
    calls.append(0)
    answer = forward(self, **batch)
    if os.environ["RANK"] == "1" and len(calls) == 3:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return answer

TrainingModule.forward = limited
sys.argv = ["catalign", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp2"])
def test_memory_runs_out_in_one_process(toy_dataset: Path, toy_model: Path, sharded: bool, tmp_path: Path) -> None:
    """Copies: both processes begin the step anew with smaller passes. Parts: all end, with a line."""
    (tmp_path / "small.py").write_text(SMALL_MEMORY)
    places = ["--dataset", toy_dataset, "--model", toy_model, "--no-validation"]
    train = ["train", *places, *OPTIONS, "--objective", "msl+ats", "--max-tokens", 60]
    process = started(tmp_path / "small.py", *train, "--output", tmp_path / "two", sharded=sharded)
    _, told = process.communicate(timeout=240)
    if sharded:
        assert process.returncode != 0 and "catalign: catalign train: out of memory: a pass of" in told
    else:
        assert process.returncode == 0 and told.count("out of memory in step") == 1, told
        works(*train, "--output", tmp_path / "one")
        assert_same(tmp_path / "two", tmp_path / "one")

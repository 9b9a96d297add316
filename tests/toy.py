"""A toy world with a known answer, and the command line as a user types it.

In the toy world one item always follows another: after item i comes `follower(i)`, for everybody. Users come one after
the other, so that a global chronological split holds whole users out: those of the test split were never trained on,
and the answer to each of their windows is known.
"""

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from catalign.catalogue.catalogue import Catalogue
from catalign.cli.main import main
from catalign.data.dataset import load_dataset
from catalign.model.embedded import build_tokenizer
from catalign.prompting.templates import INSTRUCTION

ITEMS, USERS, VISITS = 24, 60, 9
COLOURS = ("red", "green", "blue", "golden", "silver", "black", "white", "violet")
THINGS = ("lamp", "kettle", "scarf")
TITLES = [f"{colour} {thing}" for thing in THINGS for colour in COLOURS]


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def catalign(*arguments: object) -> Ended:
    """Run a command in this process, through the very entry point of the program."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["catalign", *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code: Any = 0
        except SystemExit as ended:
            code = ended.code or 0
    return Ended(code, out.getvalue(), err.getvalue())


def works(*arguments: object) -> str:
    """Run a command that must succeed and return what it printed."""
    ended = catalign(*arguments)
    assert ended.code == 0, ended.err
    return ended.out


def mistake(*arguments: object) -> str:
    """Run a command that must end with code 2 and one line on standard error; return the line."""
    ended = catalign(*arguments)
    assert ended.code == 2, (ended.code, ended.out, ended.err)
    assert ended.err.startswith("catalign: ") and ended.err.count("\n") == 1, ended.err
    assert ended.out == ""
    return ended.err.removeprefix("catalign: ").strip()


def follower(item: int, items: int = ITEMS) -> int:
    """The item that always follows `item`: one cycle through all, in an order that the titles do not show."""
    cycle = np.random.default_rng(1).permutation(items)
    place = int(np.flatnonzero(cycle == item)[0])
    return int(cycle[(place + 1) % items])


def write_tables(
    folder: Path, *, titles: Sequence[str] = TITLES, users: int = USERS, visits: int = VISITS, prefix: str = "i"
) -> list[str]:
    """Write the toy world as two CSV tables and return the options that `data prepare` needs."""
    items = len(titles)
    log = ["user,item,time"]
    generator = np.random.default_rng(0)
    for user, start in enumerate(generator.permutation(np.arange(users) % items).tolist()):
        item = start
        for visit in range(visits):
            log.append(f"u{user:03d},{prefix}{item:03d},{1_600_000_000 + user * 10_000 + visit}")
            item = follower(item, items)
    (folder / "log.csv").write_text("\n".join(log) + "\n")
    rows = [f'{prefix}{number:03d},"{title}"' for number, title in enumerate(titles)]
    (folder / "items.csv").write_text("\n".join(["item,title", *rows]) + "\n")
    columns = ["--user", "user", "--item", "item", "--time", "time", "--title", "title"]
    return ["--interactions", str(folder / "log.csv"), "--items", str(folder / "items.csv"), *columns]


def make_dataset(folder: Path, **world: Any) -> Path:
    """Prepare the toy world through the command line and return the dataset folder."""
    folder.mkdir(parents=True, exist_ok=True)
    works("data", "prepare", *write_tables(folder, **world), "--min-history", 2, "--output", folder / "ds")
    return folder / "ds"


def make_model(
    dataset: Path, folder: Path, *, width: int = 48, layers: int = 2, seed: int = 0, context: int = 256
) -> Path:
    """Write a Llama of random weights, smaller than any preset, with a tokenizer of the dataset's titles."""
    titles = Catalogue.from_frame(load_dataset(dataset).items).titles
    header = [INSTRUCTION.opening, INSTRUCTION.closing]  # so that it becomes a few tokens, not a few hundred bytes
    tokenizer = build_tokenizer([*titles, *header, *header], 512, context)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4, max_position_embeddings=context, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        causal = LlamaForCausalLM(config)
    causal.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def log_lines(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `log.jsonl`."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def repeatable(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log without what was measured: times, rates, memory."""
    measured = ("seconds", "eval_seconds", "speed/", "memory/")
    return [{name: line[name] for name in line if not name.startswith(measured)} for line in log_lines(run)]


def series(run: Path, name: str = "loss") -> list[float]:
    """A quantity of a run's log, step by step."""
    return [line[name] for line in log_lines(run) if name in line]


def evaluated(run: Path, *arguments: object) -> dict[str, Any]:
    """Evaluate a run and return the metrics of the model's row."""
    rows: list[dict[str, Any]] = json.loads(works("evaluate", run, "--json", *arguments))
    return rows[-1]


def solve(dataset: Path, model: Path, run: Path, *arguments: object) -> Path:
    """Train until the toy world is known; further options after the usual ones."""
    usual = {"learning-rate": 2e-3, "batch-size": 16, "batching": "shuffled", "epochs": 8}
    options = [text for name, value in usual.items() for text in (f"--{name}", value)]
    places = ["--dataset", dataset, "--model", model, "--output", run]
    works("train", *places, "--precision", "float32", *options, *arguments)
    return run

"""`catalign bench`: steps run once, go on after an interruption, and end in a leaderboard that hides nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import yaml

from catalign.bench import run as bench_run
from catalign.data.dataset import load_dataset
from made_runs import lists_with_target_at, made_run
from toy import mistake, works

ROOT = Path(__file__).parents[2]
PLACES = {"ease": [1, 0, 2], "msl": [1, 3, 2], "soft": [1]}


class Machine:
    """Stands in for the commands: makes what they would, at once, and remembers what was typed."""

    def __init__(self, dataset: Path) -> None:
        self.dataset = load_dataset(dataset)
        self.typed: list[list[str]] = []
        self.fails = ""

    def __call__(self, arguments: list[str]) -> int:
        self.typed.append(arguments)
        if self.fails and self.fails in " ".join(arguments):
            return 2
        output = Path(arguments[arguments.index("--output") + 1])
        if arguments[0] == "model":
            output.mkdir(parents=True)
            (output / "config.json").write_text("{}")
        elif arguments[0] == "baseline":
            self._run(output, {"trials": [{}], "chosen": {"parameters": {"l2": 5}}, "valid": {"ndcg@10": 0.5},
                               "seconds": 60.0, "settings": {"seed": 0}})  # fmt: skip
            (output / "recipe.yaml").unlink()
            (output / "metrics.json").write_text("{}")
        elif arguments[0] == "train":
            self._run(output, {})
            (output / "evaluations" / "test").rename(output / "predictions")
        elif arguments[0] == "evaluate":
            (Path(arguments[1]) / "predictions").rename(output)
            (output / "metrics.json").write_text("{}")
        return 0

    def _run(self, output: Path, more: dict[str, Any]) -> None:
        name, _, seed = output.name.rpartition("-seed")
        lists = lists_with_target_at(self.dataset, PLACES[name])
        recipe = {"epochs": len(name)}
        made_run(output, self.dataset, lists, seed=int(seed), recipe=recipe, evaluation="test")
        file = output / "provenance.json"
        provenance = {**json.loads(file.read_text()), **more}
        provenance["training"] |= {"seconds": 120.0, "peak_memory_gb": 1.25, "epochs_run": 4.0, "valid_ndcg@10": 0.25}
        file.write_text(json.dumps(provenance))


@pytest.fixture
def machine(toy_dataset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """A stand-in for the commands, in a working folder with a suite of three methods on the toy world."""
    stand_in = Machine(toy_dataset)
    monkeypatch.setattr(bench_run, "run_command", stand_in)
    monkeypatch.setattr(bench_run, "interpreter", lambda library, folder: Path(sys.executable))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy").symlink_to(toy_dataset)
    write_suite()
    return stand_in


def write_suite(**changes: Any) -> None:
    suite: dict[str, Any] = {
        "name": "Toys | and more", "data": {"toy": {"source": "toy"}}, "models": {"tiny": {"preset": "tiny"}},
        "seeds": [0, 1], "recipe": {"epochs": 3},
        "methods": {
            "ease": {"baseline": "ease", "seeds": [0]},
            "msl": {"model": "tiny", "recipe": {"objective": "msl"}},
            "soft": {"after": "msl", "recipe": {"stage": "soft"}},
        },
    }  # fmt: skip
    Path("suite.yaml").write_text(yaml.safe_dump({**suite, **changes}, sort_keys=False))


CALL = ("bench", "suite.yaml", "--output", "out", "--leaderboard", "board.md")


def test_the_board_has_every_row_and_how_it_was_made(machine: Machine) -> None:
    assert works(*CALL) == "board.md\n"
    assert len(machine.typed) == 1 + 2 * (1 + 2 + 2)
    board = Path("board.md").read_text(encoding="utf-8")
    assert board.startswith("# Toys | and more\n\n    catalign bench suite.yaml --output out")
    for row in ("| popularity |", "| item-kNN, ordered |", "| ease |", "| msl |", "| soft |"):
        assert row in board
    assert "| soft | 1.0000 (1.0000 – 1.0000) | – |" in board and " 2 ± .0000 " in board
    assert "| msl | 0, 1 | epoch 3 of 4 | 0.2500 | 2.0 | 1.25 | `" in board
    assert "| ease | 0 | l2 5 | 0.5000 | 1.0 | – | `" in board
    assert "The best row of ours, soft, " in board and "Caution:" in board and "Not there" not in board
    commands = [line.strip() for line in board.splitlines() if line.startswith("    catalign")][1:]
    assert [line.split()[1] for line in commands] == ["baseline", "model", "train", "evaluate", "train", "evaluate"]
    recipe = yaml.safe_load(Path("out/recipes/toy/soft-seed1.yaml").read_text())
    assert recipe == {"epochs": 3, "stage": "soft", "seed": 1, "dataset": "toy", "from": "out/runs/toy/msl-seed1"}


def test_a_part_of_a_suite_takes_what_it_needs_and_no_more(machine: Machine) -> None:
    works(*CALL, "--only", "ease")
    assert [typed[0] for typed in machine.typed] == ["baseline"]
    assert "**Not there yet, or failed:** msl (seed 0)" in Path("board.md").read_text(encoding="utf-8")
    works(*CALL, "--only", "toy", "--only", "soft")  # what it goes on from is trained, and not evaluated as a row
    made = [typed[0] for typed in machine.typed[1:]]
    assert {name: made.count(name) for name in made} == {"model": 2, "train": 4, "evaluate": 2}
    works(*CALL)
    assert len(machine.typed) == 1 + 2 * (1 + 2 + 2)
    assert Path("board.md").read_text(encoding="utf-8").startswith("# Toys | and more\n\n    catalign bench suite.yaml")
    told = mistake(*CALL, "--only", "eaze")
    assert "neither a data set nor a method of Toys | and more: eaze" in told and "ease" in told


def test_what_the_suite_leaves_out_is_told(machine: Machine) -> None:
    write_suite(data={"toy": {"source": "toy", "without": ["soft"]}})
    works(*CALL)
    board = Path("board.md").read_text(encoding="utf-8")
    assert "Left out on this set: soft." in board and "| soft |" not in board and "Not there" not in board


def test_the_suite_names_the_row_to_compare_with(machine: Machine) -> None:
    write_suite(reference="ease", floor=False)
    works(*CALL)
    board = Path("board.md").read_text(encoding="utf-8")
    assert "Differences to ease on the same windows" in board and "| item-kNN |" not in board
    assert "The best row of ours, soft, " in board and " the best other, ease, in NDCG@10: +" in board


def test_what_is_done_is_not_done_again(machine: Machine) -> None:
    machine.fails = "runs/toy/msl-seed1"
    said = mistake_at_the_end(*CALL)
    assert "1 steps failed: runs/toy/msl-seed1/train; their messages stand above" in said
    board = Path("board.md").read_text(encoding="utf-8")
    assert "**Not there yet, or failed:** msl (seed 1), soft (seed 1)." in board
    assert "| soft |" in board, "the first seed is there"
    before, machine.fails = len(machine.typed), ""
    works(*CALL)
    again = [" ".join(arguments[:2]) for arguments in machine.typed[before:]]
    assert again == ["train out/recipes/toy/msl-seed1.yaml", "evaluate out/runs/toy/msl-seed1",
                     "train out/recipes/toy/soft-seed1.yaml", "evaluate out/runs/toy/soft-seed1"]  # fmt: skip
    works(*CALL)
    assert len(machine.typed) == before + 4
    assert "Not there" not in Path("board.md").read_text(encoding="utf-8")


def mistake_at_the_end(*arguments: object) -> str:
    """The line of a mistake that is told after progress was shown."""
    from toy import catalign

    ended = catalign(*arguments)
    assert ended.code == 2, ended.err
    return ended.err.splitlines()[-1]


def test_a_training_that_began_goes_on(machine: Machine) -> None:
    machine.fails = "--output out/runs/toy/msl-seed0"
    mistake_at_the_end(*CALL)
    run = Path("out/runs/toy/msl-seed0")
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("")
    (run / "provenance.json").write_text("{}")
    before, machine.fails = len(machine.typed), "--resume"
    mistake_at_the_end(*CALL)
    assert machine.typed[before] == ["train", "--resume", "--output", "out/runs/toy/msl-seed0"]


def test_rows_of_another_suite_are_not_mixed_in(machine: Machine) -> None:
    works(*CALL)
    before = len(machine.typed)
    write_suite(recipe={"epochs": 4})
    said = mistake(*CALL)
    assert "out/runs/toy/msl-seed0: was made otherwise: its recipe had epochs 3, now 4; remove it with" in said
    write_suite(budget={"trials": 2})
    assert "--trials 6" in mistake(*CALL) and len(machine.typed) == before
    Path("out/steps/runs/toy/ease-seed0/baseline.json").unlink()
    write_suite()
    assert "out/runs/toy/ease-seed0: was not made by a suite" in mistake(*CALL)


def test_the_environment_of_a_baseline_is_asked_for_first(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("CATALIGN_BASELINES", str(machine.dataset.folder / "none"))
    os.chdir(machine.dataset.folder.parent)  # monkeypatch had changed it
    Path("suite.yaml").write_text(yaml.safe_dump({
        "name": "x", "data": {"toy": {"source": "ds"}}, "methods": {"ease": {"baseline": "ease"}},
    }))  # fmt: skip
    assert "make it with catalign baseline setup" in mistake(*CALL)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_ending_it_ends_the_command(name: str, tmp_path: Path) -> None:
    if name == "SIGKILL" and sys.platform != "linux":
        pytest.skip("only Linux tells a process that its parent was killed")
    script = "from catalign.bench import command\nwith command.ended_by_terminate(): command.run_command([])"
    place = tmp_path / "catalign"
    place.mkdir()
    (place / "__init__.py").write_text("")
    (place / "__main__.py").write_text(
        "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(600)"
    )
    # The command finds this package in its working folder; with -P the outer process does not look there.
    outer = subprocess.Popen([sys.executable, "-P", "-c", script], cwd=tmp_path)
    pid = tmp_path / "pid"
    deadline = time.monotonic() + 120
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    inner = int(pid.read_text())
    outer.send_signal(signal.Signals[name])
    assert outer.wait(timeout=60) == (128 + signal.SIGTERM if name == "SIGTERM" else -signal.SIGKILL)
    while (lives := alive(inner)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not lives


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for whoever started it to ask how."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
@pytest.mark.timeout(1800)  # eleven processes that each import torch
def test_the_shipped_shop_suite_runs(tmp_path: Path) -> None:
    board = tmp_path / "board.md"
    works("bench", ROOT / "recipes" / "shop.yaml", "--output", tmp_path / "out", "--leaderboard", board)
    text = board.read_text(encoding="utf-8")
    for method in ("lml", "msl", "soft", "dmpo"):
        assert f"| {method} | 0 | epoch " in text
    assert "Not there" not in text

"""The README's commands do what it says: they are read from it and run, on a small shop."""

import re
from pathlib import Path

import pytest

import documented

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = documented.commands(README)


def test_the_make_targets_are_there() -> None:
    targets = {line.split()[1] for line in COMMANDS if line.startswith("make")}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets >= {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_the_commands_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    documented.write_tables(tmp_path)
    ran = [line for line in COMMANDS if line.startswith("catalign")]
    assert len(ran) >= 10
    assert all(line.startswith(("catalign ", "make ")) for line in COMMANDS), "every command is run, or is a target"
    for line in ran:
        documented.run(line)
    (python,) = documented.blocks(README, "python")
    assert "recommender" in documented.run_python(python)


def test_every_file_it_names_is_there() -> None:
    for name in re.findall(r"`((?:docs|src|benchmarks|tests|examples|recipes)/[\w./-]*)`", README):
        assert (ROOT / name).exists(), name


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 200

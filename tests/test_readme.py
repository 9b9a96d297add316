"""The README's commands do what it says: they are read from it and run, on a small shop."""

import re
import shlex
from pathlib import Path

import polars as pl
import pytest

import toy
from catalign.data.store import write_store

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines() if line.strip()]


def test_the_make_targets_are_there() -> None:
    targets = {line.split()[1] for line in COMMANDS if line.startswith("make")}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets >= {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_the_commands_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_store(tmp_path / "shop", users=60, items=60)
    log = pl.read_csv(tmp_path / "shop" / "interactions.csv", infer_schema=False).sort("timestamp")
    log.head(-40).write_csv("log.csv")
    log.tail(40).write_csv("week.csv")
    (tmp_path / "shop" / "items.csv").rename("items.csv")
    ran = [line for line in COMMANDS if line.startswith("catalign")]
    assert len(ran) >= 10
    for line in ran:
        arguments = shlex.split(line, comments=True)[1:]
        toy.works(*(_title(argument) for argument in arguments))
    python = next(text for language, text in BLOCKS if language == "python")
    found: dict[str, object] = {}
    exec(re.sub(r'"Title ([AB])"', lambda match: repr(_title(match.group(0).strip('"'))), python), found)
    assert "recommender" in found


def _title(argument: str) -> str:
    """A real title in place of the README's example."""
    place = {"Title A": 0, "Title B": 1}.get(argument)
    if place is None:
        return argument
    from catalign.data.dataset import load_dataset

    title: str = load_dataset(Path("ds")).items["title"][place]
    return title


def test_every_file_it_names_is_there() -> None:
    for name in re.findall(r"`((?:docs|src|benchmarks|tests)/[\w./-]*)`", README):
        assert (ROOT / name).exists(), name


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 200

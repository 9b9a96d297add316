"""Every command explains itself, and its help names every option that it has."""

from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from catalign.cli.main import app
from catalign.cli.model import init
from catalign.model.embedded import PRESETS
from toy import catalign


def commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Every command below a group, with the words that call it."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for name, command in group.commands.items():
        found.append(((*path, name), command))
        if isinstance(command, TyperGroup):
            found += commands(command, (*path, name))
    return found


ROOT = typer.main.get_command(app)
COMMANDS = commands(ROOT)


def test_the_program_names_its_commands() -> None:
    said = catalign("--help")
    assert said.code == 0
    names = {words[0] for words, _ in COMMANDS}
    assert names == {
        "quickstart",
        "data",
        "model",
        "train",
        "evaluate",
        "baseline",
        "compare",
        "report",
        "bench",
        "recommend",
        "rank",
        "explain",
        "serve",
        "doctor",
    }
    assert all(name in said.out for name in names)
    assert "catalign quickstart" in said.out


def test_a_command_that_is_none_is_refused() -> None:
    ended = catalign("trian")
    assert ended.code == 2 and "train" in ended.err


def test_the_version_is_told() -> None:
    assert catalign("--version").out.startswith("catalign 0.")


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS])
def test_help_explains_every_option(words: tuple[str, ...], command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    said = catalign(*words, "--help")
    assert said.code == 0 and said.err == ""
    for parameter in command.params:
        longest = max(parameter.opts, key=len)
        assert longest in said.out
        assert getattr(parameter, "help", None), f"{' '.join(words)} {longest} has no help"
    if not isinstance(command, TyperGroup) and words[0] not in ("data", "doctor"):
        call = " ".join(("catalign", *words))
        assert said.out.count(f"{call} ") > 1, "below the usage an example shows how it is called"


def test_presets_are_those_of_the_model_room() -> None:
    assert set(init.__annotations__["preset"].__args__[0].__args__) == set(PRESETS)

"""The tutorial's commands run in order on a small shop, and no page names an option that is not there."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import documented
from catalign.cli.main import app
from catalign.recommender import Recommender

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = documented.commands(TUTORIAL)
NOT_HERE = {"catalign serve": "it answers until it is stopped; tests/cli/test_serve_command.py starts it"}
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "examples").rglob("*.md")])
WRITTEN = [path for path in PAGES if not {"_build", "generated"} & set(path.parts)]


@pytest.mark.slow
def test_the_commands_of_the_tutorial_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    documented.write_tables(tmp_path)
    ran = [line for line in COMMANDS if not line.startswith(tuple(NOT_HERE))]
    assert len(ran) == len(COMMANDS) - len(NOT_HERE) >= 15
    for line in ran:
        assert line.startswith("catalign "), line
        documented.run(line)
    (python,) = documented.blocks(TUTORIAL, "python")
    assert isinstance(documented.run_python(python)["recommender"], Recommender)
    assert (tmp_path / "report.html").is_file()


def called(path: Path) -> list[str]:
    """The calls of `catalign` in blocks of a page: fenced as sh, or indented by four spaces."""
    text = path.read_text(encoding="utf-8")
    indented = re.findall(r"^ {4}(catalign .*)$", text.replace("\\\n", " "), flags=re.MULTILINE)
    return [*(line for line in documented.commands(text) if line.startswith("catalign ")), *indented]


def leaf(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, and the words behind them."""
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize(
    "path", [path for path in WRITTEN if called(path)], ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_option_that_a_page_names_is_there(path: Path) -> None:
    for line in called(path):
        for call in re.split(r"&&|\||;", line):
            words = shlex.split(call, comments=True)
            if words[:1] != ["catalign"]:
                continue
            command, rest = leaf(words[1:])
            known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            named = {word.partition("=")[0] for word in rest if word.startswith("--")}
            assert named <= known | {"--help", "--version"}, f"{line}: {named - known}"

"""Imports run down the table of rooms in docs/design.md, and nowhere else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "catalign"
EVERYBODYS = ("errors", "files", "plugins", "processes", "progress", "version")


def allowed_imports() -> dict[str, set[str]]:
    """Room -> rooms it may import, read from the table under "The rooms"."""
    lines = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| room |"))
    allowed: dict[str, set[str]] = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        room, _, may = (cell.strip() for cell in line.strip("|").split("|"))
        above = set(allowed)
        names = {name.strip() for name in may.split(",")}
        if names == {"nothing of ours"}:
            names = set()
        elif names <= {"all rooms above", "everything"}:
            names = above
        room = room.strip("`/")
        assert names <= above, f"the table lets {room} import {names - above}, which stand below it or nowhere"
        allowed[room] = names
    return allowed


ALLOWED = allowed_imports()


def imported_parts(path: Path) -> Iterator[str]:
    """The first name after `catalign.` of everything of ours that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            # `from catalign import data` imports a room by its name.
            names = [alias.name for alias in node.names]
            modules = [f"catalign.{name}" for name in names] if node.module == "catalign" else [node.module or ""]
        for module in modules:
            root, _, rest = module.partition(".")
            if root == "catalign" and rest:
                yield rest.split(".")[0]


def is_room(name: str) -> bool:
    return (PACKAGE / name).is_dir()


def test_the_table_names_the_rooms() -> None:
    assert set(ALLOWED) == {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    for path in (PACKAGE / room).rglob("*.py"):
        for other in imported_parts(path):
            if is_room(other) and other != room:
                assert other in ALLOWED[room], f"{path.relative_to(ROOT)} imports {other}"


@pytest.mark.parametrize("name", EVERYBODYS)
def test_what_belongs_to_everybody_imports_no_room(name: str) -> None:
    assert not [other for other in imported_parts(PACKAGE / f"{name}.py") if is_room(other)]


@pytest.mark.parametrize("room", sorted(set(ALLOWED) - {"cli"}))
def test_only_the_command_line_stands_above_the_face_of_the_package(room: str) -> None:
    for path in (PACKAGE / room).rglob("*.py"):
        for other in imported_parts(path):
            assert is_room(other) or other in EVERYBODYS, f"{path.relative_to(ROOT)} imports {other}"

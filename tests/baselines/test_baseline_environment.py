"""The environments of the baselines: where they lie, when they are refused, how they are made."""

import sys
from pathlib import Path

import pytest

from catalign.baselines.environment import READY, environments_folder, interpreter, set_up
from catalign.errors import UserError
from catalign.files import read_json, write_json
from stub_worker import environments_with

# Stands for `python -m venv PLACE`: it makes a folder whose own python is a copy of this script, which plays pip.
MAKER = """#!/bin/sh
if [ "$2" = venv ]; then mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" && cp "$0" "$3/bin/python"; exit; fi
echo "$@" >> "$(dirname "$0")/../pip.txt"
{pip}
"""


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the interpreter that makes environments, with a pip that does nothing."""
    python = tmp_path / "python"
    python.write_text(MAKER.format(pip=""))
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return python


def test_the_folder_is_the_given_one_or_that_of_the_variable_or_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CATALIGN_BASELINES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert environments_folder() == Path("/cache/catalign/baselines")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert environments_folder() == Path.home() / ".cache/catalign/baselines"
    monkeypatch.setenv("CATALIGN_BASELINES", "/mine")
    assert environments_folder() == Path("/mine")
    assert environments_folder(Path("/given")) == Path("/given")


def test_an_environment_that_is_not_there_or_of_other_versions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rectools: the environment of rectools is not there; make it with catalign"):
        interpreter("rectools", tmp_path)
    environments_with(tmp_path, "")
    assert interpreter("rectools", tmp_path) == tmp_path / "rectools" / "bin" / "python"
    write_json(tmp_path / "rectools" / READY, {"requirements": "other"})
    with pytest.raises(UserError, match="holds other versions of rectools than are asked for now; make it with"):
        interpreter("rectools", tmp_path)


def test_set_up_makes_what_is_missing_and_keeps_what_is_there(tmp_path: Path, maker: Path) -> None:
    environments_with(tmp_path, "", library="cornac")
    before = (tmp_path / "cornac" / "stub.py").stat().st_mtime_ns
    assert set_up(tmp_path) == ["rectools"]
    asked = (tmp_path / "rectools" / "pip.txt").read_text()
    assert "pip install" in asked and asked.strip().endswith("requirements/rectools.txt")
    assert (tmp_path / "cornac" / "stub.py").stat().st_mtime_ns == before
    assert set_up(tmp_path) == []
    write_json(tmp_path / "rectools" / READY, {"requirements": "of another version"})
    assert set_up(tmp_path) == ["rectools"]
    assert read_json(tmp_path / "rectools" / READY)["requirements"] != "of another version"


def test_a_failing_pip_is_told_and_leaves_nothing_that_looks_complete(tmp_path: Path, maker: Path) -> None:
    maker.write_text(MAKER.format(pip="echo 'ERROR: No matching distribution found' >&2; exit 1"))
    with pytest.raises(UserError, match=r"could not be made \(ERROR: No matching distribution found\); check pip's"):
        set_up(tmp_path, ["rectools"])
    with pytest.raises(UserError, match="is not there"):
        interpreter("rectools", tmp_path)
    maker.write_text(MAKER.format(pip=""))
    assert set_up(tmp_path, ["rectools"]) == ["rectools"], "what is left of the failed one does not stand in the way"


def test_a_folder_of_somebody_else_is_not_removed(tmp_path: Path, maker: Path) -> None:
    (tmp_path / "rectools").mkdir()
    (tmp_path / "rectools" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="rectools: is no environment; remove it or pass --environment"):
        set_up(tmp_path)
    assert (tmp_path / "rectools" / "letter.txt").exists()


@pytest.mark.parametrize("library", ["rectools", "cornac"])
def test_every_requirement_is_pinned(library: str) -> None:
    import catalign.baselines.environment as environment

    lines = (environment.REQUIREMENTS / f"{library}.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in line for line in pinned) and "torch==2.13.0" in pinned

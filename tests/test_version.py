"""`catalign --version` and provenance know the commit: of a checkout, of what was built from one, or none."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import catalign
import catalign.version
from catalign.version import source_state, version
from toy import works

SOURCE = Path(catalign.version.__file__)


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def elsewhere(tmp_path: Path) -> ModuleType:
    """The module as if the package were at another place."""
    package = tmp_path / "src" / "catalign"
    package.mkdir(parents=True)
    shutil.copy(SOURCE, package)
    spec = importlib.util.spec_from_file_location("elsewhere", package / SOURCE.name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_checkout_says_its_commit_and_whether_files_changed(elsewhere: ModuleType, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "tag", "v9", "-m", "a name is no commit")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert elsewhere.source_state() == commit[:12]
    assert elsewhere.version() == f"{catalign.__version__} ({commit[:7]})"
    with (tmp_path / "src/catalign" / SOURCE.name).open("a") as file:
        file.write("# edited\n")
    assert elsewhere.source_state() == f"{commit[:12]}+changes"
    assert elsewhere.version() == f"{catalign.__version__} ({commit[:7]}, local changes)"


def test_what_was_built_carries_its_commit(elsewhere: ModuleType, tmp_path: Path) -> None:
    assert elsewhere.source_state() is None
    assert elsewhere.version() == catalign.__version__
    (tmp_path / "src/catalign/commit.txt").write_text("0123456789ab+changes\n")
    assert elsewhere.source_state() == "0123456789ab+changes"
    assert elsewhere.version() == f"{catalign.__version__} (0123456, local changes)"


def test_a_checkout_without_a_commit_says_nothing(elsewhere: ModuleType, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert elsewhere.version() == catalign.__version__


def test_the_command_line_prints_it() -> None:
    assert works("--version").strip() == f"catalign {version()}"
    assert (source_state() or "")[:7] in works("--version")

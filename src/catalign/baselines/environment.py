"""The environments of the baselines: one per library, with pinned versions, outside the one that catalign runs in."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from catalign.baselines.methods import LIBRARIES
from catalign.errors import UserError
from catalign.files import read_json, write_json

READY = "ready.json"  # written last: its presence marks a complete environment
REQUIREMENTS = Path(__file__).parent / "requirements"
VARIABLE = "CATALIGN_BASELINES"
MEND = "make it with catalign baseline setup"


def environments_folder(given: Path | None = None) -> Path:
    """Where the environments lie: `given`, else $CATALIGN_BASELINES, else catalign/baselines in the user's cache."""
    if given is not None:
        return given
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "catalign" / "baselines"


def interpreter(library: str, folder: Path) -> Path:
    """Return the Python of a library's environment.

    Args:
        library: one of `LIBRARIES`.
        folder: from `environments_folder`.

    Raises:
        UserError: the environment is absent or incomplete, or other versions are asked for now.
    """
    environment = folder / library
    if not (environment / READY).is_file():
        raise UserError(f"the environment of {library} is not there", where=environment, mend=MEND)
    if read_json(environment / READY).get("requirements") != _digest(library):
        raise UserError(f"holds other versions of {library} than are asked for now", where=environment, mend=MEND)
    return _python(environment)


def set_up(folder: Path, libraries: Sequence[str] = LIBRARIES) -> list[str]:
    """Make the environments that are not there, or hold other versions, and return their names; takes minutes.

    pip takes its index from where it always does (pip.conf, PIP_INDEX_URL); torch is the build that index offers.

    Raises:
        UserError: something else is in the way, or pip fails.
    """
    made = []
    for library in libraries:
        environment = folder / library
        try:
            interpreter(library, folder)
            continue
        except UserError:
            pass
        if environment.exists():
            if not (environment / "pyvenv.cfg").is_file():
                raise UserError("is no environment", where=environment, mend="remove it or pass --environment")
            shutil.rmtree(environment)
        _run([sys.executable, "-m", "venv", str(environment)], environment)
        install = ["-m", "pip", "install", "--disable-pip-version-check", "--requirement", str(_requirements(library))]
        _run([str(_python(environment)), *install], environment)
        write_json(environment / READY, {"requirements": _digest(library)})
        made.append(library)
    return made


def _requirements(library: str) -> Path:
    return REQUIREMENTS / f"{library}.txt"


def _digest(library: str) -> str:
    return hashlib.sha256(_requirements(library).read_bytes()).hexdigest()


def _python(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _run(command: list[str], environment: Path) -> None:
    """Run a step of the set-up; what it printed is told by its last line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise UserError(f"could not be made ({error})", where=environment) from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        what = f"could not be made ({lines[-1].strip() if lines else f'exit code {done.returncode}'})"
        raise UserError(what, where=environment, mend="check pip's index and the disk, then run the set-up again")

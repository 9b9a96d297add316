"""Which catalign this is: its version and, where it is known, the commit."""

import subprocess
from pathlib import Path

from catalign import __version__

CHANGES = "+changes"  # behind a commit whose files were edited
STAMP = "commit.txt"  # beside this file, written by `hatch_build.py` into what is built


def version() -> str:
    """The version with the commit: `0.1.0 (0123456)`, `0.1.0 (0123456, local changes)`, or the version alone."""
    state = source_state()
    if state is None:
        return __version__
    changed = ", local changes" if state.endswith(CHANGES) else ""
    return f"{__version__} ({state.removesuffix(CHANGES)[:7]}{changed})"


def source_state() -> str | None:
    """The commit of the source that runs, 12 digits, `+changes` if it was edited; None where nobody knows.

    In a checkout git says so; an installed package has the commit that it was built from in a file.
    """
    package = Path(__file__).parent
    if (package.parents[1] / ".git").exists():
        try:
            described = subprocess.run(
                ["git", "describe", "--always", "--exclude=*", "--abbrev=12", f"--dirty={CHANGES}"],
                cwd=package, capture_output=True, text=True, check=True, timeout=10,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return None
        return described.stdout.strip()
    stamp = package / STAMP
    return stamp.read_text(encoding="ascii").strip() if stamp.is_file() else None

"""What was built is whole: `python tests/built_files.py` after `python -m build` (`make dist` does both).

The wheel holds every file of the package that git knows, and the commit; installed alone into an empty folder it tells
its version with that commit and its commands. The source distribution can be built and tested from.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDED = ("Makefile", "constraints.txt", "hatch_build.py", "pyproject.toml", "LICENSE", "tests/conftest.py")


def tracked(folder: str) -> set[str]:
    """Files below a folder that git knows and that are there."""
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.splitlines() if (ROOT / name).is_file()}


def only(pattern: str) -> Path:
    """The one file of this form in `dist/`."""
    found = list((ROOT / "dist").glob(pattern))
    if len(found) != 1:
        sys.exit(f"dist/ has {len(found)} files {pattern}; one was expected")
    return found[0]


def check(missing: set[str], where: Path) -> None:
    """End with an error where something is missing."""
    if missing:
        sys.exit(f"{where.name} lacks {', '.join(sorted(missing))}")


def main() -> None:
    """Look into both files and try the wheel."""
    wheel, source = only("*.whl"), only("*.tar.gz")
    package = {name.removeprefix("src/") for name in tracked("src/catalign")} | {"catalign/commit.txt"}
    check(package - set(zipfile.ZipFile(wheel).namelist()), wheel)
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    check((tracked("src") | set(NEEDED)) - inside, source)
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", folder, wheel], check=True)
        environment = {**os.environ, "PYTHONPATH": folder}
        for option in ("--version", "--help"):
            told = subprocess.run(
                [sys.executable, "-m", "catalign", option],
                cwd=folder, env=environment, check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip
            if option == "--version":
                sys.stdout.write(told)
                if "(" not in told:
                    sys.exit("the version lacks the commit")
    sys.stdout.write(f"{wheel.name}: {len(package)} files of the package; {source.name}: {len(inside)} names\n")


if __name__ == "__main__":
    main()

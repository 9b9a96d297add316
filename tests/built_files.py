"""What was built is whole: `python tests/built_files.py` after `python -m build` (`make dist` does both).

The wheel holds every file of the package that git knows, and the commit; installed alone into an empty folder it tells
its version with that commit and its commands. The source distribution can be built and tested from, and neither holds
a file that git does not know.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAMP = "src/catalign/commit.txt"
NEEDED = ("Makefile", "constraints.txt", "hatch_build.py", "pyproject.toml", "LICENSE", "tests/conftest.py", STAMP)


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


def check(held: set[str], needed: set[str], known: set[str], where: Path) -> None:
    """End with an error where something is missing, or there that nobody knows."""
    if needed - held:
        sys.exit(f"{where.name} lacks {', '.join(sorted(needed - held))}")
    if held - known:
        sys.exit(f"{where.name} has {', '.join(sorted(held - known)[:10])}, which git does not know")


def main() -> None:
    """Look into both files and try the wheel."""
    wheel, source = only("*.whl"), only("*.tar.gz")
    package = {name.removeprefix("src/") for name in (*tracked("src/catalign"), STAMP)}
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    check(inside, package, package, wheel)
    with tarfile.open(source) as archive:
        unpacked = {one.name.partition("/")[2] for one in archive.getmembers() if one.isfile()}
    check(unpacked, tracked("src") | set(NEEDED), tracked(".") | {STAMP, "PKG-INFO"}, source)
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
    sys.stdout.write(f"{wheel.name}: {len(package)} files of the package; {source.name}: {len(unpacked)} files\n")


if __name__ == "__main__":
    main()

"""Writes the commit into what is built, where `catalign.version` finds it."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):
    """Runs before a wheel or a source distribution is put together; one made of the latter brings its file."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file, unless the checkout itself is installed or nobody knows the commit."""
        if version == "editable" or not (Path(self.root) / ".git").exists():
            return
        described = subprocess.run(
            ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+changes"],
            cwd=self.root, capture_output=True, text=True, check=True,
        )  # fmt: skip
        self._folder = tempfile.TemporaryDirectory()
        stamp = Path(self._folder.name) / "commit.txt"
        stamp.write_text(described.stdout, encoding="ascii")
        place = "src/catalign/commit.txt" if self.target_name == "sdist" else "catalign/commit.txt"
        build_data["force_include"][str(stamp)] = place

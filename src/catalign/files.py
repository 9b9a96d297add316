"""Files and folders that appear whole or not at all."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from catalign.errors import UserError


@contextlib.contextmanager
def whole_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that becomes `path` when the block succeeds and vanishes when it fails.

    Args:
        path: the folder to create.
        overwrite: replace a folder that is already there; the old one stays until the new one is complete.

    Raises:
        UserError: `path` exists and `overwrite` is off, or the disk is full, or the place cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise UserError("already exists", where=path, mend="choose another folder or pass --overwrite")
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
        partial.chmod(0o755)
        yield partial
        _replace_folder(partial, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        if partial is not None and partial.exists():
            shutil.rmtree(partial, ignore_errors=True)


def _replace_folder(new: Path, path: Path) -> None:
    """Rename `new` to `path`; a folder already there is moved aside first and removed last."""
    if not path.exists():
        new.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=path.parent))
    path.rename(old / path.name)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that replaces `path` when the block succeeds, safe from a power loss."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        to_disk(partial)
        partial.replace(path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        with contextlib.suppress(NotADirectoryError):  # where a file stood in the place of its folder
            partial.unlink(missing_ok=True)


def disk_error(error: OSError, path: Path) -> Exception:
    """Turn what the operating system says about writing `path` into a line for the user."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError("the disk is full", where=path, mend="free some space and run again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError("cannot be written", where=path, mend="check the folder's permissions")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return UserError("a file is in the way", where=error.filename or path, mend="choose another folder")
    return error


def to_disk(path: Path) -> None:
    """Have the operating system write a file or folder to the disk, so that it outlives a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is absent or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError("no such file", where=path) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"is not JSON ({error})", where=path) from error


def read_yaml(path: Path, kind: str) -> Any:
    """Read a YAML file as plain values (`load_yaml`).

    Args:
        path: the file.
        kind: what it should be, for the messages: a recipe, a suite.

    Raises:
        UserError: the file is absent, cannot be read, or is not YAML.
    """
    try:
        return load_yaml(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"no such {kind}", where=path) from error
    except OSError as error:
        raise UserError("cannot be read", where=path, mend=f"give a {kind} (YAML)") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"is not YAML ({error})", where=path) from error


def load_yaml(text: str) -> Any:
    """YAML as people mean it: 1e-4 is a number, 2024-01-01 is text, and a name that stands twice is refused.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: it is not YAML, holds a value that its tag denies, or is too deep.
    """
    return yaml.load(text, Loader=_PlainValues)


class _PlainValues(yaml.SafeLoader):
    """Refuses a mapping that names something twice: the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"{twice} stands twice in line {node.start_mark.line + 1} and below")
        return super().construct_mapping(node, deep)


_PlainValues.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainValues.add_implicit_resolver(  # YAML 1.1 asks for a point and a sign: 1.0e-4
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Public data sets: downloaded from their publishers, checked, unpacked."""

import contextlib
import errno
import lzma
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from catalign.data.download import Downloaded, Told, download
from catalign.data.public_sets import PublicFile, PublicSet
from catalign.errors import UserError
from catalign.files import disk_error, read_json, write_json

RECORD = ".fetched.json"
"""In the folder: what was fetched, with the SHA-256 of every download. Hidden, so that no layout takes it for data."""

UNPACKED_BYTES = 8 << 30
"""More than any set unpacks to (25M: 1.2 GB)."""

UNPACKED_FILES = 10_000
_CHUNK = 1 << 20
_DAMAGES = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Fetched:
    """A data set on disk.

    Attributes:
        folder: where it lies.
        files: their names and hashes, as in the record.
        notes: what a user should know: hashes that nobody but us recorded, files that have changed since.
        already: it was there before.
    """

    folder: Path
    files: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    already: bool = False


def _silently(name: str) -> Told:
    return lambda done, total: None


def fetch(wanted: PublicSet, folder: Path, *, again: bool = False, told: Callable[[str], Told] = _silently) -> Fetched:
    """Download the files of a set into a folder and unpack them; a call that is cut short goes on with the next one.

    Archives are unpacked without their common top folder and then removed. Size and MD5 are checked where the
    publisher states them; the SHA-256 of every download is recorded in any case.

    Args:
        wanted: the set.
        folder: is made if it is not there.
        again: download even what is there; a file that is another now is told.
        told: given the name of a file, returns what is told of its progress.

    Raises:
        UserError: the folder holds something else, a server or the disk fails, a file is not what the publisher says,
            or an archive is not safe.
    """
    there = _recorded(folder, wanted)
    done = {} if again else dict(there)
    notes = []
    for file in wanted.files:
        if file.url in done:
            continue
        path = folder / file.name
        got = download(file.url, path, told=told(file.name))
        _check(file, got, path)
        if path.suffix == ".zip":
            unpack(path, folder)
            path.unlink()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        done[file.url] = {"url": file.url, "bytes": got.bytes, "sha256": got.sha256, "fetched": now}
        write_json(folder / RECORD, {"set": wanted.name, "page": wanted.page, "files": list(done.values())})
        if file.url in there and there[file.url]["sha256"] != got.sha256:
            notes.append(f"{file.name} is another file than the one of {there[file.url]['fetched']}")
        if file.md5 is None:
            notes.append(f"{file.name}: the publisher states no hash; recorded SHA-256 {got.sha256}")
    return Fetched(folder, list(done.values()), notes, already=not again and done == there)


def _recorded(folder: Path, wanted: PublicSet) -> dict[str, dict[str, Any]]:
    """Address -> what was fetched from it into this folder before.

    Raises:
        UserError: the folder holds something else.
    """
    if (folder / RECORD).is_file():
        record: dict[str, Any] = read_json(folder / RECORD)
        if record.get("set") != wanted.name:
            raise UserError(f"holds {record.get('set')}", where=folder, mend="choose another folder with --output")
        return {file["url"]: file for file in record["files"]}
    ours = {name for file in wanted.files for name in (file.name, f"{file.name}.part", f"{file.name}.part.json")}
    others = [path.name for path in folder.iterdir() if path.name not in ours] if folder.is_dir() else []
    if others:
        raise UserError(f"is not empty ({min(others)})", where=folder, mend="choose another folder with --output")
    return {}


def _check(file: PublicFile, got: Downloaded, path: Path) -> None:
    """Compare with what the publisher states; a file that is another does not stay."""
    if file.bytes is not None and got.bytes != file.bytes:
        what = f"has {got.bytes:,} bytes, where the publisher states {file.bytes:,}"
    elif file.md5 is not None and got.md5 != file.md5:
        what = f"has the MD5 {got.md5}, where the publisher states {file.md5}"
    else:
        return
    path.unlink()
    raise UserError(what, where=file.url, mend="run again; if it stays so, the publisher has replaced it")


def unpack(archive: Path, folder: Path, *, limit: int = UNPACKED_BYTES) -> None:
    """Unpack a zip file into a folder that has nothing of the same names, without its one top folder, if it has one.

    Args:
        archive: the file.
        folder: where to.
        limit: most bytes, counted as they come out.

    Raises:
        UserError: it is no whole zip file, or it holds what no data set needs: paths that lead out of the folder,
            links, encrypted files, more than 10,000 files, more bytes than `limit`.
    """
    partial = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder))
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.filename.endswith("/")]
            if len(members) > UNPACKED_FILES:
                raise UserError(f"holds {len(members):,} files", where=archive, mend="no public set has so many")
            names = _without_top_folder([_safe(member, archive) for member in members])
            if len(set(names)) != len(names):
                raise UserError("holds two files of one name", where=archive)
            left = limit
            for member, name in zip(members, names, strict=True):
                left -= _extract(opened, member, partial / name, left, archive)
        for entry in partial.iterdir():
            _replace(entry, folder / entry.name)
    except _DAMAGES as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENAMETOOLONG):  # a damaged offset or name
            raise _damaged(archive, error) from error
        raise disk_error(error, folder) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _damaged(archive: Path, error: Exception) -> UserError:
    """An archive that cannot be read does not stay, so that the next fetch downloads it again."""
    archive.unlink(missing_ok=True)
    return UserError(f"is not a whole zip file ({error})", where=archive, mend="run again to download it")


def _safe(member: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """The path of a member, which stays below the folder."""
    path = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in path.parts[0]:
        raise UserError(f"holds a path that leads out of its folder ({member.filename!r})", where=archive)
    if kind not in (0, stat.S_IFREG):
        raise UserError(f"holds something that is no file ({member.filename!r})", where=archive)
    if member.flag_bits & 0x1:
        raise UserError(f"holds an encrypted file ({member.filename!r})", where=archive)
    return path


def _without_top_folder(paths: list[PurePosixPath]) -> list[PurePosixPath]:
    tops = {path.parts[0] for path in paths}
    if len(tops) == 1 and all(len(path.parts) > 1 for path in paths):
        return [PurePosixPath(*path.parts[1:]) for path in paths]
    return paths


def _extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, limit: int, archive: Path) -> int:
    """Write a member and return its bytes; the sizes that the archive states are not relied on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened.open(member) as source, path.open("wb") as target:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > limit:
                raise UserError("unpacks to more bytes than any public set", where=archive, mend="do not trust it")
            target.write(chunk)
    return written


def _replace(new: Path, path: Path) -> None:
    """Move a file or a folder to its place, over an older one."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    new.rename(path)

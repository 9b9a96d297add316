"""One file over HTTP: goes on where it stopped, never glues two versions together, says what it got."""

import contextlib
import hashlib
import http.client
import json
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from catalign.errors import UserError
from catalign.files import disk_error

Told = Callable[[int, int | None], None]
"""Is told the bytes that are there, and of how many, if that is known."""

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30
_TRIES = 6  # in a row without a new byte
_LONGEST_PAUSE_SECONDS = 60
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that a later try may not get
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True)
class Downloaded:
    """What was downloaded.

    Attributes:
        bytes: its length.
        md5, sha256: its hashes, in hexadecimal.
    """

    bytes: int
    md5: str
    sha256: str


@dataclass(frozen=True)
class _Version:
    """Which version of a file a part belongs to: what the server said when it began."""

    url: str
    validator: str | None
    total: int | None


class _BrokenOffError(Exception):
    """The connection broke, or the server asks to come back; `pause` seconds later, if it said when."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


def download(url: str, path: Path, *, told: Told = lambda done, total: None) -> Downloaded:
    """Download a file to `path`; until it is whole it is `path.part`, and the next call goes on with it.

    A part is gone on with only if the server confirms, by ETag or date, that the file is still the same (If-Range), and
    begins again otherwise. Broken connections and passing failures (429, 503, ...) are tried again, after 1, 2, 4, ...
    seconds or when the server says, until six tries in a row brought nothing.

    Args:
        url: `http` or `https`.
        path: the file to write.
        told: see `Told`.

    Raises:
        UserError: the server has no such file or cannot be reached, or the disk is full.
    """
    part = path.with_name(path.name + ".part")
    try:
        _fill(url, part, told)
        found = _hashes(part)
        part.replace(path)
        _note_of(part).unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error, path) from error
    return found


def _fill(url: str, part: Path, told: Told) -> None:
    """Make tries until the part is whole."""
    longest, failures = part.stat().st_size if part.exists() else 0, 0
    while True:
        try:
            _try(url, part, told)
            return
        except _BrokenOffError as error:
            reached = part.stat().st_size if part.exists() else 0
            failures = 0 if reached > longest else failures + 1
            longest = max(longest, reached)
            if failures >= _TRIES:
                raise UserError(
                    f"cannot be downloaded ({error})", where=url, mend="run again later: what came is kept"
                ) from error
            pause = error.pause if error.pause is not None else 2.0 ** max(failures - 1, 0)
            time.sleep(min(pause, _LONGEST_PAUSE_SECONDS))


def _try(url: str, part: Path, told: Told) -> None:
    """Ask for what is missing of the part and write it.

    Raises:
        _BrokenOffError: it is not whole yet.
        UserError: another try is of no use.
    """
    version, have = _read_note(url, part)
    if have and have == version.total:
        return  # cut short after the last byte
    headers = {"User-Agent": "catalign", "Accept-Encoding": "identity"}
    if have and version.validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": version.validator}
    with _asking(url, headers) as response:
        now = _Version(url, _validator(response), _total(response))
        if response.status != 200 and not _goes_on(response, now, version, have):
            _note_of(part).unlink(missing_ok=True)
            raise _BrokenOffError("the server answers with another part than asked for")
        if response.status == 200:
            have = 0
        part.parent.mkdir(parents=True, exist_ok=True)
        if now.total is not None and shutil.disk_usage(part.parent).free < now.total - have:
            gigabytes = (now.total - have) / 1e9
            raise UserError(f"the disk is too full for {gigabytes:.1f} GB", where=part.parent, mend="free some space")
        with part.open("ab" if have else "wb") as file:
            _write_note(part, version if have else now)
            for chunk in _chunks(response):
                file.write(chunk)
                have += len(chunk)
                told(have, now.total)
        if now.total is not None and have != now.total:
            raise _BrokenOffError(f"broke off after {have:,} of {now.total:,} bytes")


def _goes_on(response: http.client.HTTPResponse, now: _Version, version: _Version, have: int) -> bool:
    """Whether an answer begins after the last byte of our part and is of the same version, whatever If-Range said."""
    given = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    same = now.total == version.total and now.validator in (version.validator, None)
    return response.status == 206 and given is not None and int(given[1]) == have and same


@contextlib.contextmanager
def _asking(url: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
    """Send a request; what is wrong with the network or the server is told apart by whether another try may help."""
    request = urllib.request.Request(url, headers=headers)
    try:
        response = cast(http.client.HTTPResponse, urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS))
    except urllib.error.HTTPError as error:
        if error.code == 416:
            response = cast(http.client.HTTPResponse, error)
        elif error.code in _PASSING:
            raise _BrokenOffError(f"the server answers {error.code} {error.reason}", _pause(error)) from error
        else:
            mend = "the publisher may have moved it: look at the set's page (catalign data fetch lists them)"
            raise UserError(f"the server answers {error.code} {error.reason}", where=url, mend=mend) from error
    except (OSError, http.client.HTTPException) as error:  # a URLError is an OSError
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        unknown = isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME
        if unknown or isinstance(reason, ssl.SSLCertVerificationError):
            mend = "check the network, and HTTPS_PROXY if there is a proxy"
            raise UserError(f"the server cannot be reached ({reason})", where=url, mend=mend) from error
        raise _BrokenOffError(str(reason) or type(reason).__name__) from error
    with contextlib.closing(response):
        yield response


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOffError(str(error) or type(error).__name__) from error
        if not chunk:
            return
        yield chunk


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What If-Range may name: a strong ETag, else the date; without either nobody can say that the file is the same."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _total(response: http.client.HTTPResponse) -> int | None:
    """The length of the whole file."""
    given = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    text = given[2] if given else response.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _pause(error: urllib.error.HTTPError) -> float | None:
    """The seconds that the server asks to wait, if it does so in seconds."""
    after = error.headers.get("Retry-After", "")
    return float(after) if after.isdigit() else None


def _note_of(part: Path) -> Path:
    """Beside a part: which version it belongs to."""
    return part.with_name(part.name + ".json")


def _write_note(part: Path, version: _Version) -> None:
    _note_of(part).write_text(json.dumps(asdict(version)), encoding="utf-8")


def _read_note(url: str, part: Path) -> tuple[_Version, int]:
    """The version of a part and its length; 0 where there is none of this address."""
    try:
        note: dict[str, Any] = json.loads(_note_of(part).read_text(encoding="utf-8"))
        version = _Version(**note)
        return (version, part.stat().st_size) if version.url == url else (_Version(url, None, None), 0)
    except (FileNotFoundError, ValueError, TypeError):
        return _Version(url, None, None), 0


def _hashes(path: Path) -> Downloaded:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
    return Downloaded(path.stat().st_size, md5.hexdigest(), sha256.hexdigest())

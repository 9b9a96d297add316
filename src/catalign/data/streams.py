"""Bytes of a file as the readers of tables want them: unpacked, decoded, in blocks of whole lines."""

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, cast

from catalign.errors import UserError

BLOCK_BYTES = 1 << 24  # read at a time
LONGEST_LINE = 1 << 26  # characters; a file without line ends is no table
_GZIP = b"\x1f\x8b"


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what can go wrong with any file into a line for the user."""
    if path.is_dir():
        raise UserError("is a folder", where=path, mend=f"name a file in it, or several as '{path}/*.csv'")
    if not path.is_file():
        raise UserError("no such file", where=path)
    if not str(path).isprintable() and _is_undecodable(path):
        raise UserError("the name is not UTF-8", where=repr(str(path)), mend="rename the file or its folder")
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"is not a whole gzip file ({error})", where=path, mend="copy or download it again") from error
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", where=path) from error


def _is_undecodable(path: Path) -> bool:
    """Whether the name holds bytes that are no text: no table and no JSON can carry it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return True
    return False


def kind_of(path: Path) -> str:
    """The ending of a file's name without `.gz`, in small letters: `.csv`."""
    suffixes = path.suffixes[:-1] if path.suffix.lower() == ".gz" else path.suffixes
    return suffixes[-1].lower() if suffixes else ""


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading; gzip is known by its name or its first bytes."""
    if path.suffix.lower() != ".gz":
        stream = path.open("rb")
        packed = stream.read(2) == _GZIP
        stream.seek(0)
        if not packed:
            return stream
        stream.close()
    return cast(IO[bytes], gzip.open(path, "rb"))


def known_encoding(encoding: str) -> str:
    """Return the usual name of an encoding.

    Raises:
        UserError: there is none of this name.
    """
    try:
        "".encode(encoding)  # base64 and others have names too, but are no encodings of text
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise UserError(f"there is no encoding {encoding!r}", mend="use utf-8, latin-1, cp1252 or another") from error


def first_lines(path: Path, encoding: str, count: int) -> list[str]:
    """Return at most `count` lines as text, line ends as they are, without a byte order mark.

    Raises:
        UserError: they are not in `encoding`, or one of them never ends.
    """
    try:
        with open_bytes(path) as stream, io.TextIOWrapper(stream, known_encoding(encoding), newline="") as text:
            lines = list(islice(iter(lambda: text.readline(LONGEST_LINE), ""), count))
    except UnicodeError as error:
        raise encoding_error(path, encoding) from error
    if any(len(line) >= LONGEST_LINE for line in lines):
        raise too_long(path, lines)
    return [lines[0].removeprefix("\ufeff"), *lines[1:]] if lines else []


def line_blocks(path: Path, encoding: str) -> Iterator[list[str]]:
    """Yield all lines in lists of some megabytes, without their line ends and without a byte order mark.

    Raises:
        UserError: a line is not in `encoding`, or never ends.
    """
    decode = codecs.getincrementaldecoder(known_encoding(encoding))().decode
    rest: str | None = None
    with open_bytes(path) as stream:
        while True:
            data = stream.read(BLOCK_BYTES)
            try:
                text = decode(data, final=not data)
            except UnicodeError as error:
                raise encoding_error(path, encoding) from error
            lines = (text.removeprefix("\ufeff") if rest is None else rest + text).split("\n")
            if not data:
                yield lines if lines[-1] else lines[:-1]
                return
            rest = lines.pop()
            if len(rest) > LONGEST_LINE:
                raise too_long(path, [rest])
            yield lines


def too_long(path: Path, lines: list[str]) -> UserError:
    """The refusal of a line that never ends."""
    return UserError(
        f"a line has more than {LONGEST_LINE:,} characters ({lines[-1][:40]!r}...)",
        where=path,
        mend="write one row per line",
    )


def encoding_error(path: Path, encoding: str) -> UserError:
    """Find the first line that is not in `encoding`."""
    number, line = 0, b""
    with open_bytes(path) as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), b""), start=1):  # noqa: B007
            try:
                line.decode(encoding)
            except UnicodeError:
                break
    return UserError(
        f"the text is not {encoding} ({line.strip()[:60]!r})",
        where=f"{path}, line {number}",
        mend="pass its encoding, as --encoding latin-1 (or cp1252, utf-16)",
    )


class Ended(io.RawIOBase):
    """A byte stream with `ending` after its last byte, and `old` written as `new` throughout."""

    def __init__(
        self, stream: IO[bytes] | codecs.StreamRecoder, ending: bytes, old: bytes = b"", new: bytes = b""
    ) -> None:
        self._stream = stream
        self._ending: bytes | None = ending
        self._old, self._new = old, new
        self._held = b""  # what may be the beginning of `old`

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return about `size` bytes; none at the end."""
        while True:
            data = self._stream.read(size)
            if not data:
                break
            if not self._old:
                return data
            data = (self._held + data).replace(self._old, self._new)
            lengths = range(len(self._old) - 1, 0, -1)
            held = next((length for length in lengths if data.endswith(self._old[:length])), 0)
            data, self._held = data[: len(data) - held], data[len(data) - held :]
            if data:
                return data
        data, self._held, self._ending = self._held + (self._ending or b""), b"", None
        return data

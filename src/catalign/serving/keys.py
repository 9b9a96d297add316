"""API keys: the file holds their SHA-256 alone, and a comparison takes as long whichever key is given."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from catalign.errors import UserError

_LINE = re.compile(r"(\S+)\s+([0-9a-fA-F]{64})(?:\s+(items))?")


@dataclass(frozen=True)
class Key:
    """A caller that may use the service.

    Attributes:
        name: stands in the log.
        digest: SHA-256 of the key.
        changes_items: whether it may change the catalogue.
    """

    name: str
    digest: bytes
    changes_items: bool


def read_keys(path: Path) -> list[Key]:
    """Read a key file: lines of a name, the SHA-256 of the key, and `items` if it may change the catalogue.

    Raises:
        UserError: it cannot be read, a line is of another form, or there is no key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("cannot be read", where=path, mend="give a file of lines: NAME SHA256 [items]") from error
    keys = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        matched = _LINE.fullmatch(line.strip())
        if matched is None:
            raise UserError("is not NAME SHA256 [items]", where=f"{path}, line {number}",
                            mend="make one with catalign serve --new-key NAME")  # fmt: skip
        keys.append(Key(matched[1], bytes.fromhex(matched[2]), matched[3] is not None))
    if not keys:
        raise UserError("holds no key", where=path, mend="make one with catalign serve --new-key NAME")
    return keys


def find_key(keys: list[Key], given: str) -> Key | None:
    """The key that was given; all are compared, each in constant time."""
    digest = hashlib.sha256(given.encode("utf-8", "surrogatepass")).digest()
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def new_key(name: str) -> tuple[str, str]:
    """A random key, and the line of the key file that lets it in."""
    key = secrets.token_urlsafe(32)
    return key, f"{name} {hashlib.sha256(key.encode()).hexdigest()}"

"""User ids that only the holder of a salt can tell.

A hashed id is HMAC-SHA-256 of the id under the salt, cut to 96 bits (24 hexadecimal characters): of n users two share
one with a probability of about n^2 / 2^97, which is 6e-12 for a thousand million. The salt is never stored; a dataset
keeps its fingerprint, by which another salt is recognised. Whoever has the salt can hash a known id and look for it, so
keep the salt as long and as secret as you would the ids.
"""

import hmac
import os
from pathlib import Path

import polars as pl

from catalign.errors import UserError

VARIABLE = "CATALIGN_SALT"
FINGERPRINT = "hashed_users"  # in the options of dataset.json
LEAST_BYTES = 16  # a shorter salt can be guessed
_CHARACTERS = 24
_USER, _SALT = b"user\0", b"salt\0"  # so that no user's hash is the fingerprint


def read_salt(file: Path | None) -> bytes:
    """Read a salt from a file (white space at its ends aside) or, without one, from the variable `CATALIGN_SALT`.

    Raises:
        UserError: there is none, or it is shorter than 16 bytes.
    """
    where = file or f"the environment variable {VARIABLE}"
    mend = "make one with: python -c 'import secrets; print(secrets.token_hex(32))'"
    try:
        salt = (os.fsencode(os.environ.get(VARIABLE, "")) if file is None else file.read_bytes()).strip()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", where=where) from error
    if not salt:
        mend = f"{mend}, and pass --salt-file or set {VARIABLE}"
        raise UserError("there is no salt to hash user ids with", where=where, mend=mend)
    if len(salt) < LEAST_BYTES:
        what = f"a salt of {len(salt)} bytes can be guessed; {LEAST_BYTES} are the least"
        raise UserError(what, where=where, mend=mend)
    return salt


def hash_users(column: pl.Series, salt: bytes) -> pl.Series:
    """Hash user ids; every different id is hashed once.

    Args:
        column: text, null where there is none.
        salt: as `read_salt` returns it.

    Returns:
        As `column`: 24 hexadecimal characters each, null where it was null.
    """
    different = column.drop_nulls().unique()
    hashed = [hmac.digest(salt, _USER + user.encode(), "sha256").hex()[:_CHARACTERS] for user in different]
    return column.replace_strict(different, pl.Series(hashed, dtype=pl.String), default=None, return_dtype=pl.String)


def fingerprint(salt: bytes) -> str:
    """What tells one salt from another and gives neither away."""
    return hmac.digest(salt, _SALT, "sha256").hex()[:_CHARACTERS]


def check_salt(recorded: str | None, salt: bytes | None, where: object) -> None:
    """Refuse a salt that a dataset was not made with.

    Args:
        recorded: the fingerprint in the options of the dataset; None: its user ids are not hashed.
        salt: the salt at hand.
        where: the dataset.

    Raises:
        UserError: another salt, a salt for plain ids, or none for hashed ones.
    """
    if recorded is None and salt is not None:
        raise UserError("its user ids are not hashed", where=where, mend="leave the salt out")
    if recorded is not None and salt is None:
        mend = f"pass the salt they were hashed with by --salt-file or {VARIABLE}"
        raise UserError("its user ids are hashed", where=where, mend=mend)
    if recorded is not None and salt is not None and not hmac.compare_digest(fingerprint(salt), recorded):
        raise UserError("its user ids were hashed with another salt", where=where, mend="pass that one")

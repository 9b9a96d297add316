"""Addresses of databases: read, encoded for the driver, shown without their passwords."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from catalign.errors import UserError

_FORMS = "write postgresql://user@host:port/database or sqlite:///file.db"
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]*)(:\d+)?")
_SHOWN = {
    "host", "hostaddr", "port", "dbname", "user", "sslmode", "sslrootcert", "connect_timeout", "application_name",
    "options", "target_session_attrs", "client_encoding",
}  # fmt: skip
"""Parameters that hold no secret; the value of any other is masked, be it a slip of the pen."""
_WAIT_SECONDS = "10"  # for a server to take the connection; libpq alone waits minutes


@dataclass(frozen=True)
class Connection:
    """How a database is reached.

    Attributes:
        kind: of database.
        shown: the address with `***` for a password.
        address: what the driver takes; it may hold the password.
    """

    kind: Literal["postgresql", "sqlite"]
    shown: str
    address: str = field(repr=False)


def read_connection(text: str) -> Connection:
    """Read the address of a database, `postgresql://user@host:port/database?...` or `sqlite:///file.db`.

    The password of PostgreSQL may stand in it, percent-encoded, or where libpq looks for it: the environment variable
    PGPASSWORD or `~/.pgpass`. A file of SQLite is opened for reading; four slashes begin an absolute path.

    Raises:
        UserError: it cannot be read. What is odd is not shown, since it may be a part of a password.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "sqlite" and rest.startswith("/") and rest.strip("/"):
        return Connection("sqlite", text, f"file:{quote(rest[1:])}?mode=ro")
    if separator and scheme in ("postgresql", "postgres"):
        return _postgresql(text)
    raise UserError("is not the address of a database", where="--connection", mend=_FORMS)


def sqlite_file(connection: Connection) -> Path:
    """Return the file of an SQLite database.

    Raises:
        UserError: there is none; the driver would only say that it is out of memory.
    """
    path = Path(unquote(connection.address.removeprefix("file:").removesuffix("?mode=ro")))
    if not path.is_file():
        slashes = "" if path.is_absolute() else "; an absolute path has four slashes (sqlite:////data/shop.db)"
        raise UserError("no such file", where=path, mend=f"check the path{slashes}")
    return path


def _postgresql(text: str) -> Connection:
    """Take the address apart and encode every part of it, so that the driver finds nothing to quote in a message."""
    wrong = UserError(
        "is not the address of a database",
        where="--connection",
        mend=f"{_FORMS}; special characters of a password are percent-encoded (@ is %40), or leave it to PGPASSWORD",
    )
    try:
        parts = urlsplit(text)
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise wrong from error
    user, at, host = parts.netloc.rpartition("@")
    odd = parts.fragment or "@" in parts.path + parts.query or re.search(r"\s", text)
    if odd or not all(_HOST.fullmatch(one) for one in host.split(",")):
        raise wrong
    name, colon, password = (quote(unquote(part), safe="") for part in user.partition(":"))
    masked = {key: value if key in _SHOWN else "***" for key, value in parameters.items()}
    settings = {"connect_timeout": _WAIT_SECONDS} | parameters | {"client_encoding": "UTF8"}
    return Connection(
        "postgresql",
        f"postgresql://{name}{':***' if colon else ''}{at}{host}{parts.path}{_query(masked)}",
        f"postgresql://{name}{':' if colon else ''}{password}{at}{host}{parts.path}{_query(settings)}",
    )


def _query(parameters: dict[str, str]) -> str:
    return "?" + urlencode(parameters, safe="*/", quote_via=quote) if parameters else ""

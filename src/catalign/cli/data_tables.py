"""Where a table lies that a user names: in files, or in a database."""

from pathlib import Path

from catalign.data.options import Query
from catalign.errors import UserError


def table_place(name: str, path: Path | None, query: str | None, connection: str | None) -> Path | Query | None:
    """The files or the query of the table `name`, whichever was given.

    Raises:
        UserError: both, or a query without a connection.
    """
    if query is None:
        return path
    if path is not None:
        raise UserError(f"--{name} and --{name}-query are two places of one table", mend="pass one of them")
    if connection is None:
        raise UserError(f"--{name}-query goes with --connection")
    return Query(connection=connection, query=query, name=f"{name} query")

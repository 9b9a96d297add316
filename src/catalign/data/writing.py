"""Tables written by polars, which hides the system's error numbers: a full disk is told from its words."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import polars as pl


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as Parquet.

    Raises:
        OSError: with its number where the disk is full, for `files.whole_folder` to tell.
    """
    with _numbered_errors(path):
        frame.write_parquet(path)


def write_csv(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as CSV; raises like `write_parquet`."""
    with _numbered_errors(path):
        frame.write_csv(path)


@contextlib.contextmanager
def _numbered_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        for number in (errno.ENOSPC, errno.EDQUOT):
            if f"os error {number})" in str(error):
                raise OSError(number, "the disk is full", str(path)) from error
        raise

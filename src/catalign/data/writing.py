"""Tables written by polars or slice by slice by pyarrow; a full disk is told by its number.

Polars hides the system's error numbers, so they are read from its words.
"""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl
import pyarrow.parquet as pq


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


class ParquetSlices:
    """A Parquet file that frames are added to, each as row groups of its own, so that the whole is never in memory.

    It has the columns and types of the first frame; write one at least, which may be empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def write(self, frame: pl.DataFrame) -> None:
        """Add the rows of a frame."""
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
        if table.num_rows:
            self._writer.write_table(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()


@contextlib.contextmanager
def _numbered_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pl.exceptions.ComputeError) as error:
        for number in (errno.ENOSPC, errno.EDQUOT):
            if f"os error {number})" in str(error):
                raise OSError(number, "the disk is full", str(path)) from error
        raise

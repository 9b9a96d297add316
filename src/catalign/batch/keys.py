"""Which of any number of keys stand twice, found on disk: memory does not grow with their number."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

BUCKETS = 256


class KeyTable:
    """Keys in the order they come, as two hashes of 64 bits each (another key has both by chance in 2^-128).

    Args:
        folder: an empty folder for the buckets.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._rows = folder, 0

    def add(self, keys: pl.Series) -> None:
        """Add keys; the first that is ever added has number 0."""
        first_K, second_K = keys.hash(seed=1).to_numpy(), keys.hash(seed=2).to_numpy()
        number_K = np.arange(self._rows, self._rows + len(keys), dtype=np.uint64)
        self._rows += len(keys)
        bucket_K = first_K % BUCKETS
        order_K = np.argsort(bucket_K, kind="stable")
        entry_K3 = np.stack([first_K, second_K, number_K], axis=1)[order_K]
        ends = np.searchsorted(bucket_K[order_K], np.arange(1, BUCKETS))
        for bucket, entries in enumerate(np.split(entry_K3, ends)):
            if len(entries):
                with (self._folder / str(bucket)).open("ab") as file:
                    entries.tofile(file)

    def repeated(self) -> npt.NDArray[np.int64]:
        """The numbers of all keys that were there before, ascending."""
        found = [np.zeros(0, dtype=np.int64)]
        for path in self._folder.iterdir():
            entry_K3 = np.fromfile(path, dtype=np.uint64).reshape(-1, 3)
            entry_K3 = entry_K3[np.lexsort(entry_K3.T[::-1])]
            again_K = (entry_K3[1:, :2] == entry_K3[:-1, :2]).all(axis=1)
            found.append(entry_K3[1:, 2][again_K].astype(np.int64))
        return np.sort(np.concatenate(found))

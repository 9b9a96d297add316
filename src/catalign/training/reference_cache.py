"""Reference log-probabilities, computed once and kept in a folder that several runs may share.

The folder holds `reference.json`, which tells the reference (weights, tokenizer, template, catalogue, score mode), and
`reference.parquet`: prompt (UInt64, a hash of its tokens), item (UInt32 index), score (Float32), one row each.

Legend: S windows, C titles behind each prompt.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from catalign.data.writing import write_parquet
from catalign.errors import UserError
from catalign.files import read_json, whole_file, write_json

HEADER, ENTRIES = "reference.json", "reference.parquet"
SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {"prompt": pl.UInt64, "item": pl.UInt32, "score": pl.Float32}
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


class ReferenceCache:
    """What is known of one reference.

    Nothing is written before the first `add`, so a folder can be checked before a run is started.
    """

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        """Open a folder, which need not be there.

        Args:
            folder: the cache.
            header: what identifies the reference.

        Raises:
            UserError: the folder is of another reference, holds something else, or is damaged.
        """
        self.folder, self.header = Path(folder), header
        self._entries = self._read()

    def _read(self) -> pl.DataFrame:
        """The entries in the folder, if its header is ours."""
        if not self.folder.exists() or (self.folder.is_dir() and not any(self.folder.iterdir())):
            return pl.DataFrame(schema=SCHEMA)
        mend = "choose another folder or remove this one"
        if not (self.folder / HEADER).is_file():
            raise UserError(f"is not a reference cache (no {HEADER})", where=self.folder, mend=mend)
        there = read_json(self.folder / HEADER)
        if not isinstance(there, dict):
            raise UserError("does not describe a reference", where=self.folder / HEADER, mend=mend)
        differs = sorted(name for name in there.keys() | self.header.keys() if there.get(name) != self.header.get(name))
        if differs:
            what = f"holds log-probabilities of another reference (other: {', '.join(differs)})"
            raise UserError(what, where=self.folder, mend=mend)
        if not (self.folder / ENTRIES).exists():
            return pl.DataFrame(schema=SCHEMA)
        try:
            entries = pl.read_parquet(self.folder / ENTRIES, glob=False)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise UserError("cannot be read as Parquet", where=self.folder / ENTRIES, mend=mend) from error
        if dict(entries.schema) != SCHEMA:
            raise UserError("does not hold log-probabilities", where=self.folder / ENTRIES, mend=mend)
        return entries

    def find(self, prompt_S: Hashes, item_SC: Ints) -> npt.NDArray[np.float32]:
        """The log-probability of each item behind each prompt, NaN where it is not known; [S, C]."""
        asked = _entries(prompt_S, item_SC)
        found = asked.join(self._entries, on=["prompt", "item"], how="left", maintain_order="left")
        return found["score"].fill_null(float("nan")).to_numpy().reshape(item_SC.shape).copy()

    def add(self, prompt_S: Hashes, item_SC: Ints, score_SC: npt.NDArray[np.float32]) -> None:
        """Take in log-probabilities and write the folder; what another run has added meanwhile stays."""
        new = _entries(prompt_S, item_SC).with_columns(pl.Series("score", score_SC.ravel(), pl.Float32))
        known = pl.concat([self._read(), self._entries, new])
        self._entries = known.unique(["prompt", "item"], keep="first", maintain_order=True)
        write_json(self.folder / HEADER, self.header)
        with whole_file(self.folder / ENTRIES) as partial:
            write_parquet(self._entries, partial)


def hash_prompts(prompts: Iterable[npt.NDArray[np.int32]]) -> Hashes:
    """A hash of each prompt's tokens; [S]."""
    digests = b"".join(hashlib.blake2b(prompt.tobytes(), digest_size=8).digest() for prompt in prompts)
    return np.frombuffer(digests, dtype=np.uint64)


def _entries(prompt_S: Hashes, item_SC: Ints) -> pl.DataFrame:
    """Pairs of prompt and item, row after row."""
    columns = {"prompt": np.repeat(prompt_S, item_SC.shape[1]), "item": item_SC.ravel().astype(np.uint32)}
    return pl.DataFrame(columns)

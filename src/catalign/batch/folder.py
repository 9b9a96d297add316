"""The folder that a batch writes, so that it can be stopped anywhere and goes on where it was.

    _settings.json        what is asked: run, catalogue, input, options
    _requests/            the checked rows, a Parquet file for each part of the output; removed at the end
    _rejects.jsonl        rows that were skipped (file, row, user, column, reason), if there are any
    part-00000.parquet    recommendations: user, items, titles, probabilities, in the order of the input
    _manifest.json        settings, counts, rows and SHA-256 of every part; written last, its presence marks the end

The folder appears when all rows are checked. A part is made of its requests alone, written beside its place and
renamed, so whoever makes it, and however often, it is there once. Readers of folders (pyarrow, Spark) pass over names
that begin with `_`.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from catalign.batch.keys import KeyTable
from catalign.batch.requests import SCHEMA, Rejects
from catalign.batch.settings import ADDED
from catalign.data.tables import gathered
from catalign.data.writing import write_parquet
from catalign.errors import UserError
from catalign.evaluation.predictions import refuse_difference
from catalign.files import read_json, sha256_of, whole_file, write_json

SETTINGS, REQUESTS, CHECKED, REJECTS, MANIFEST = (
    "_settings.json", "_requests", "checked.json", "_rejects.jsonl", "_manifest.json",
)  # fmt: skip
CATALOGUES = "catalogues.parquet"


@dataclass(frozen=True)
class PartFacts:
    """A part that is whole.

    Attributes:
        rows: people in it.
        short: people who got fewer items than they asked for.
    """

    rows: int
    short: int


class BatchFolder:
    """One output folder.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.requests = path, path / REQUESTS

    def holds(self, facts: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Whether it holds what is asked for, or a part of it; else it may be made.

        Raises:
            UserError: it holds something else, or what was asked otherwise, unless that is to be replaced.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError("a file is in the way", where=self.path, mend="choose another folder")
        if (self.path / SETTINGS).exists():
            if not overwrite:
                refuse_difference(self.path, read_json(self.path / SETTINGS), dict(facts))
            return not overwrite
        if self.path.exists() and any(self.path.iterdir()):
            what = "holds something that is no recommendations, so it is left alone"
            raise UserError(what, where=self.path, mend="choose another folder")
        return False

    @property
    def finished(self) -> bool:
        """Whether everything is there."""
        return (self.path / MANIFEST).exists()

    def read_checked(self) -> dict[str, Any]:
        """What the check of the input found: `rows_of_parts` and `rejected`."""
        checked: dict[str, Any] = read_json(self.requests / CHECKED)
        return checked

    def read_manifest(self) -> dict[str, Any]:
        """What `finish` wrote."""
        manifest: dict[str, Any] = read_json(self.path / MANIFEST)
        return manifest

    def stage(
        self, facts: Mapping[str, Any], requests: Iterator[pl.DataFrame], rejects: Rejects, catalogues: pl.DataFrame,
        rows: int,
    ) -> None:  # fmt: skip
        """Put checked requests aside in parts of so many rows; of people who stand twice the first row stays.

        Args:
            facts: what is asked.
            requests: frames of `requests.SCHEMA`.
            rejects: takes the rows of people who stand twice.
            catalogues: name and items of every named catalogue.
            rows: of a part.

        Raises:
            UserError: someone stands twice, and such rows are refused.
        """
        buckets = self.requests / "keys"
        buckets.mkdir(parents=True)
        keys = KeyTable(buckets)
        frames = gathered(_with_keys(requests, keys), rows)
        counts = [self._write_requests(part, frame) for part, frame in enumerate(frames)]
        repeated = keys.repeated()
        for part in np.unique(repeated // rows).tolist():
            frame = self.read_requests(part).with_row_index("number", offset=part * rows)
            again = pl.col("number").is_in(repeated)
            reason = pl.format('"{}" stands in the input a second time', "user")
            rejects.add(frame.filter(again).select("file", "row", "user", column=pl.lit("user"), reason=reason))
            counts[part] = self._write_requests(part, frame.filter(~again).drop("number"))
        shutil.rmtree(buckets)
        write_parquet(catalogues, self.requests / CATALOGUES)
        write_json(self.requests / CHECKED, {"rows_of_parts": counts, "rejected": rejects.counts})
        write_json(self.path / SETTINGS, facts)

    def _write_requests(self, part: int, frame: pl.DataFrame) -> int:
        with whole_file(self.requests / part_name(part)) as partial:
            write_parquet(frame, partial)
        return len(frame)

    def read_requests(self, part: int) -> pl.DataFrame:
        """The requests of a part."""
        return pl.read_parquet(self.requests / part_name(part))

    def read_catalogues(self) -> dict[str, list[int]]:
        """The items of every named catalogue."""
        return dict(pl.read_parquet(self.requests / CATALOGUES).iter_rows())

    def write_part(self, part: int, recommendations: pl.DataFrame) -> None:
        """Write a part, whole or not at all."""
        with whole_file(self.path / part_name(part)) as partial:
            write_parquet(recommendations, partial)

    def facts_of(self, part: int) -> PartFacts | None:
        """What is in a part; None if it is not there, cannot be read, or does not hold the people of its requests."""
        requests = self.read_requests(part)
        try:
            found = pl.read_parquet(self.path / part_name(part))
        except (OSError, pl.exceptions.PolarsError):
            return None
        if found.columns[1:] != list(ADDED) or not found.to_series(0).equals(requests["user"]):
            return None
        return PartFacts(len(found), int((found["items"].list.len() < requests["k"]).sum()))

    def clean(self) -> None:
        """Remove what killed processes left half-written."""
        for leftover in self.path.glob(".part-*.partial-*"):
            leftover.unlink(missing_ok=True)

    def finish(self, parts: list[PartFacts], rejected: Mapping[str, int]) -> dict[str, Any]:
        """Write the manifest and remove the requests; returns the manifest."""
        self.clean()
        told = {
            part_name(part): {"rows": facts.rows, "sha256": sha256_of(self.path / part_name(part))}
            for part, facts in enumerate(parts)
        }
        manifest = {
            "settings": read_json(self.path / SETTINGS),
            "users": sum(facts.rows for facts in parts),
            "short": sum(facts.short for facts in parts),
            "rejected": dict(rejected),
            "parts": told,
        }
        write_json(self.path / MANIFEST, manifest)
        self.remove_requests()
        return manifest

    def remove_requests(self) -> None:
        """Remove what is not needed when everything is there."""
        shutil.rmtree(self.requests, ignore_errors=True)


def part_name(part: int) -> str:
    """The name of a part's file."""
    return f"part-{part:05d}.parquet"


def _with_keys(requests: Iterator[pl.DataFrame], keys: KeyTable) -> Iterator[pl.DataFrame]:
    """The frames as they come, an empty one first, their users added to the keys."""
    yield pl.DataFrame(schema=SCHEMA)
    for frame in requests:
        keys.add(frame["user"])
        yield frame

"""A batch from its input to its manifest."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from catalign.batch.folder import REJECTS, BatchFolder
from catalign.batch.requests import Rejects, RequestReader, input_files, read_named_items
from catalign.batch.settings import ADDED, BatchSettings
from catalign.catalogue.catalogue import Catalogue
from catalign.data.streams import reading
from catalign.errors import UserError
from catalign.files import read_json, sha256_of, whole_folder
from catalign.processes import count, from_main, join_processes, wait_for_all
from catalign.progress import console, progress_bar
from catalign.training.run import CATALOGUE, PROVENANCE, read_recipe

Engine = Callable[[list[int]], Iterator[int]]
"""Answers parts, in any order, and yields the number of each when it is written."""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        rows_of_parts: people in each part.
        left: parts that are not written yet.
        rejected: rows that were skipped, by column.
    """

    rows_of_parts: list[int]
    left: list[int]
    rejected: dict[str, int]


def recommend_batch(
    run: Path, source: Path, output: Path, settings: BatchSettings, engine: Engine, *, overwrite: bool = False
) -> dict[str, Any]:
    """Recommend to every row of an input, or go on where it was stopped.

    Args:
        run: run folder.
        source: a table (Parquet, CSV, JSON lines), a folder of them, or a pattern.
        output: folder; see `folder.py`. One that is finished, of the same settings, is left as it is.
        settings: how rows are read and answered.
        engine: who answers.
        overwrite: begin anew, whatever recommendations the folder holds.

    Returns:
        The manifest.

    Raises:
        UserError: the run, the input, a row of it (unless skipped), or the folder is not what it must be.
    """
    join_processes()
    folder = BatchFolder(output)
    plan = from_main(partial(_outcome, run, source, folder, settings, overwrite))
    if isinstance(plan, UserError):
        raise plan
    if plan is not None:
        _answer(plan, engine)
        wait_for_all()
    return from_main(partial(_finish, folder, plan))


def _outcome(
    run: Path, source: Path, folder: BatchFolder, settings: BatchSettings, overwrite: bool
) -> Plan | UserError | None:
    """`prepare`, a user's mistake as a value, so that every process hears of it."""
    try:
        return prepare(run, source, folder, settings, overwrite)
    except UserError as error:
        return error


def prepare(run: Path, source: Path, folder: BatchFolder, settings: BatchSettings, overwrite: bool) -> Plan | None:
    """Check everything, unless that was done, and say what is left; None where nothing is.

    Raises:
        UserError: as `recommend_batch`.
    """
    read_recipe(run)
    catalogue = Catalogue.load(run / CATALOGUE)
    files = input_files(source)
    place = folder.path.resolve()
    if place in files[0].resolve().parents or source.resolve() in place.parents:
        raise UserError("holds the input or lies in it", where=folder.path, mend="choose another folder")
    _check_settings(settings, catalogue)
    facts = _facts(run, catalogue, files, settings)
    if not folder.holds(facts, overwrite=overwrite):
        with whole_folder(folder.path, overwrite=True) as new:
            _check_input(BatchFolder(new), facts, catalogue, files, settings)
    if folder.finished:
        return None
    checked = folder.read_checked()
    folder.clean()
    counts = checked["rows_of_parts"]
    left = [part for part in range(len(counts)) if folder.facts_of(part) is None]
    skipped = sum(checked["rejected"].values())
    console.print(
        f"{sum(counts):,} people in {len(counts):,} parts, {len(counts) - len(left):,} of them done"
        + (f"; {skipped:,} rows skipped" if skipped else "")
    )
    return Plan(counts, left, checked["rejected"])


def _check_settings(settings: BatchSettings, catalogue: Catalogue) -> None:
    if settings.k > len(catalogue):
        raise UserError(f"the catalogue has {len(catalogue):,} items", where=f"-k {settings.k}")
    if settings.user in ADDED:
        raise UserError("the output has a column of this name", where=f"--user {settings.user}", mend="rename it")


def _facts(run: Path, catalogue: Catalogue, files: list[Path], settings: BatchSettings) -> dict[str, Any]:
    """What tells this batch from any other."""
    digest = hashlib.sha256("".join(map(_digest, files)).encode()).hexdigest()
    return {
        "run": f"{run.resolve().name} of {read_json(run / PROVENANCE)['started']}",
        "catalogue": catalogue.digest[:12],
        "input": f"{len(files)} files {digest[:12]}",
        "catalogues": {name: _digest(path)[:12] for name, path in settings.catalogues.items()},
        **settings.facts(),
    }


def _digest(path: Path) -> str:
    with reading(path):
        return sha256_of(path)


def _check_input(
    folder: BatchFolder, facts: dict[str, Any], catalogue: Catalogue, files: list[Path], settings: BatchSettings
) -> None:
    """Read and check all rows, and put them aside in parts."""
    named = {name: read_named_items(path, catalogue) for name, path in settings.catalogues.items()}
    rejects = Rejects(folder.path / REJECTS, skip=settings.bad_rows == "skip")
    reader = RequestReader(catalogue, settings, settings.catalogues, rejects)
    catalogues = pl.DataFrame(
        {"name": list(named), "items": list(named.values())}, schema={"name": pl.String, "items": pl.List(pl.UInt32)}
    )
    with progress_bar() as progress:
        task = progress.add_task("checking files", total=len(files), note="")

        def requests() -> Iterator[pl.DataFrame]:
            rows = 0
            for path in files:
                for frame in reader.read(path):
                    yield frame
                    rows += len(frame)
                    progress.update(task, note=f"{rows:,} people")
                progress.advance(task)

        folder.stage(facts, requests(), rejects, catalogues, settings.part_rows)
    unread = reader.unread(files[0])
    if unread:
        console.print(f"Columns that nobody reads: {', '.join(unread)}", markup=False)


def _answer(plan: Plan, engine: Engine) -> None:
    """Let the engine answer what is left, with a line that tells how it goes."""
    started, people = time.monotonic(), 0
    total = sum(plan.rows_of_parts)
    done = total - sum(plan.rows_of_parts[part] for part in plan.left)
    with progress_bar() as progress:
        task = progress.add_task("recommending", total=total, completed=done, note="")
        for part in engine(plan.left):
            people += plan.rows_of_parts[part] * count()  # about, where each process answers some
            speed = people / (time.monotonic() - started)
            progress.update(task, completed=min(done + people, total), note=f"{speed:,.0f} people/s")


def _finish(folder: BatchFolder, plan: Plan | None) -> dict[str, Any]:
    """Check that every part holds its people, and write the manifest."""
    if plan is None:
        folder.remove_requests()  # of a batch that was killed between the manifest and its end
        return folder.read_manifest()
    found = [folder.facts_of(part) for part in range(len(plan.rows_of_parts))]
    lost = [part for part, facts in enumerate(found) if facts is None]
    if lost:
        raise RuntimeError(f"{folder.path}: part {lost[0]} was answered and is not there; run the same command again")
    return folder.finish([facts for facts in found if facts is not None], plan.rejected)

"""A trained run with another catalogue: new items can be recommended at once, removed ones no longer."""

import contextlib
import os
import shutil
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from catalign.catalogue.catalogue import Catalogue
from catalign.data.dataset import load_dataset
from catalign.data.items import settle_items
from catalign.data.ledger import Ledger
from catalign.data.options import Table, TitleOptions
from catalign.data.tables import read_table
from catalign.data.titles import TITLE, distinguish
from catalign.errors import UserError
from catalign.files import read_json, sha256_of, whole_folder, write_json
from catalign.prompting.prompter import encode_pieces
from catalign.training.preference_stage import CACHE
from catalign.training.run import CATALOGUE, CHECKPOINTS, PROVENANCE, Run, load_run, prompter_of, write_recipe
from catalign.training.soft_stage import DISTILLED

OF_THE_OLD_CATALOGUE = ("evaluations", "metrics*.json", "grounding", CACHE, DISTILLED, CHECKPOINTS)
WEIGHTS = (".safetensors", ".bin")  # never written in place, so a link is as good as a copy
SUMMARY = "recatalogued"  # in provenance.json


@dataclass(frozen=True)
class ItemColumns:
    """How an item table is read; what is None is as the run's dataset was prepared.

    Attributes:
        item_id, title: names of the columns; where the dataset does not tell, `item_id` and `title`.
        metadata: further columns to keep.
        encoding: of CSV files and JSON lines.
    """

    item_id: str | None = None
    title: str | None = None
    metadata: list[str] | None = None
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Change:
    """What a catalogue has that the one before had not.

    Attributes:
        items: items now.
        added, removed: items by their ids.
        retitled: items with the same id and another title.
        dropped: reason -> rows of the item table that were left out.
    """

    items: int
    added: int
    removed: int
    retitled: int
    dropped: dict[str, int] = field(default_factory=dict)


def recatalogue(
    folder: Path,
    output: Path | None,
    *,
    items: Path | None = None,
    dataset: Path | None = None,
    columns: ItemColumns | None = None,
) -> Change:
    """Give a finished run another catalogue.

    The new run folder holds the same weights (linked where the file system can, else copied), tokenizer, template and
    logs; what was computed for the old catalogue (evaluations, reference scores, embeddings of titles, answers of a
    teacher) stays behind. Titles are written by the rules that the run's dataset was prepared with. Training counts
    are those of the training that was done: none for new items. The model is loaded once, to see that it reads the
    titles.

    Args:
        folder: the run.
        output: the run folder to make; None replaces the run's own, whole or not at all.
        items: a table that holds every item of the new catalogue.
        dataset: or a dataset folder whose items are taken as they are; the new run is evaluated on it by default.
        columns: of `items`.

    Raises:
        UserError: not one of `items` and `dataset`, `output` exists, the table cannot be read, or the model cannot
            write a title.
    """
    if (items is None) == (dataset is None):
        raise UserError("one catalogue is needed", where=folder, mend="pass --items FILE or --dataset DATASET")
    if output is not None and output.exists():
        raise UserError(
            "already exists", where=output, mend="choose another folder, or pass --in-place without --output"
        )
    run = load_run(folder)
    provenance = read_json(folder / PROVENANCE)
    ledger = Ledger()
    if items is not None:
        frame = _read_items(items, columns or ItemColumns(), run.catalogue, provenance["dataset"]["options"], ledger)
        origin: dict[str, Any] = {"items": items.name, "sha256": sha256_of(items)}
        recipe = run.recipe
    else:
        opened = load_dataset(dataset or Path())
        frame = opened.items
        origin = {"dataset": str(opened.folder.resolve()), "sha256": opened.card.files["items.parquet"]}
        recipe = run.recipe.model_copy(update={"dataset": opened.folder.resolve()})
    catalogue = Catalogue.from_frame(frame, _counts(frame["item_id"], run.catalogue))
    _check_titles(run, catalogue)
    change = _change(run.catalogue, catalogue, ledger.dropped.get("items", {}))
    record = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["catalign", *sys.argv[1:]]),
        "from": {"run": str(folder.resolve()), "catalogue": run.catalogue.digest},
        "to": {"catalogue": catalogue.digest, **origin},
        **asdict(change),
    }
    with whole_folder(output or folder.resolve(), overwrite=output is None) as partial:
        left_out = shutil.ignore_patterns(*OF_THE_OLD_CATALOGUE)
        shutil.copytree(folder, partial, ignore=left_out, copy_function=_link_or_copy, dirs_exist_ok=True)
        shutil.rmtree(partial / CATALOGUE)
        (partial / CATALOGUE).mkdir()
        catalogue.save(partial / CATALOGUE)
        write_recipe(partial, recipe)
        write_json(partial / PROVENANCE, {**provenance, SUMMARY: [*provenance.get(SUMMARY, []), record]})
    return change


def _read_items(
    path: Path, columns: ItemColumns, old: Catalogue, options: dict[str, Any], ledger: Ledger
) -> pl.DataFrame:
    """Read an item table by the rules that the run's dataset was prepared with: `item_id`, `title`, metadata."""
    as_before = options.get("columns") or {}
    metadata = as_before.get("metadata", []) if columns.metadata is None else columns.metadata
    names = {
        "item_id": columns.item_id or as_before.get("item_id") or "item_id",
        TITLE: columns.title or as_before.get("title") or TITLE,
        **{name: name for name in metadata},
    }
    raw = read_table(Table.of(path, encoding=columns.encoding), names, table_name="items", ledger=ledger)
    rules = TitleOptions.model_validate(options)
    frame = settle_items(raw, rules, ledger).frame.drop("file", "row")
    if rules.duplicate_titles != "distinguish":
        return frame
    # What the run knows under a mark keeps it, though a new item of the same title would ask for another.
    known = pl.DataFrame({"item_id": old.item_ids, "known": old.titles})
    joined = frame.join(known, on="item_id", how="left", maintain_order="left")
    same = (pl.col("known") == pl.col(TITLE)) | pl.col("known").str.starts_with(pl.col(TITLE) + pl.lit(" ("))
    settled = joined.select(same.fill_null(False).alias("settled"))["settled"]
    frame = frame.with_columns(pl.when(settled).then(joined["known"]).otherwise(TITLE).alias(TITLE))
    return distinguish(frame, clean=rules.clean, settled=settled)[0]


def _counts(item_ids: pl.Series, old: Catalogue) -> np.ndarray[Any, np.dtype[np.int64]]:
    """How often each item occurred in the run's training: 0 for one it does not know."""
    known = pl.DataFrame({"item_id": old.item_ids, "count": old.popularity})
    joined = item_ids.to_frame().join(known, on="item_id", how="left", maintain_order="left")
    return joined["count"].fill_null(0).to_numpy()


def _check_titles(run: Run, catalogue: Catalogue) -> None:
    """Refuse titles that the run's tokenizer cannot write or that leave its context no room for a history.

    Raises:
        UserError: there is such a title.
    """
    prompter_of(run.recipe, run.model, catalogue, run.prompter.template)  # refuses long titles and end tokens inside
    unknown = run.model.tokenizer.unk_token_id
    if unknown is None:
        return
    fresh = sorted(set(catalogue.titles) - set(run.catalogue.titles))
    unwritten = [
        title
        for title, tokens in zip(fresh, encode_pieces(run.model.tokenizer, fresh), strict=True)
        if unknown in tokens
    ]
    if unwritten:
        raise UserError(
            f'the tokenizer of the run cannot write {len(unwritten):,} new titles, such as "{unwritten[0]}"',
            where=run.folder,
            mend="spell them with words it knows, or train a run whose tokenizer does",
        )


def _change(old: Catalogue, new: Catalogue, dropped: dict[str, int]) -> Change:
    before = pl.DataFrame({"item_id": old.item_ids, "before": old.titles})
    after = pl.DataFrame({"item_id": new.item_ids, "after": new.titles})
    both = after.join(before, on="item_id")
    retitled = int((both["before"] != both["after"]).sum())
    return Change(len(new), len(new) - both.height, len(old) - both.height, retitled, dropped)


def _link_or_copy(source: str, target: str) -> None:
    if source.endswith(WEIGHTS):
        with contextlib.suppress(OSError):  # another file system, or one without links
            os.link(source, target)
            return
    shutil.copy2(source, target)

"""Instruction files: JSON lists (or lines) of a prompt that names the titles of a history, and one title as answer.

- Alpaca form, as BIGRec, SOFT and others write it: `instruction`, `input` with titles in double quotes with a comma
  between (`The user has played ... before: "A", "B"`), and `output`, one title in double quotes.
- The form of S-DPO: `historyList` (titles), `trueSelection` (a title); `itemList`, the candidates, is not read.

There is one file for each split, whose name has train, valid (val, dev) or test in it (`train.json`,
`lastfm-val.json`, `test_5000.json`); SOFT has them in `train/` and `test/`. Titles are all that such files know: a
title is its own id, and every row is a user of its own.
"""

import re
from pathlib import Path
from typing import Any

import polars as pl

from catalign.data.json_tables import parse_json, read_document
from catalign.data.ledger import Ledger
from catalign.data.sources.folders import choose, files_in
from catalign.data.sources.window_files import SPLIT_NAMES, PublishedWindows, gathered
from catalign.data.splits import SPLIT_TYPE
from catalign.data.streams import first_lines, reading
from catalign.errors import UserError

_ALPACA, _LISTS = ("instruction", "input", "output"), ("historyList", "trueSelection")
_JSON = (".json", ".jsonl")
_BETWEEN = '", "'
_WANTED = 'each row needs titles in double quotes in its input ("A", "B") and one in its output'


def recognises(folder: Path) -> bool:
    """Whether a training file of one of the two forms is there."""
    return any(_begins_well(path) for path in _files(folder, "train").values())


def read(folder: Path, ledger: Ledger, *, name: str | None = None) -> PublishedWindows:
    """Read the windows; the items are the titles, in order of appearance.

    Args:
        folder: where the files lie.
        ledger: counts rows under `items` (distinct titles) and `windows`.
        name: of the file of a split, or its beginning, where there are several.

    Raises:
        UserError: a file is missing or in another form, or several fit.
    """
    paths = {}
    for split in SPLIT_NAMES:
        files = {file: path for file, path in _files(folder, split).items() if _begins_well(path)}
        usual = [file for file in files if file.rpartition(".")[0] in SPLIT_NAMES[split]]
        if files:
            paths[split] = files[
                usual[0] if usual and name is None else choose(list(files), name, folder, f"{split} files")
            ]
        elif split != "valid":
            raise UserError(f"there is no file of {split} instructions", where=folder, mend="as train.json, test.json")
    parts = {split: _read_split(path, split, ledger) for split, path in paths.items()}
    windows = pl.concat(parts.values())
    titles = windows.select("file", "row", item_id=pl.concat_list("history", "target")).explode("item_id")
    titles = titles.drop_nulls("item_id").unique("item_id", keep="first", maintain_order=True)
    ledger.enter("items", titles.height)
    items = titles.select("item_id", pl.col("item_id").alias("title"), "file", "row")
    note = "the files name no users: every window counts as a user of its own"
    return gathered(items, next(iter(paths.values())), parts, paths, note)


def _files(folder: Path, split: str) -> dict[str, Path]:
    """The JSON files whose name has the split in it."""
    names = "|".join(SPLIT_NAMES[split])
    places = [folder, folder / "train", folder / "test"]
    found = {file: path for place in places for file, path in files_in(place).items() if file.endswith(_JSON)}
    return {file: path for file, path in found.items() if re.search(rf"(?<![a-z])({names})(?![a-z])", file)}


def _begins_well(path: Path) -> bool:
    """Whether the keys of one of the forms stand in the first lines."""
    try:
        with reading(path):
            text = "".join(first_lines(path, "utf-8", 40))[:1_000_000]
    except UserError:
        return False
    return any(all(f'"{key}"' in text for key in keys) for keys in (_ALPACA, _LISTS))


def _read_split(path: Path, split: str, ledger: Ledger) -> pl.DataFrame:
    rows = _rows(path)
    if all(set(_LISTS) <= row.keys() for row in rows):
        history, target = ([row[key] for row in rows] for key in _LISTS)
        schema = {"text": pl.String, "history": pl.List(pl.String), "target": pl.String}
        read = _frame(path, {"text": [None] * len(rows), "history": history, "target": target}, schema)
    else:
        fields = {"text": [row.get("input") for row in rows], "output": [row.get("output") for row in rows]}
        read = _frame(path, fields, {"text": pl.String, "output": pl.String})
        titles = pl.col("text").str.extract(r'(?s)^[^"]*"(.*)"[^"]*$')
        answer = pl.col("output").str.extract(r'(?s)^\s*"(.*)"\s*$')
        read = read.select("row", "text", history=titles.str.split(_BETWEEN), target=answer)
    file = pl.lit(path.name, dtype=pl.Categorical).alias("file")
    read = read.select("text", file, pl.col("row").cast(pl.UInt32), "history", "target")
    unread = pl.col("target").is_null() | pl.col("history").is_null()
    if read.remove(unread).is_empty():
        raise UserError("is no file of windows", where=f"{path}, row 1", mend=_WANTED)
    ledger.enter("windows", read.height)
    read = ledger.drop("windows", read, unread, "no titles in double quotes")
    return read.select(
        pl.format("{}-{}", pl.lit(split), "row").alias("user_id"), "history", "target",
        pl.lit(None, pl.Int64).alias("timestamp"), pl.lit(split, dtype=SPLIT_TYPE).alias("split"), "file", "row",
    )  # fmt: skip


def _frame(path: Path, fields: dict[str, list[Any]], schema: dict[str, Any]) -> pl.DataFrame:
    try:
        return pl.DataFrame(fields, schema=schema).with_row_index("row", offset=1)
    except (pl.exceptions.PolarsError, TypeError, OverflowError) as error:
        raise UserError("has fields that are no texts", where=path, mend=_WANTED) from error


def _rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON list, or of JSON lines."""
    text = read_document(path)
    if text.lstrip().startswith("["):
        rows: list[Any] = parse_json(text, path)
    else:
        lines = enumerate(text.split("\n"), start=1)
        rows = [parse_json(line, f"{path}, line {number}") for number, line in lines if line.strip()]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError("is not a JSON list of objects", where=path)
    return rows

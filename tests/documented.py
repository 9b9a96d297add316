"""The commands that stand in Markdown, and how they are run on a small shop."""

import re
import shlex
from pathlib import Path

import polars as pl

import toy
from catalign.data.dataset import load_dataset
from catalign.data.store import write_store

PLACES = {"Title A": 0, "Title B": 1, "Title C": 2}
"""The titles of examples, and the items of the dataset `ds` that stand in for them."""


def blocks(text: str, language: str) -> list[str]:
    """The blocks of Markdown in one language."""
    return [block for name, block in re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL) if name == language]


def commands(text: str) -> list[str]:
    """The lines of the `sh` blocks; one that ends with a backslash goes on in the next."""
    lines = "".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip()]


def write_tables(folder: Path) -> None:
    """`log.csv` and `items.csv` of a small shop, `week.csv` that comes later, `users.jsonl` with histories."""
    write_store(folder / "shop", users=60, items=60)
    log = pl.read_csv(folder / "shop" / "interactions.csv", infer_schema=False).sort("timestamp")
    log.head(-40).write_csv(folder / "log.csv")
    log.tail(40).write_csv(folder / "week.csv")
    (folder / "shop" / "items.csv").rename(folder / "items.csv")
    histories = log.head(-40).group_by("user_id", maintain_order=True).agg(pl.col("item_id").head(3).alias("history"))
    histories.head(5).write_ndjson(folder / "users.jsonl")


def run(line: str) -> str:
    """Run a command of `catalign` in the folder of now, with real titles in place of the examples."""
    return toy.works(*(real_title(argument) for argument in shlex.split(line, comments=True)[1:]))


def run_python(block: str) -> dict[str, object]:
    """Run a block of Python in the same way; its names."""
    names: dict[str, object] = {}
    exec(re.sub(r'"(Title [ABC])"', lambda match: repr(real_title(match.group(1))), block), names)
    return names


def real_title(argument: str) -> str:
    """The title of an item of `ds` where an example stands."""
    if argument not in PLACES:
        return argument
    title: str = load_dataset(Path("ds")).items["title"][PLACES[argument]]
    return title

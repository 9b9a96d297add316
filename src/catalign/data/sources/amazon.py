"""Amazon Reviews of 2014, 2018 and 2023, as downloaded: a file of reviews and one of metadata for each category.

| release | reviews | metadata |
|---|---|---|
| 2014 | `reviews_X_5.json.gz`: reviewerID, asin, overall, unixReviewTime | `meta_X.json.gz`: asin, title |
| 2018 | `X_5.json.gz` or `X.json.gz`, the same keys | `meta_X.json.gz`: asin, title, brand, category |
| 2023 | `X.jsonl.gz`: user_id, parent_asin, rating, timestamp (ms) | `meta_X.jsonl.gz`: parent_asin, title, store |

The ratings alone (`ratings_X.csv` of 2014, `X.csv` of 2018 and 2023) and the given splits of 2023 (`X.train.csv`,
`X.valid.csv`, `X.test.csv`) stand for the reviews where those are not there. The metadata of 2014 are Python
literals. Files are known by the keys of their first lines, and belong together by category; where a folder holds
several categories, or several files of reviews of one, one is chosen by name. The text of reviews is never read.
"""

import re
from pathlib import Path
from typing import Any

from catalign.data.options import Table, TableSource
from catalign.data.sources.folders import choose, column, column_like, files_in
from catalign.data.tables import column_names
from catalign.errors import UserError

_ENDING = re.compile(r"\.(jsonl?|ndjson|csv)$")
_SPLIT = re.compile(r"\.(train|valid|test)$")
_METADATA = ("brand", "store", "main_category", "main_cat", "category", "categories", "price")
_RATINGS_2014 = ["user", "item", "rating", "time"]
_RATINGS_2018 = ["item", "user", "rating", "time"]


def recognises(folder: Path) -> bool:
    """Whether a file of metadata and one of reviews are there."""
    metadata, reviews = _files(folder)
    return any(_is_metadata(path) for path in metadata.values()) and any(map(_is_reviews, reviews.values()))


def source(folder: Path, name: str | None = None) -> TableSource:
    """The reviews and the metadata of one category.

    Args:
        folder: where the files lie.
        name: the category, or the name of the file of reviews without its ending, where there are several.

    Raises:
        UserError: a file or a key is missing, or several categories are there and none is named.
    """
    metadata, reviews = _files(folder)
    if not metadata:
        raise UserError(
            "there is no file of metadata (meta_...)", where=folder, mend="download it too: it has the titles"
        )
    if not reviews:
        raise UserError("there is no file of reviews", where=folder, mend="download it beside the metadata")
    if len(metadata) == len(reviews) == 1 and name is None:
        return _source(Table.of(*reviews.values()), Table.of(*metadata.values()))
    paired = {stem: path for stem, path in reviews.items() if _category(stem) in metadata}
    parts = {stem: path for stem, path in paired.items() if _SPLIT.search(stem)}
    whole = {stem: path for stem, path in paired.items() if stem not in parts}
    if not whole and parts:
        return _given_splits(parts, metadata, name, folder)
    wanted = None if name is None else name.lower()
    of_category = [] if wanted in whole else [stem for stem in whole if _category(stem) == wanted]
    stem = choose(of_category or whole, None if of_category else name, folder, "pairs of reviews and metadata")
    return _source(Table.of(whole[stem]), Table.of(metadata[_category(stem)]))


def _files(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """The files of metadata by category, and those that may be reviews by name without ending (small letters)."""
    places = (folder, folder / "review_categories", folder / "meta_categories")  # Hugging Face has them in two
    files = {name: path for place in places for name, path in files_in(place).items()}
    named = {_ENDING.sub("", name): path for name, path in files.items() if _ENDING.search(name)}
    metadata = {re.sub(r"^meta(data)?_?", "", stem): path for stem, path in named.items() if stem.startswith("meta")}
    return metadata, {stem: path for stem, path in named.items() if not stem.startswith("meta")}


def _category(stem: str) -> str:
    """`books` of `reviews_books_5`, `ratings_books`, `books.train`."""
    return _SPLIT.sub("", re.sub(r"_(5|10)$", "", re.sub(r"^(reviews|ratings)(_|$)", "", stem)))


def _is_metadata(path: Path) -> bool:
    return _has(path, ["title"]) and (_has(path, ["asin"]) or _has(path, ["parent_asin"]))


def _is_reviews(path: Path) -> bool:
    if path.name.lower().removesuffix(".gz").endswith(".csv"):
        return _header_of(path) is not None or _has(path, ["user_id", "parent_asin", "timestamp"])
    return _has(path, ["reviewerID", "asin", "unixReviewTime"]) or _has(path, ["user_id", "asin", "timestamp"])


def _has(path: Path, keys: list[str]) -> bool:
    try:
        present = column_names(Table.of(path))
    except UserError:
        return False
    return all(key in present for key in keys)


def _header_of(path: Path) -> list[str] | None:
    """The columns of a table of ratings without a header: 2014 begins with the user, 2018 with the item."""
    try:
        first = column_names(Table.of(path))
    except UserError:
        return None
    if len(first) != 4 or not re.fullmatch(r"\d+", first[3]):
        return None
    return _RATINGS_2014 if path.name.lower().startswith("ratings_") else _RATINGS_2018


def _source(reviews: Table, metadata: Table, **splits: Any) -> TableSource:
    path = reviews.files[0]
    header = _header_of(path) if ".csv" in path.name.lower() else None
    if header is not None:
        reviews = Table.of(path, header=header)
    items = column_names(metadata)
    return TableSource(
        interactions=reviews, **splits,
        user=column(reviews, "user_id", "reviewerID", "user"), item=column(reviews, "parent_asin", "asin", "item"),
        time=column(reviews, "timestamp", "unixReviewTime", "time"), rating=column(reviews, "rating", "overall"),
        items=metadata, item_id=column(metadata, "parent_asin", "asin"), title=column(metadata, "title"),
        metadata=[key for key in _METADATA if column_like(items, key) == key],
    )  # fmt: skip


def _given_splits(parts: dict[str, Path], metadata: dict[str, Path], name: str | None, folder: Path) -> TableSource:
    """The published splits of 2023; training is taken together with validation and test as given."""
    category = choose(sorted({_category(stem) for stem in parts}), name, folder, "categories")
    tables = {split: Table.of(parts[f"{category}.{split}"]) for split in ("train", "valid", "test")
              if f"{category}.{split}" in parts}  # fmt: skip
    if len(tables) < 3:
        raise UserError(f"does not hold the three splits of {category}", where=folder, mend="download all of them")
    train = tables.pop("train")
    return _source(train, Table.of(metadata[category]), **tables, defaults={"split": "given"})

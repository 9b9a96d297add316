"""The options of preparing a dataset, as they stand in `dataset.json`."""

import glob
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from catalign.data.connection import read_connection
from catalign.data.rules import check_switches
from catalign.data.titles import TitleFormat
from catalign.errors import UserError


class TitleOptions(pydantic.BaseModel):
    """What happens to titles.

    Attributes:
        clean: HTML entities, tags and superfluous white space go.
        missing_titles: `drop` removes an item without a title together with its interactions; `id` shows its id
            instead.
        duplicate_titles: `keep` leaves distinct items that share a title (they share a leaf of the trie); `merge`
            makes one item of them, under the id of the first; `distinguish` adds what tells them apart, see
            `titles.distinguish`.
        title_format: how a title is written, see `titles.TitleFormat`.
        title_words: titles keep at most this many words.
        title_tokens: or as many whole words as have at most this many tokens of `tokenizer`.
        tokenizer: a Hugging Face folder or the name of a model.
        without_rules: names of cleaning rules that are switched off, of those without an option; see `rules.RULES`.
    """

    clean: bool = True
    missing_titles: Literal["drop", "id"] = "drop"
    duplicate_titles: Literal["keep", "merge", "distinguish"] = "keep"
    title_format: str = "{title}"
    title_words: int | None = pydantic.Field(default=None, ge=1)
    title_tokens: int | None = pydantic.Field(default=None, ge=1)
    tokenizer: str | None = None
    without_rules: list[str] = []

    @pydantic.field_validator("tokenizer")
    @classmethod
    def _from_anywhere(cls, value: str | None) -> str | None:
        return str(Path(value).resolve()) if value is not None and Path(value).is_dir() else value

    @pydantic.model_validator(mode="after")
    def _check_titles(self) -> Self:
        check_switches(self.without_rules)
        TitleFormat(self.title_format)
        if self.title_words is not None and self.title_tokens is not None:
            raise UserError("--title-words and --title-tokens are two measures of one thing", mend="pass one of them")
        if (self.title_tokens is None) != (self.tokenizer is None):
            raise UserError(
                "--title-tokens and --tokenizer go together", mend="pass both, or --title-words, which needs none"
            )
        return self


class WindowOptions(TitleOptions):
    """How windows are made.

    Attributes:
        history: a window shows at most this many items before its target.
        min_history: and at least this many.
    """

    history: int = pydantic.Field(default=10, ge=1)
    min_history: int = pydantic.Field(default=1, ge=1)


class FewshotOptions(pydantic.BaseModel):
    """How the few-shot files of DMPO become windows.

    Attributes:
        domain: which of the published data sets.
        history: a window shows at most this many items before its target; None: all that the published prompt shows,
            so that it can be written again.
        clean: HTML entities, tags and superfluous white space go.
        without_rules: names of rules for titles that are switched off.
    """

    domain: Literal["games", "movies", "ml-1m"]
    history: int | None = pydantic.Field(default=None, ge=1)
    clean: bool = True
    without_rules: list[str] = []


class TableOptions(WindowOptions):
    """How tables of interactions become windows.

    Attributes:
        split: `chronological` cuts all users at the same two instants (8:1:1 of the windows); `leave-one-out` takes
            each user's last two interactions, and leaks; `given` reads the split from a column or from files.
        min_rating: interactions rated lower are dropped, and those without a rating.
        k_core: every user and item keeps at least this many interactions (0: no filter).
        duplicates: of repeated (user, item) pairs keep all, as the published sets do, or the first or last in time.
        keep_unused: keep items without an interaction in the catalogue.
    """

    split: Literal["chronological", "leave-one-out", "given"] = "chronological"
    min_rating: float | None = None
    k_core: int = pydantic.Field(default=0, ge=0)
    duplicates: Literal["keep", "first", "last"] = "keep"
    keep_unused: bool = False


class Table(pydantic.BaseModel):
    """Where a table lies and how it is written; `tables.read_chunks` reads it. A path or a glob stands for its files.

    Attributes:
        files: the files, one after the other; a glob (`part-*.csv`) is expanded in sorted order.
        delimiter: of CSV files, of one character or several (`::`); None, or not in
            the line of names: of comma, tab, semicolon and bar the one that the first line holds most of.
        header: the names of the columns of CSV files without a header line; None: the first line holds them.
        quoted: whether a field of a CSV file may stand in quotation marks (never with a delimiter of several
            characters).
        encoding: of CSV files and JSON lines, a Python codec name.
        nested: the key of a list of objects in every object of JSON lines: each of these is a row of its own, with the
            keys of the object that holds it.
    """

    files: list[Path] = pydantic.Field(min_length=1)
    delimiter: str | None = pydantic.Field(default=None, min_length=1)
    header: list[str] | None = None
    quoted: bool = True
    encoding: str = "utf-8"
    nested: str | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"files": value} if isinstance(value, str | Path) else value

    @pydantic.field_validator("delimiter")
    @classmethod
    def _check_delimiter(cls, value: str | None) -> str | None:
        if value is not None and ("\n" in value or "\r" in value):
            raise UserError("a delimiter cannot hold a line end", where="--delimiter")
        return value

    @pydantic.field_validator("files", mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            value = [value]
        return [path for pattern in value for path in _expanded(Path(pattern))]

    @classmethod
    def of(cls, files: Path | str | list[Path], **how: Any) -> Self:
        """Return the table of a path, a glob or several paths; `how` are the other attributes.

        Raises:
            UserError: no file fits the glob.
        """
        return cls.model_validate({"files": files, **how})

    def __str__(self) -> str:
        """The place for a message: the first file, and how many follow."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0]}{more}"


def _expanded(path: Path) -> list[Path]:
    """The files that a glob stands for; any other path is itself."""
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    root = Path(path.anchor or ".")
    try:
        found = sorted(found for found in root.glob(str(path.relative_to(path.anchor))) if found.is_file())
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"is no pattern ({error})", where=path, mend="write it like part-*.csv") from error
    if not found:
        raise UserError("no file fits this pattern", where=path)
    return found


class Query(pydantic.BaseModel):
    """A table that a database gives; `tables.read_chunks` reads it too.

    Attributes:
        connection: the address of the database, see `connection.read_connection`; it is written without its password.
        query: SQL that returns rows, or the name of a table.
        name: stands where a table has the name of a file.
    """

    connection: str = pydantic.Field(repr=False)
    query: str
    name: str

    @pydantic.field_validator("connection")
    @classmethod
    def _check_connection(cls, value: str) -> str:
        read_connection(value)
        return value

    @pydantic.field_serializer("connection")
    def _without_password(self, value: str) -> str:
        return read_connection(value).shown

    def __str__(self) -> str:
        """The place for a message."""
        return f"{read_connection(self.connection).shown}, {self.name}"


class TableSource(pydantic.BaseModel):
    """Two tables and the names of their columns.

    Attributes:
        interactions: one row per interaction; with `valid` and `test` the training ones.
        items: one row per item.
        valid, test: the interactions of given splits.
        user, item, time, rating, split_column: columns of the interactions.
        item_id, title, metadata: columns of the items.
        defaults: options that suit these tables where the user says nothing else, by the names of `TableOptions`.
        warnings: what a reader of results should know about them.
    """

    interactions: Table | Query
    items: Table | Query
    valid: Table | None = None
    test: Table | None = None
    user: str
    item: str
    time: str | None = None
    rating: str | None = None
    split_column: str | None = None
    item_id: str
    title: str
    metadata: list[str] = []
    defaults: dict[str, Any] = {}
    warnings: list[str] = []

    def with_defaults(self, options: TableOptions) -> TableOptions:
        """The options with `defaults` where nothing was said."""
        unsaid = {name: value for name, value in self.defaults.items() if name not in options.model_fields_set}
        return options.model_copy(update=unsaid)

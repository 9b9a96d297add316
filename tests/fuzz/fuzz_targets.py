"""What is fuzzed: every parser of the importer, each as a function of bytes.

A target raises AssertionError, or whatever the importer raised, if the importer crashed or lost a row. Bytes become a
file (after a first byte that chooses how it is said to be written), and rows are counted here from the bytes, not by
the code under test. `test_fuzz_targets` tries a few inputs of each with every run of the tests; `run.py` searches for
minutes, led by coverage (`make fuzz`).
"""

import atexit
import contextlib
import gzip
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

import fewshot_files
import source_files
from catalign.cli.data_rules import rule_options
from catalign.data.cleaning import as_milliseconds, clean_titles
from catalign.data.fewshot import read_fewshot
from catalign.data.layouts import read_windows, table_source
from catalign.data.ledger import Ledger
from catalign.data.options import FewshotOptions, Query, Table, TableOptions
from catalign.data.prepare import prepare_tables
from catalign.data.sources.window_files import list_of_ids
from catalign.data.tables import column_names, read_table
from catalign.data.titles import TitleFormat
from catalign.errors import UserError

PEOPLE = [(("A", "B"), "C", ("D", "E")), (("B", 'Q "x"'), "A", ("C", "D"))]  # history, target, negatives
COLUMNS = {"user_id": "user", "item_id": "item"}
PLACE = Path(tempfile.mkdtemp(prefix="catalign-fuzz-"))
atexit.register(shutil.rmtree, PLACE, ignore_errors=True)


def _written(name: str, data: bytes) -> Path:
    path = PLACE / name
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def _or_told() -> Iterator[None]:
    """A mistake of the user is one line."""
    try:
        yield
    except UserError as error:
        assert "\n" not in str(error) and str(error), error


def _read(table: Table | Query, rows: int | None) -> None:
    """Read two columns; `rows` is how many must have come in, None if that is not known."""
    ledger = Ledger()
    with _or_told():
        frame = read_table(table, COLUMNS, table_name="t", ledger=ledger)
        assert frame.height == ledger.kept("t"), ledger.dropped
        assert rows is None or ledger.rows_in["t"] == rows, (ledger.rows_in, rows)


def csv(data: bytes) -> None:
    """Delimited text; the rows of unquoted text are its lines."""
    how, data = data[:1] or b"\0", data[1:]
    delimiter = (None, "\t", "::", ";", " ", "|", "é", "\x01")[how[0] % 8]
    quoted, header = bool(how[0] & 8), ["user", "item"] if how[0] & 16 else None
    encoding = ("utf-8", "utf-8", "latin-1", "utf-16")[how[0] >> 6]
    path = _written("log.csv", data)
    rows = None
    if encoding in ("utf-8", "latin-1") and (not quoted or b'"' not in data):
        lines = [line for line in re.split(rb"\r\n|\n|\r", data.removeprefix(b"\xef\xbb\xbf")) if line]
        rows = len(lines) - (header is None)
    _read(Table.of(path, delimiter=delimiter, quoted=quoted, header=header, encoding=encoding), rows)


def json_lines(data: bytes) -> None:
    """Objects, one a line, or Python literals; the rows are the lines that are not blank."""
    path = _written("log.jsonl", data)
    try:
        lines = data.decode().removeprefix("\ufeff").split("\n")
        rows = sum(bool(line.strip()) for line in lines)
    except UnicodeDecodeError:
        rows = None
    _read(Table.of(path), rows)
    with _or_told():
        column_names(Table.of(path, nested="items"))
        read_table(Table.of(path, nested="items"), COLUMNS, table_name="t", ledger=Ledger())


def literals(data: bytes) -> None:
    """The inside of a Python literal between two good lines."""
    good = b"{'user': 'ann', 'item': 1}\n"
    inside = data.replace(b"\n", b" ")
    json_lines(good + b"{'user': " + inside + b", 'item': 2}\n" + good)


def packed(data: bytes) -> None:
    """Damaged gzip and Parquet files."""
    _read(Table.of(_written("log.csv.gz", data)), None)
    _read(Table.of(_written("log.parquet", data)), None)


def windows(data: bytes) -> None:
    """One file of a published layout replaced; two bytes choose which."""
    if len(data) < 2:
        return
    forms = list(source_files.CUT.items())
    name, (layout, write) = forms[data[0] % len(forms)]
    folder = PLACE / name
    if not folder.exists():
        folder.mkdir()
        write(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    _replaced(files[data[1] % len(files)], data[2:], lambda: _windows(folder, layout))


def _windows(folder: Path, layout: str) -> None:
    ledger = Ledger()
    with _or_told():
        published = read_windows(folder, layout, ledger)
        assert published.windows.height == ledger.kept("windows")
        assert published.items.height == ledger.kept("items")
        assert published.windows["history"].null_count() in (0, published.windows.height) or layout == "llara"


def tables(data: bytes) -> None:
    """One file of a layout of two tables replaced, and the whole prepared; two bytes choose which."""
    if len(data) < 2:
        return
    forms = list(source_files.TABLES.items())
    name, (layout, write) = forms[data[0] % len(forms)]
    folder = PLACE / name
    if not folder.exists():
        folder.mkdir()
        write(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file())

    def prepare() -> None:
        with _or_told():
            dataset = prepare_tables(
                table_source(folder, layout), TableOptions(split="leave-one-out"), PLACE / "ds", overwrite=True
            )
            assert dataset.card.rows_kept["interactions"] == dataset.interactions.height
        assert not list(PLACE.glob(".ds.*"))  # nothing half-written

    _replaced(files[data[1] % len(files)], data[2:], prepare)


def _replaced(path: Path, data: bytes, then: Callable[[], None]) -> None:
    whole = path.read_bytes()
    try:
        path.write_bytes(data)
        then()
    finally:
        path.write_bytes(whole)


def fewshot(data: bytes) -> None:
    """One of the few-shot files of DMPO replaced."""
    folder = PLACE / "dmpo"
    if not folder.exists():
        folder.mkdir()
        fewshot_files.write_fewshot(folder, PEOPLE, PEOPLE[1:])
    files = sorted(folder.iterdir())

    def read() -> None:
        with _or_told():
            read_fewshot(folder, FewshotOptions(domain="games"), Ledger())

    _replaced(files[data[0] % len(files)] if data else files[0], data[1:], read)


def values(data: bytes) -> None:
    """Titles, times, lists of ids and formats of titles."""
    texts = data.decode(errors="replace").split("\n")
    column = pl.Series("text", texts, dtype=pl.String)
    assert clean_titles(column).len() == as_milliseconds(column).len() == len(texts)
    lists = column.to_frame().select(list_of_ids(pl.col("text")))
    assert lists.height == len(texts)
    with _or_told():
        frame = pl.DataFrame({"item_id": texts, "title": texts, "brand": [None] * len(texts)}).with_columns(
            pl.col("brand").cast(pl.String), title=clean_titles(column)
        )
        written, _ = TitleFormat(texts[0]).write(frame.drop_nulls("title"), clean=True)
        assert written.len() == frame.drop_nulls("title").height


def sql(data: bytes) -> None:
    """The text of a query to SQLite; what is there stays."""
    path = PLACE / "shop.db"
    if not path.exists():
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE log (user TEXT, item TEXT)")
            database.execute("INSERT INTO log VALUES ('ann', '007'), ('bob', NULL), ('', '1')")
    before = path.read_bytes()
    with _or_told():
        query = Query(connection=f"sqlite:///{path}", query=data.decode(errors="replace"), name="query")
        _read(query, 3 if data.strip().lower() in (b"log", b"select * from log") else None)
    assert path.read_bytes() == before


def rules(data: bytes) -> None:
    """A YAML file of rules."""
    path = _written("rules.yaml", data)
    with _or_told():
        rule_options(path, [], [])


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (csv, json_lines, literals, packed, windows, tables, fewshot, values, sql, rules)
}


def seeds(name: str) -> list[bytes]:
    """Inputs to begin with."""
    if name in ("windows", "tables"):
        return _file_seeds(source_files.CUT if name == "windows" else source_files.TABLES)
    if name == "fewshot":
        folder = PLACE / "seeds-dmpo"
        folder.mkdir(exist_ok=True)
        fewshot_files.write_fewshot(folder, PEOPLE, PEOPLE[1:])
        return [bytes([number]) + path.read_bytes() for number, path in enumerate(sorted(folder.iterdir()))]
    if name == "packed":
        frame = pl.DataFrame({"user": ["ann", None], "item": [1, 2]})
        frame.write_parquet(PLACE / "seed.parquet")
        return [(PLACE / "seed.parquet").read_bytes(), gzip.compress(b"user,item\nann,1\n", mtime=0)]
    return _TEXT_SEEDS[name]


def _file_seeds(forms: dict[str, tuple[str, Callable[[Path], None]]]) -> list[bytes]:
    found = []
    for number, (name, (_, write)) in enumerate(forms.items()):
        folder = PLACE / f"seeds-{name}"
        folder.mkdir(exist_ok=True)
        write(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        found += [bytes([number, place]) + path.read_bytes() for place, path in enumerate(files)]
    return found


_TEXT_SEEDS: dict[str, list[bytes]] = {
    "csv": [
        b"\x08user,item\nann,1\n\"b\nob\",2\n", b"\x01item\tuser\n1\tann\n\n2\tbob\tx\n", b"\x12ann::1\nbob::2\n",
        b"\x80user,item\r\n\xe9,1\r\n", b"\xc0" + "user,item\nann,1\n".encode("utf-16"),
    ],
    "json_lines": [
        b'{"user": "ann", "item": 1}\n\n{"user": null, "item": [1, {"a": "\\ud800"}]}\n[1]\nnull\n',
        b'{"user": "ann", "items": [{"item": 1}, {"item": "2", "user": 3}]}\n', b"{u'user': u'ann', 'item': 1e5}\n",
    ],
    "literals": [b"'ann'", b"[1, (2,), {'a': None}, True]", b"u'\\xe9' 'b'", b"-1.5e3", b'"it\'s"', b"1+2j"],
    "values": [
        b"{title}[ by {brand}]\n<b>A</b> &amp;amp; &#65;\n2018-03-01T12:30:05.5Z\n[(1, 2), ('B0', 3)]\n1e18",
        b"<script>x\n&lt;br&gt;\n2018-02-30\n-9e99\nnan", "\u0301e\u200b\ufeff\n٣\n2018-03-01 +02:00".encode(),
    ],
    "sql": [b"log", b"SELECT user, item FROM log;", b"WITH a AS (SELECT * FROM log) SELECT a.user, 1 AS item FROM a"],
    "rules": [b"k-core: 5\nmin-rating: 3.5\nrepeated-pairs: last\nhtml-tags: off\n", b"{white-space: false}",
              b"k-core: . off", b"2001-99-99: 1", b"[" * 600, b"[1]"],
}  # fmt: skip

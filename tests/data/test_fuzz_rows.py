"""Rows in = rows kept + rows dropped, where the rows are counted by the one who wrote them and not by the importer."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import source_files
from catalign.data.layouts import read_windows
from catalign.data.ledger import Ledger
from catalign.data.options import Query, Table, TableOptions, TableSource
from catalign.data.prepare import prepare_tables
from catalign.errors import UserError
from source_files import TITLES

QUICK = settings(deadline=None, derandomize=True, max_examples=12, suppress_health_check=list(HealthCheck))
FLAWS: dict[str, str] = {
    "user": "no user id", "item": "no item id", "time": "no timestamp",
    "wrong time": "timestamp is neither a number nor ISO 8601", "rating": "rating is not a number",
    "unknown item": "item not in the item table",
}  # fmt: skip
ROWS = st.lists(st.sampled_from([None, None, None, *FLAWS]), min_size=1, max_size=40)
NOISE = st.lists(st.sampled_from(["", "blank", "broken"]), max_size=12)


def row(number: int, flaw: str | None) -> dict[str, Any]:
    """A visit with a flaw or none; titles and ids as they are in bad weather."""
    made: dict[str, Any] = {
        "user": f'u{number % 3}\n"quoted", 7', "item": str(1 + number % 8), "time": str(1_500_000_000 + number),
        "rating": "4.5",
    }  # fmt: skip
    change = {"wrong time": ("time", "soon"), "rating": ("rating", "good"), "unknown item": ("item", "99")}
    key, value = change.get(flaw or "", (flaw, ""))
    return made if flaw is None else {**made, str(key): value}


def check(interactions: Table | Query, rows: list[str | None], unreadable: int, folder: Path) -> None:
    """Prepare the table and compare with what was written."""
    items = folder / "items.csv"
    items.write_text(source_files.table(["id", "title"], list(TITLES.items())))
    source = TableSource(
        interactions=interactions, user="user", item="item", time="time", rating="rating", items=Table.of(items),
        item_id="id", title="title",
    )  # fmt: skip
    sound = sum(flaw is None for flaw in rows)
    try:
        dataset = prepare_tables(source, TableOptions(split="leave-one-out"), folder / "ds", overwrite=True)
    except UserError as error:
        if not sound:  # every row has a flaw: one line says how many of which
            assert "no interaction is left" in str(error)
            assert all(FLAWS[flaw] in str(error) for flaw in rows if flaw is not None)
        else:
            assert "no window is left in" in str(error)  # too few for three splits
        return
    assert dataset.card.rows_in["interactions"] == len(rows) + unreadable
    assert dataset.card.rows_kept["interactions"] == dataset.interactions.height == sound
    dropped = dict(dataset.card.dropped.get("interactions", {}))
    expected = {reason: rows.count(flaw) for flaw, reason in FLAWS.items() if flaw in rows}
    assert {reason: count for reason, count in dropped.items() if reason in expected} == expected
    assert sum(dropped.values()) - sum(expected.values()) == unreadable


def mixed(lines: list[str], noise: list[str], blank: str, broken: str) -> tuple[str, int]:
    """Put noise between the lines; return the text and how many broken lines are in it."""
    parts = list(lines)
    for number, kind in enumerate(noise):
        if kind:
            parts.insert((number * 7) % (len(parts) + 1), blank if kind == "blank" else broken)
    return "".join(parts), noise.count("broken")


@given(rows=ROWS, noise=NOISE, ending=st.sampled_from(["\n", "\r\n"]))
@QUICK
def test_csv(tmp_path: Path, rows: list[str | None], noise: list[str], ending: str) -> None:
    written = [source_files.table([], [list(row(*pair).values())])[1:] for pair in enumerate(rows)]
    text, broken = mixed(written, noise, "\n", "a,b,c,d,e\n")
    (tmp_path / "log.csv").write_bytes(("user,item,time,rating\n" + text).replace("\n", ending).encode())
    check(Table.of(tmp_path / "log.csv"), rows, broken, tmp_path)


@given(rows=ROWS, noise=NOISE, literal=st.booleans())
@QUICK
def test_json_lines_and_literals(tmp_path: Path, rows: list[str | None], noise: list[str], literal: bool) -> None:
    good = [row(*pair) for pair in enumerate(rows)]
    written = [f"{one!r}\n" if literal else json.dumps(one) + "\n" for one in good]
    text, broken = mixed(written, noise, " \t\n", '{"user": "cut\n')
    (tmp_path / "log.jsonl").write_text(text)
    check(Table.of(tmp_path / "log.jsonl"), rows, broken, tmp_path)


@given(rows=ROWS)
@QUICK
def test_parquet_and_sqlite(tmp_path: Path, rows: list[str | None]) -> None:
    frame = pl.DataFrame([row(*pair) for pair in enumerate(rows)], schema=dict.fromkeys(row(0, None), pl.String))
    frame.write_parquet(tmp_path / "log.parquet")
    check(Table.of(tmp_path / "log.parquet"), rows, 0, tmp_path)
    pytest.importorskip("adbc_driver_sqlite")
    (tmp_path / "log.db").unlink(missing_ok=True)
    with closing(sqlite3.connect(tmp_path / "log.db")) as database, database:
        database.execute("CREATE TABLE log (user TEXT, item TEXT, time TEXT, rating TEXT)")
        database.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", frame.rows())
    query = Query(connection=f"sqlite:///{tmp_path / 'log.db'}", query="SELECT * FROM log", name="log")
    check(query, rows, 0, tmp_path)


@given(extra=st.lists(st.sampled_from(["good", "blank", "ragged"]), max_size=20), where=st.integers(0, 9))
@pytest.mark.parametrize("form", ["msl", "d3", "minionerec", "bigrec_games", "bigrec_movies", "llara"])
@QUICK
def test_tables_of_windows(tmp_path: Path, form: str, extra: list[str], where: int) -> None:
    layout, write = source_files.CUT[form]
    write(tmp_path)
    path = next(path for path in sorted(tmp_path.rglob("*.csv")) if "train" in str(path.relative_to(tmp_path)))
    lines = path.read_text().splitlines(keepends=True)
    added = {"good": lines[1], "blank": "\n", "ragged": "x" + "," * 40 + "\n"}
    lines[1 + where : 1 + where] = [added[kind] for kind in extra]
    path.write_text("".join(lines))
    ledger = Ledger()
    published = read_windows(tmp_path, layout, ledger)
    assert ledger.rows_in["windows"] == 30 + extra.count("good") + extra.count("ragged")
    assert published.windows.height == ledger.kept("windows") == 30 + extra.count("good")


@given(extra=st.lists(st.sampled_from(["good", "blank", "bare"]), max_size=20))
@pytest.mark.parametrize(
    ("form", "file"), [("d3", "info.txt"), ("bigrec_games", "id2name.txt"), ("llara", "id2name.txt")]
)
@QUICK
def test_files_of_titles(tmp_path: Path, form: str, file: str, extra: list[str]) -> None:
    layout, write = source_files.CUT[form]
    write(tmp_path)
    lines = (tmp_path / file).read_text().splitlines(keepends=True)
    added = {"good": lines[0], "blank": " \n", "bare": "no id\n"}
    (tmp_path / file).write_text("".join([*lines[:3], *(added[kind] for kind in extra), *lines[3:]]))
    ledger = Ledger()
    items = read_windows(tmp_path, layout, ledger).items
    assert ledger.rows_in["items"] == 8 + extra.count("good") + extra.count("bare")
    assert items.height == 8 + extra.count("good")


@given(bare=st.sets(st.integers(0, 9)), lines=st.booleans())
@QUICK
def test_instructions(tmp_path: Path, bare: set[int], lines: bool) -> None:
    source_files.instructions(tmp_path)
    rows = json.loads((tmp_path / "train.json").read_text())
    for number in bare:
        rows[number]["input"] = "The user has played nothing."
    text = "".join(json.dumps(one) + "\n\n" for one in rows) if lines else json.dumps(rows)
    (tmp_path / "train.json").write_text(text)
    ledger = Ledger()
    if len(bare) == 10:
        with pytest.raises(UserError, match="is no file of windows"):
            read_windows(tmp_path, "instructions", ledger)
        return
    assert read_windows(tmp_path, "instructions", ledger).windows.height == 30 - len(bare)
    assert ledger.rows_in["windows"] == 30


def test_repeated_ids_of_a_json_object_are_counted(tmp_path: Path) -> None:
    source_files.msl(tmp_path)
    path = tmp_path / "id2name4Rec.json"
    path.write_text('{"1": "Other", "9": null, ' + path.read_text().lstrip("{"))
    ledger = Ledger()
    items = read_windows(tmp_path, "msl", ledger).items
    assert items.height == ledger.rows_in["items"] == 10
    assert items["item_id"].to_list().count("1") == 2  # `settle_items` keeps the first and counts the other

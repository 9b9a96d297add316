"""A batch through the command line: every row's own wishes, mistakes before anything is computed, and going on."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from catalign.batch import requests
from catalign.batch.answering import PartAnswerer
from catalign.recommender import Recommender
from toy import catalign, mistake, works

PEOPLE = 40
PARTS = ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet", "part-00003.parquet"]


def add_metadata(run: Path) -> Path:
    """Give the items of a run a colour and a price."""
    file = run / "catalogue" / "catalogue.parquet"
    pl.read_parquet(file).with_columns(
        colour=pl.col("title").str.split(" ").list.first(), price=pl.int_range(pl.len()).cast(pl.Float64)
    ).write_parquet(file)
    return run


@pytest.fixture(scope="module")
def shop_run(toy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the toy world with metadata; only read it."""
    run = tmp_path_factory.mktemp("runs") / "shop"
    shutil.copytree(toy_run, run)
    return add_metadata(run)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def people(count: int = PEOPLE) -> list[dict[str, Any]]:
    """Rows with wishes of their own, some of them all at once."""
    draw = random.Random(0)
    rows = []
    for number in range(count):
        row: dict[str, Any] = {"user_id": f"u{number}", "history": draw.sample(IDS, draw.randint(1, 9))}
        wishes = {
            "k": draw.choice([1, 3, 15]),
            "filters": {"colour": ["red", "blue", "white"]} if number % 2 else {"price": {"max": 14}},
            "exclude": draw.sample(IDS, 3),
            "candidates": draw.sample(IDS, 9),
            "catalogue": "small",
        }
        rows.append(row | {name: wish for name, wish in wishes.items() if draw.random() < 0.4})
    return rows


IDS = [f"i{number:03d}" for number in range(24)]
SMALL = IDS[2:20]


def write_people(rows: list[dict[str, Any]], path: str = "in.jsonl") -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    pl.DataFrame({"item_id": SMALL}).write_csv("small.csv")


def asked(run: Path, *more: object, output: str = "recs") -> tuple[object, ...]:
    return ("recommend", run, "--input", "in.jsonl", "--output", output, "--part-rows", 10, "--catalogue",
            "small=small.csv", *more)  # fmt: skip


def found(folder: str = "recs") -> pl.DataFrame:
    return pl.read_parquet(f"{folder}/part-*.parquet")


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_every_row_gets_what_it_asks_for(shop_run: Path) -> None:
    rows = people()
    write_people(rows)
    said = works(*asked(shop_run))
    assert said.startswith(f"recs: recommendations for {PEOPLE} people in 4 parts; ")
    told = found()
    assert told["user_id"].to_list() == [row["user_id"] for row in rows]
    recommender = Recommender.load(shop_run)
    catalogue = recommender.catalogue
    price = dict(zip(catalogue.item_ids, range(len(catalogue)), strict=True))
    colour = {item: title.split(" ")[0] for item, title in zip(catalogue.item_ids, catalogue.titles, strict=True)}
    everything = recommender.recommend_many([row["history"] for row in rows], k=24, exclude_history=False)
    short = 0
    for row, ranked, items, titles, probabilities in zip(
        rows, everything, told["items"], told["titles"], told["probabilities"], strict=True
    ):
        filters = row.get("filters", {})
        left = [
            one for one in ranked
            if one.item_id not in {*row["history"], *row.get("exclude", [])}
            and one.item_id in row.get("candidates", IDS)
            and ("catalogue" not in row or one.item_id in SMALL)
            and price[one.item_id] <= filters.get("price", {"max": 99})["max"]
            and colour[one.item_id] in filters.get("colour", colour.values())
        ][: row.get("k", 10)]  # fmt: skip
        assert items.to_list() == [one.item_id for one in left]
        assert titles.to_list() == [one.title for one in left]
        assert probabilities.to_list() == pytest.approx([one.probability for one in left], rel=1e-3)
        short += len(left) < row.get("k", 10)
    manifest = json.loads(Path("recs/_manifest.json").read_text())
    assert short and manifest["short"] == short and manifest["users"] == PEOPLE and manifest["rejected"] == {}
    assert listing(Path("recs")) == ["_manifest.json", "_settings.json", *PARTS]
    assert {name: part["rows"] for name, part in manifest["parts"].items()} == dict.fromkeys(PARTS, 10)


def test_every_kind_of_input_says_the_same(shop_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "CHECKED_AT_ONCE", 7)
    rows = people(24)
    write_people(rows)
    frame = pl.DataFrame(
        [row | {"filters": json.dumps(row.get("filters", {}))} for row in rows], infer_schema_length=None
    )
    lists = ("history", "exclude", "candidates")
    Path("parts/deep").mkdir(parents=True)
    frame.head(5).write_parquet("parts/a.parquet")
    frame[5:16].with_columns(pl.col(lists).list.join("|")).rename({"user_id": "user_id"}).write_csv("parts/b.csv")
    frame[16:].with_columns(pl.col(lists).list.join(";")).select(
        "user_id", *lists, "k", "catalogue", "filters"
    ).write_csv("parts/deep/c.tsv", separator="\t")
    Path("parts/_ignored.csv").write_text("no")
    # The last file has another delimiter inside its lists, so it is read on its own as well.
    works(*asked(shop_run, "-k", 4))
    said = mistake("recommend", shop_run, "--input", "parts", "--output", "mixed", "--catalogue", "small=small.csv")
    assert "parts/deep/c.tsv, row 2: history no item has the id or title" in said
    shutil.move("parts/deep/c.tsv", "c.tsv")
    common = ("--catalogue", "small=small.csv", "-k", 4)
    works("recommend", shop_run, "--input", "parts", "--output", "mixed", *common)
    works("recommend", shop_run, "--input", "c.*", "--output", "last", "--delimiter", ";", *common)
    both = pl.concat([found("mixed"), found("last")])
    assert both.drop("probabilities").equals(found().drop("probabilities"))


BAD = [
    ({"user_id": "v", "history": ["i001", "gone"]}, 'history no item has the id or title "gone"'),
    ({"user_id": "v", "history": []}, "history is empty"),
    ({"user_id": "v"}, "history is empty"),
    ({"user_id": "", "history": ["i001"]}, "user is empty"),
    ({"history": ["i001"]}, "user is empty"),
    ({"user_id": "v", "history": ["i001"], "k": 0}, "k 0 is no whole number from 1 to 24"),
    ({"user_id": "v", "history": ["i001"], "k": 25}, "k 25 is no whole number from 1 to 24"),
    ({"user_id": "v", "history": ["i001"], "filters": '{"price"'}, 'filters is no JSON: {"price"'),
    ({"user_id": "v", "history": ["i001"], "filters": {"size": 3}}, "filters 'size': the catalogue has no such column"),
    ({"user_id": "v", "history": ["i001"], "exclude": ["gone"]}, 'exclude no item has the id or title "gone"'),
    ({"user_id": "v", "history": ["i001"], "candidates": []}, "candidates names no item"),
    ({"user_id": "v", "history": ["i001"], "catalogue": "tiny"}, "catalogue no catalogue has this name; there are"),
    ({"user_id": "u3", "history": ["i001"]}, 'user "u3" stands in the input a second time'),
]  # fmt: skip


@pytest.mark.parametrize(("row", "said"), BAD)
def test_a_bad_row_is_named_before_anything_is_computed(
    shop_run: Path, place: Path, row: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PartAnswerer, "__init__", lambda *_: pytest.fail("a model is loaded"))
    write_people([*people(12), row, *people(20)[12:]])
    before = listing(place)
    assert f"in.jsonl, row 13: {said}" in mistake(*asked(shop_run))
    assert listing(place) == before


def test_a_line_that_is_no_row(shop_run: Path) -> None:
    write_people(people(3))
    with Path("in.jsonl").open("a") as file:
        file.write("{broken\n")
    assert "in.jsonl, row 4: line is not JSON: {broken" in mistake(*asked(shop_run))
    Path("in.jsonl").write_text("user_id,history\nu1,i001\nu2,i001,i002\n")
    shutil.move("in.jsonl", "in.csv")
    said = mistake("recommend", shop_run, "--input", "in.csv", "--output", "recs")
    assert "in.csv, row 3: line is not 2 fields, as the header has: u2,i001,i002" in said


def test_bad_rows_are_skipped_counted_and_written_down(shop_run: Path) -> None:
    good = people(20)
    write_people([*good[:15], *(row for row, _ in BAD), *good[15:]])
    with Path("in.jsonl").open("a") as file:
        file.write("{broken\n")
    said = works(*asked(shop_run, "--bad-rows", "skip"))
    assert "recommendations for 20 people in" in said and "rows skipped for" in said
    told = found()
    assert told["user_id"].to_list() == [row["user_id"] for row in good]
    rejects = pl.read_ndjson("recs/_rejects.jsonl", infer_schema_length=None)
    assert sorted(rejects["row"].to_list()) == [*range(16, 16 + len(BAD)), 34]
    reasons = dict(zip(rejects["row"], rejects["column"] + " " + rejects["reason"], strict=True))
    assert all(reasons[16 + number].startswith(words) for number, (_, words) in enumerate(BAD))
    counts = json.loads(Path("recs/_manifest.json").read_text())["rejected"]
    assert sum(counts.values()) == len(BAD) + 1 == len(rejects) and counts["history"] == 3 and counts["line"] == 1
    write_people(good)
    works(*asked(shop_run, output="clean"))
    assert found("clean").drop("probabilities").equals(told.drop("probabilities"))


def test_nobody_is_nothing(shop_run: Path) -> None:
    pl.DataFrame(schema={"user_id": pl.String, "history": pl.List(pl.String)}).write_parquet("in.parquet")
    said = works("recommend", shop_run, "--input", "in.parquet", "--output", "recs")
    assert "recommendations for 0 people in 1 parts" in said
    assert found().columns == ["user_id", "items", "titles", "probabilities"] and found().is_empty()


def test_options_that_mean_nothing(shop_run: Path, place: Path) -> None:
    write_people(people(4))
    pl.DataFrame({"item_id": ["gone"]}).write_csv("wrong.csv")
    before = listing(place)
    for options, said in [
        (("-k", 30), "-k 30: the catalogue has 24 items"),
        (("--user", "items"), "--user items: the output has a column of this name"),
        (("--user", "customer"), "in.jsonl: there is no column 'customer'"),
        (("--catalogue", "small"), "--catalogue: 'small' is no NAME=FILE"),
        (("--catalogue", "small=x.csv"), "--catalogue: 'small' is named twice"),
        (("--catalogue", "more=wrong.csv"), 'wrong.csv: no item has the id or title "gone"'),
        (("--catalogue", "more=none.csv"), "none.csv: no such file"),
        (("--workers", 2), "--workers: goes with --engine ray"),
        (("--engine", "ray", "--workers", "3:2"), "--workers: 3:2 is no number of workers"),
    ]:
        assert said in mistake(*asked(shop_run, *options))
    Path("recs.jsonl").touch()
    said = mistake(
        "recommend", shop_run, "--input", "in.jsonl", "--output", "out.parquet", "--bad-rows", "skip", "--user", "x"
    )
    assert "--user, --bad-rows: goes with --input and a folder as --output" in said
    Path("recs.jsonl").unlink()
    assert listing(place) == before


def test_folders_that_hold_something_else(shop_run: Path, place: Path) -> None:
    write_people(people(4))
    Path("recs").mkdir()
    Path("recs/mine.txt").write_text("mine")
    assert "recs: holds something that is no recommendations, so it is left alone" in mistake(
        *asked(shop_run, "--overwrite")
    )
    Path("file").touch()
    assert "file: a file is in the way" in mistake(*asked(shop_run, output="file"))
    Path("empty").mkdir()
    assert "empty: holds no table" in mistake("recommend", shop_run, "--input", "empty", "--output", "x")
    shutil.copy("in.jsonl", "empty/in.jsonl")
    for inside in ("empty", "empty/recs", "."):
        said = mistake("recommend", shop_run, "--input", "empty", "--output", inside)
        assert f"{inside}: holds the input or lies in it" in said


class Killed(BaseException):
    """What no code expects, as if the process had been killed."""


@pytest.fixture
def whole(shop_run: Path) -> Iterator[pl.DataFrame]:
    """What an uninterrupted batch gives."""
    write_people(people())
    works(*asked(shop_run, output="whole"))
    yield found("whole")


@pytest.mark.parametrize("written", [0, 1, 3])
def test_a_killed_batch_goes_on_where_it_was(
    shop_run: Path, whole: pl.DataFrame, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, parts = PartAnswerer.write, []

    def dies(self: PartAnswerer, part: int) -> None:
        if len(parts) == written:
            Path("recs/.part-00003.parquet.partial-1").write_text("half")
            raise Killed
        write(self, part)
        parts.append(part)

    monkeypatch.setattr(PartAnswerer, "write", dies)
    with pytest.raises(Killed):
        catalign(*asked(shop_run))
    assert not Path("recs/_manifest.json").exists() and Path("recs/_requests").exists()
    monkeypatch.setattr(PartAnswerer, "write", lambda self, part: (parts.append(part), write(self, part)))
    kept = {name: Path("recs", name).stat().st_mtime_ns for name in PARTS[:written]}
    ended = catalign(*asked(shop_run))
    assert ended.code == 0 and f"{PEOPLE} people in 4 parts, {written} of them done" in ended.err
    assert parts == [0, 1, 2, 3], "each part is computed once"
    assert kept == {name: Path("recs", name).stat().st_mtime_ns for name in PARTS[:written]}
    assert found().equals(whole)
    assert listing(Path("recs")) == listing(Path("whole"))
    assert json.loads(Path("recs/_manifest.json").read_text()) == json.loads(Path("whole/_manifest.json").read_text())


def test_a_torn_part_is_made_again(shop_run: Path, whole: pl.DataFrame) -> None:
    def dies(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("catalign.batch.run._finish", dies)
        catalign(*asked(shop_run))
    torn, other = Path("recs") / PARTS[1], Path("recs") / PARTS[2]
    torn.write_bytes(torn.read_bytes()[:-30])
    shutil.copy(Path("recs") / PARTS[3], other)  # whole, but of other people
    assert "4 parts, 2 of them done" in catalign(*asked(shop_run)).err
    assert found().equals(whole)


def test_a_finished_batch_is_left_as_it_is(
    shop_run: Path, whole: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PartAnswerer, "__init__", lambda *_: pytest.fail("a model is loaded"))
    before = {path: path.stat().st_mtime_ns for path in Path("whole").iterdir()}
    assert works(*asked(shop_run, output="whole")).startswith(f"whole: recommendations for {PEOPLE} people in 4 parts")
    assert before == {path: path.stat().st_mtime_ns for path in Path("whole").iterdir()}


def test_another_batch_is_not_mixed_in(shop_run: Path, whole: pl.DataFrame) -> None:
    before = found("whole")
    assert "whole: holds predictions of other settings (k 10 there, 3 now)" in mistake(
        *asked(shop_run, "-k", 3, output="whole")
    )
    write_people(people(41))
    assert "(input '1 files " in mistake(*asked(shop_run, output="whole"))
    write_people([*people(5), {"user_id": "v", "history": []}])
    assert "history is empty" in mistake(*asked(shop_run, "--overwrite", output="whole"))
    assert found("whole").equals(before), "a refused input replaces nothing"
    write_people(people(5))
    works(*asked(shop_run, "--overwrite", output="whole"))
    assert len(found("whole")) == 5


def test_a_search_of_candidates_needs_no_metadata(toy_run: Path) -> None:
    write_people([{"user_id": "u", "history": ["i001"], "candidates": ["i003", "i007"]}])
    works("recommend", toy_run, "--input", "in.jsonl", "--output", "recs")
    assert sorted(found()["items"][0]) == ["i003", "i007"]
    write_people([{"user_id": "u", "history": ["i001"], "filters": {"price": 3}}])
    said = mistake("recommend", toy_run, "--input", "in.jsonl", "--output", "other")
    assert "the catalogue of this run has no metadata" in said


def start(*arguments: object) -> "subprocess.Popen[str]":
    """A batch in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "catalign", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for_part(process: "subprocess.Popen[str]", folder: Path, parts: int = 1) -> None:
    """Return when so many parts are there."""
    deadline = time.monotonic() + 400
    while len(list(folder.glob("part-*.parquet"))) < parts:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)])
def test_a_real_signal(shop_run: Path, number: signal.Signals, code: int) -> None:
    write_people(people(600))
    process = start(*asked(shop_run))
    wait_for_part(process, Path("recs"), parts=random.Random().randint(1, 6))
    process.send_signal(number)
    _, err = process.communicate(timeout=100)
    assert process.returncode == code
    if number == signal.SIGTERM:
        assert "stopped; the same command goes on where it was" in err and "Traceback" not in err
    assert 0 < len(list(Path("recs").glob("part-*.parquet"))) < 60
    works(*asked(shop_run))
    works(*asked(shop_run, output="whole"))
    assert found().equals(found("whole")) and len(found()) == 600


@pytest.mark.slow
def test_processes_of_a_launcher_share_the_parts(shop_run: Path, whole: pl.DataFrame) -> None:
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "catalign",
    ]
    ran = subprocess.run(
        [*torchrun, *map(str, asked(shop_run))], capture_output=True, text=True, timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert (
        ran.stdout.startswith(f"recs: recommendations for {PEOPLE} people in 4 parts") and ran.stdout.count("\n") == 1
    )
    assert found().equals(whole)

"""Recommendations for every row of a file, through the command line."""

from pathlib import Path

import polars as pl
import pytest

from catalign import recommend_file
from catalign.recommender import Recommender
from toy import works

ROWS = pl.DataFrame(
    {"user": [7, 8, 9], "history": [["i001", "i002"], ["red lamp"], ["i005"] * 30], "note": ["a", None, "ü"]}
)


def write(frame: pl.DataFrame, path: Path) -> Path:
    (frame.write_parquet if path.suffix == ".parquet" else frame.write_ndjson)(path)
    return path


@pytest.mark.parametrize("source", ["in.parquet", "in.jsonl", "in.ndjson"])
@pytest.mark.parametrize("output", ["out.parquet", "new/out.jsonl"])
def test_each_row_gets_its_items(
    toy_run: Path, tmp_path: Path, source: str, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommend_file, "CHUNK", 2)
    read = write(ROWS, tmp_path / source)
    said = works("recommend", toy_run, "--input", read, "--output", tmp_path / output, "-k", 3)
    assert said.endswith("recommendations for 3 histories\n")
    path = tmp_path / output
    found = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ndjson(path)
    assert found.select("user", "history", "note").equals(ROWS)
    alone = Recommender.load(toy_run).recommend_many(ROWS["history"].to_list(), k=3)
    assert found["items"].to_list() == [[item.item_id for item in items] for items in alone]
    assert found["titles"].to_list() == [[item.title for item in items] for items in alone]
    for row, items in zip(found["probabilities"].to_list(), alone, strict=True):
        assert row == pytest.approx([item.probability for item in items], rel=1e-3)
    assert sorted(tmp_path.iterdir()) == sorted({read, tmp_path / output.split("/")[0]}), "nothing else is left"


def test_no_rows_give_no_rows(toy_run: Path, tmp_path: Path) -> None:
    read = write(ROWS.clear(), tmp_path / "in.parquet")
    works("recommend", toy_run, "--input", read, "--output", tmp_path / "out.parquet")
    found = pl.read_parquet(tmp_path / "out.parquet")
    assert found.columns == ["user", "history", "note", "items", "titles", "probabilities"] and found.is_empty()


def test_ids_may_be_numbers_in_the_file(toy_run: Path, tmp_path: Path) -> None:
    frame = recommend_file.read_histories(write(pl.DataFrame({"history": [[1, 2], [3]]}), tmp_path / "in.parquet"))
    assert frame["history"].to_list() == [[1, 2], [3]]


def test_an_output_is_replaced_when_asked(toy_run: Path, tmp_path: Path) -> None:
    read = write(ROWS, tmp_path / "in.parquet")
    (tmp_path / "out.parquet").write_text("old")
    works("recommend", toy_run, "--input", read, "--output", tmp_path / "out.parquet", "--overwrite", "-k", 1)
    assert pl.read_parquet(tmp_path / "out.parquet")["items"].list.len().to_list() == [1, 1, 1]

"""A comparison in print: every format says the same, and nothing is lost or cut."""

import io
import json
import re
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from catalign.data.dataset import load_dataset
from catalign.evaluation.comparison import Comparison, compare
from catalign.evaluation.comparison_table import FORMATS, as_csv, as_json, as_latex, as_markdown, as_rich, as_terminal
from made_runs import lists_with_target_at, made_run


@pytest.fixture(scope="module")
def comparison(toy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two seeds of one method, one of another, the floor, two metrics that are three names, slices."""
    data, place = load_dataset(toy_dataset), tmp_path_factory.mktemp("runs")
    runs = [
        made_run(place / name, data, lists_with_target_at(data, places), seed=seed, recipe={"epochs": epochs})
        for name, places, seed, epochs in (
            ("msl_a|b-seed0", [1, 2, 0], 0, 3),
            ("msl_a|b-seed1", [1, 1, 0], 1, 3),
            ("50% & more", [3, 0, 0], 0, 9),
        )
    ]
    return compare(runs, metrics=["ndcg@10", "recall@5"], floor=True, by=["history-length", "warm"])


def flat(text: str) -> str:
    return " ".join(text.split())


def test_the_terminal_shows_every_row_with_its_numbers(comparison: Comparison) -> None:
    text = as_terminal(comparison)
    for row in comparison.rows:
        cell = row.metrics["ndcg@10"]
        assert row.label in text
        assert f"({cell.low:.4f} – {cell.high:.4f})".replace("0.", ".") in text
    spread = comparison.rows[3].spread["ndcg@10"]
    assert f"± {spread.deviation:.4f}".replace("0.", ".") in text
    assert "NDCG@10 by history-length" in text and "What is recommended (first 10)" in text
    assert "With one target RECALL@5 is HR@5." in text
    assert f"Differences to {comparison.reference} (the best row of these very windows, which flatters it)" in flat(
        text
    )
    assert "corrected after Holm for 8 differences" in flat(text)  # four rows against one, two metrics
    assert flat(text).count("Caution:") == len(comparison.cautions) > 0


def test_a_narrow_terminal_loses_nothing(comparison: Comparison) -> None:
    buffer = io.StringIO()
    Console(file=buffer, width=80, color_system=None, force_terminal=False).print(as_rich(comparison))
    assert max(map(len, buffer.getvalue().splitlines())) <= 80
    assert "…" not in buffer.getvalue()


def test_markdown_has_whole_tables(comparison: Comparison) -> None:
    blocks = [block for block in as_markdown(comparison).split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4
    for block in blocks:
        lines = re.sub(r"\\\|", "", block).splitlines()
        assert len({line.count("|") for line in lines}) == 1
    assert len(blocks[0].splitlines()) == 2 + len(comparison.rows)
    assert "| msl_a\\|b | " in blocks[0]
    assert len(blocks[2].splitlines()) == 2 + len(comparison.slice_tables[0].slices)


def test_latex_writes_out_what_would_be_a_command(comparison: Comparison) -> None:
    text = as_latex(comparison)
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == 4
    assert r"50\% \& more & " in text and r"msl\_a|b & " in text
    assert "–" not in text.replace("% ", "").split("\n% ")[0]
    for block in re.findall(r"\\midrule\n(.*?)\\bottomrule", text, flags=re.DOTALL):
        assert len({re.sub(r"\\&", "", line).count("&") for line in block.strip().splitlines()}) == 1
    assert re.search(r"\$-\$\.\d{4}", text)


def test_csv_has_a_line_for_every_number(comparison: Comparison) -> None:
    table = pl.read_csv(as_csv(comparison).encode())
    slices = sum(len(found.slices) for found in comparison.slice_tables)
    assert len(table) == len(comparison.rows) * (len(comparison.metrics) + slices)
    whole = table.filter(pl.col("slice").is_null() | (pl.col("slice") == ""))
    assert whole["mean"].to_list() == pytest.approx(
        [cell.mean for row in comparison.rows for cell in row.metrics.values()]
    )
    reference = table.filter(pl.col("method") == comparison.reference)
    assert reference["difference"].null_count() == len(reference)
    assert set(whole.filter(pl.col("method") == "msl_a|b")["seeds"]) == {2}


def test_json_holds_everything(comparison: Comparison) -> None:
    found = json.loads(as_json(comparison), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["reference"] == comparison.reference and found["metrics"] == ["ndcg@10", "recall@5"]
    for row, there in zip(comparison.rows, found["rows"], strict=True):
        assert there["metrics"]["ndcg@10"]["mean"] == row.metrics["ndcg@10"].mean
        assert there["lists"]["coverage"] == (row.lists.coverage if row.lists else None)
    assert found["rows"][-1]["calibration"]["bins"][0]["n"] > 0
    assert [caution["kind"] for caution in found["cautions"]] == [caution.kind for caution in comparison.cautions]


@pytest.mark.parametrize("name", FORMATS)
def test_one_run_alone_is_a_table_too(name: str, toy_dataset: Path, tmp_path: Path) -> None:
    data = load_dataset(toy_dataset)
    text = FORMATS[name](compare([made_run(tmp_path / "msl", data, lists_with_target_at(data, [1, 0]))]))
    assert "msl" in text and "Differences to" not in text and text.endswith("\n")

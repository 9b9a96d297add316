"""The few-shot files of DMPO: how they are read, repaired and counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from catalign.data.dataset import Dataset, load_dataset
from catalign.data.fewshot import DOMAINS
from catalign.data.inspect import describe
from catalign.data.options import FewshotOptions
from catalign.data.prepare import prepare_fewshot
from catalign.errors import UserError
from conftest import SHARED
from fewshot_files import instruction, ordered, write_fewshot
from toy import mistake, works


def windows_as_titles(dataset: Dataset, split: str) -> list[dict[str, Any]]:
    titles = dataset.items["title"].to_list()
    rows = dataset.windows(split).to_dicts()
    for row in rows:
        row["history"] = [titles[item] for item in row["history"]]
        row["target"] = titles[row["target"]]
        row["negatives"] = [titles[item] for item in row["negatives"]]
    return rows


def prepared(folder: Path, output: Path, domain: str = "games", **options: Any) -> Dataset:
    return prepare_fewshot(folder, FewshotOptions(domain=domain, **options), output)  # type: ignore[arg-type]


def test_rows_hold_what_the_prompts_say(tmp_path: Path) -> None:
    train = [(["A", "B"], "C", ["D", "E"], [True, False]), (["B", "F", "G"], "H", ["A", "D"], [False, False])]
    test = [(["K", "A"], "B", ["H"], [True])]
    dataset = prepared(write_fewshot(tmp_path, train, test, sft_first=[False, True]), tmp_path / "ds")
    first, second = windows_as_titles(dataset, "train")
    assert first == {
        "user_id": "train-1", "history": ["A", "B"], "target": "C", "timestamp": None,
        "negatives": ["D", "E"], "target_first": [True, False], "target_first_sft": False,
    }  # fmt: skip
    assert second["negatives"] == ["A", "D"] and second["target_first_sft"] is True
    (only,) = windows_as_titles(dataset, "test")
    assert only["user_id"] == "test-1" and only["negatives"] == ["H"] and only["target_first"] == [True]
    assert only["target_first_sft"] is None
    assert dataset.windows("valid").is_empty() and dataset.windows("valid").schema == dataset.windows("test").schema
    assert dataset.items["title"].to_list() == ["K", "A", "B", "H", "C", "D", "F", "G", "E"]  # evaluation titles first
    assert dataset.card.dropped == {} and dataset.card.layout == "dmpo" and dataset.card.options["history"] == 3


def test_interactions_are_history_and_target_in_order(tmp_path: Path) -> None:
    dataset = prepared(write_fewshot(tmp_path, [(["A", "B"], "C", ["D"])], [(["D"], "A", ["B"])]), tmp_path / "ds")
    log = dataset.interactions.join(dataset.items.with_row_index("item"), on="item", maintain_order="left")
    assert log.select("user_id", "title", "split").rows() == [
        ("train-1", "A", "train"), ("train-1", "B", "train"), ("train-1", "C", "train"),
        ("test-1", "D", "test"), ("test-1", "A", "test"),
    ]  # fmt: skip
    assert log["timestamp"].null_count() == log.height


def test_titles_are_cleaned_and_spellings_of_one_title_are_one_item(tmp_path: Path) -> None:
    train = [([" Tom &amp; Jerry", "B"], "C ", ["D"])]
    test = [(["Tom &amp; Jerry"], "C", ["D"])]
    dataset = prepared(write_fewshot(tmp_path, train, test), tmp_path / "ds")
    assert dataset.items.rows() == [("Tom &amp; Jerry", "Tom & Jerry"), ("C", "C"), ("D", "D"), ("B", "B")]
    assert dataset.card.dropped == {"items": {"title of an earlier item (merged)": 2}}
    assert dataset.card.rows_in["items"] == 6 and dataset.card.titles.changed == 3
    as_is = prepared(tmp_path, tmp_path / "raw", clean=False)
    assert as_is.items.height == 6 and as_is.card.titles.changed == 0


def test_ml_1m_has_one_form_and_remakes_share_it(tmp_path: Path) -> None:
    """`Cut` titles of training and full titles of the evaluation meet; Psycho is two films and one item."""
    train = [(["Sound of Music", "Psycho "], "Heat ", ["Killer", "Killer "])]
    test = [
        (["Sound of Music, The (1965)", "Psycho (1960)"], "Heat (1995)", ["Tarzan (1999)"]),
        (["Psycho (1998)"], "Killer, The (Die xue shuang xiong) (1989)", ["Heat (1995)"]),
        (["Psycho (1960)"], "Psycho (1998)", ["Heat (1995)"]),
        (["Psycho (1960)"], "Heat (1995)", ["Psycho (1998)"]),
    ]
    dataset = prepared(write_fewshot(tmp_path, train, test, domain="ml-1m"), tmp_path / "ds", domain="ml-1m")
    assert dataset.items["title"].to_list() == ["Sound of Music", "Psycho", "Heat", "Tarzan", "Killer"]
    assert dataset.items["item_id"][0] == "Sound of Music, The (1965)"
    (row,) = windows_as_titles(dataset, "train")
    assert (row["history"], row["target"], row["negatives"]) == (["Sound of Music", "Psycho"], "Heat", ["Killer"])
    assert [row["user_id"] for row in windows_as_titles(dataset, "test")] == ["test-1", "test-2"]
    assert dataset.card.dropped["windows"] == {"title of the target in the history": 1, "no negative left": 1}
    assert dataset.card.dropped["negatives"] == {"title in the history": 1, "named twice": 1}
    assert dataset.card.rows_in["negatives"] == 2 + 3 and dataset.card.rows_kept["windows"] == 3
    (warning,) = dataset.card.warnings
    assert warning.startswith("6 titles were cut") and "2 of them share 1 titles" in warning


def test_an_evaluation_user_of_the_training_file_goes(tmp_path: Path) -> None:
    leaked = (["A", "B"], "C", ["D"])
    test = [leaked, (["A", "B"], "C", ["E"]), (["A"], "C", ["D"])]
    dataset = prepared(write_fewshot(tmp_path, [(["A", "B"], "C", ["D", "E"])], test), tmp_path / "ds")
    assert dataset.windows("test")["user_id"].to_list() == ["test-2", "test-3"]
    assert dataset.card.dropped == {"windows": {"evaluation user who is a training user too": 1}}
    (reject,) = [json.loads(line) for line in (tmp_path / "ds" / "rejects.jsonl").read_text().splitlines()]
    assert reject["row"] == 1 and reject["file"].endswith("_eval_ranking.json")


def test_a_dataset_without_validation_can_be_looked_at(tmp_path: Path) -> None:
    write_fewshot(tmp_path, [(["A", "B", "F"], "C", ["D"])], [(["D", "E"], "A", ["B"])])
    works("data", "prepare", tmp_path, "--domain", "games", "--history", 2, "--output", tmp_path / "ds")
    dataset = load_dataset(tmp_path / "ds")
    assert windows_as_titles(dataset, "train")[0]["history"] == ["B", "F"] and dataset.card.options["history"] == 2
    assert describe(dataset)["splits"]["valid"]["cold_target_share"] is None
    assert "–" in works("data", "inspect", tmp_path / "ds")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--domain is not given; choose from games, movies, ml-1m"),
        (["--domain", "books"], "there is no domain 'books'; choose from games, movies, ml-1m"),
        (["--domain", "movies"], "rec_Amazon_Movie_sft_ranking.json: no such file"),
        (["--domain", "games", "--k-core", 5], "--k-core goes with tables of interactions"),
        (["--domain", "games", "--min-history", 2], "--min-history goes with the other layouts"),
        (["--domain", "games", "--train-file", "x"], "--train-file goes with layouts of windows"),
        (["--domain", "games", "--layout", "shop"], "--domain goes with the layout dmpo"),
    ],
)
def test_mistakes(tmp_path: Path, options: list[object], words: str) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    write_fewshot(folder, [(["A"], "C", ["D"])], [(["B"], "A", ["D"])])
    assert words in mistake("data", "prepare", folder, *options, "--output", tmp_path / "ds")
    assert not (tmp_path / "ds").exists()


def broken(**changes: Any) -> list[dict[str, Any]]:
    return [{"instruction": instruction("games", ["A"], "C", "D"), "input": "", "output": ordered("C", "D")} | changes]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({}, "is not a JSON list of instruction, input and output"),
        ([{"instruction": "x"}], "is not a JSON list of instruction, input and output"),
        (broken(output=5), "outputs must be all texts or all pairs of texts"),
        (broken(instruction="Which?"), "row 1: is not the published prompt with a pair and its order: 'Which?'"),
        (broken(output=ordered("C", "E")), "row 1: is not the published prompt"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path: Path, rows: Any, words: str) -> None:
    write_fewshot(tmp_path, [(["A"], "C", ["D"])], [(["B"], "A", ["D"])])
    (tmp_path / "rec_Amazon_Game_eval_ranking.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match="eval_ranking") as refused:
        prepared(tmp_path, tmp_path / "ds")
    assert words in str(refused.value)


def test_preferences_of_other_users_are_refused(tmp_path: Path) -> None:
    """As in the published Amazon files of one negative."""
    write_fewshot(tmp_path, [(["A"], "C", ["D"])], [(["B"], "A", ["D"])])
    path = tmp_path / "rec_Amazon_Game_dpo_ranking_5.json"
    other = {"instruction": instruction("games", ["B"], "C", "D"), "output": [ordered("C", "D"), ordered("D", "C")]}
    path.write_text(json.dumps([other]))
    with pytest.raises(UserError, match="holds users that the SFT file lacks"):
        prepared(tmp_path, tmp_path / "ds")
    other["instruction"] = instruction("games", ["A"], "C", "E")
    path.write_text(json.dumps([other | {"output": [ordered("C", "E"), ordered("E", "C")]}]))
    with pytest.raises(UserError, match="does not begin with the negative of the SFT file"):
        prepared(tmp_path, tmp_path / "ds")


DMPO = SHARED / "data" / "dmpo"


@pytest.mark.realdata
@pytest.mark.skipif(not DMPO.is_dir(), reason="the published few-shot files are not beside the project")
@pytest.mark.parametrize(
    ("domain", "items", "test", "dropped"),
    [
        ("games", 8_573, 985, {"windows": {"evaluation user who is a training user too": 15}}),
        ("movies", 10_062, 1_000, {}),
        ("ml-1m", 2_098, 1_000, {"negatives": {"title in the history": 1}}),
    ],
)
def test_published_files(tmp_path: Path, domain: str, items: int, test: int, dropped: dict[str, Any]) -> None:
    dataset = prepared(DMPO, tmp_path / "ds", domain=domain)
    assert dataset.items.height == items == dataset.items["title"].n_unique()
    assert (dataset.windows("train").height, dataset.windows("test").height) == (100, test)
    assert {table: reasons for table, reasons in dataset.card.dropped.items() if table != "items"} == dropped
    train = dataset.windows("train")
    assert dataset.card.options["history"] == 36
    lengths = train["negatives"].list.len().to_numpy()
    assert (np.sort(lengths)[1:] == 5).all() and lengths.min() == (4 if domain == "ml-1m" else 5)
    assert (train["negatives"].list.len() == train["target_first"].list.len()).all()
    published = len(json.loads((DMPO / f"{DOMAINS[domain]}_dpo_ranking_5.json").read_text()))
    assert published == 500
    seen = pl.concat([train, dataset.windows("test")]).select(pl.col("history").list.contains(pl.col("target")).any())
    assert not seen.item()

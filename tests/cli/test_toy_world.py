"""A world with a known answer, which every objective, template and way of training must solve.

Users of the test split were never trained on; the answer to each of their windows is the follower of the last item.
All but the templates, for which it was not made, start from the embedded model, which knows the titles and little else.
"""

from pathlib import Path

import polars as pl
import pytest

from catalign.data.dataset import load_dataset
from catalign.recommender import Recommender
from toy import evaluated, follower, solve

SOLVED = 0.95
"""Share of test windows with the answer at rank 1; the popularity row gets a twenty-fourth."""

OWN_TEMPLATE = 'item: "a {title}"\nseparator: ", "\nclosing: " then "\nanswer: "a {title}"\n'


def test_the_answer_is_what_the_docstring_says(toy_dataset: Path) -> None:
    test = load_dataset(toy_dataset).windows("test")
    number = load_dataset(toy_dataset).items["item_id"].str.strip_prefix("i").cast(pl.Int64).to_list()
    last, target = test["history"].list.last().to_list(), test["target"].to_list()
    assert [follower(number[item]) for item in last] == [number[item] for item in target]
    trained = load_dataset(toy_dataset).windows("train")["user_id"]
    assert not set(test["user_id"]) & set(trained)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--objective", "lml"], id="lml"),
        pytest.param(["--objective", "msl"], id="msl"),
        pytest.param(["--objective", "msl+ats"], id="msl+ats"),
        pytest.param(["--temperature", 2], id="temperature"),
        pytest.param(["--bear-weight", 1, "--set", "objective.bear_beams=3"], id="msl+bear"),
        pytest.param(["--denominator", "all"], id="all positions"),
        pytest.param(["--batching", "by-user"], id="by-user"),
    ],
)
def test_full_training_finds_the_answer(
    toy_dataset: Path, warm_model: Path, tmp_path: Path, options: list[object]
) -> None:
    run = solve(toy_dataset, warm_model, tmp_path / "run", *options)
    assert evaluated(run)["hr@1"] >= SOLVED
    assert evaluated(run, "--score", "full")["hr@1"] >= SOLVED


@pytest.mark.parametrize("template", ["instruction", "own.yaml"])
def test_other_templates_find_the_answer(
    toy_dataset: Path, toy_model: Path, tmp_path: Path, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(OWN_TEMPLATE)
    options = ["--template", template, "--batch-size", 32, "--epochs", 30, "--patience", 30]
    run = solve(toy_dataset, toy_model, tmp_path / "run", *options)
    Path("own.yaml").unlink()  # a run holds its template
    assert evaluated(run)["hr@1"] >= SOLVED


@pytest.mark.parametrize("objective", ["lml", "msl"])
def test_an_adapter_finds_the_answer(toy_dataset: Path, warm_model: Path, tmp_path: Path, objective: str) -> None:
    modules = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
    adapter = ["--lora", "--target-modules", modules, "--lora-rank", 16, "--lora-alpha", 32, "--lora-dropout", 0]
    options = ["--objective", objective, *adapter, "--learning-rate", 3e-3, "--batch-size", 8, "--epochs", 12]
    run = solve(toy_dataset, warm_model, tmp_path / "run", *options)
    assert evaluated(run)["hr@1"] >= SOLVED


def test_the_embedded_model_does_not_know_the_answer_yet(toy_dataset: Path, warm_model: Path, tmp_path: Path) -> None:
    run = solve(toy_dataset, warm_model, tmp_path / "run", "--epochs", 1, "--learning-rate", 1e-12)
    assert evaluated(run)["hr@1"] < 0.3


def test_the_face_of_the_package_gives_the_answer(toy_run: Path, toy_dataset: Path) -> None:
    recommender = Recommender.load(toy_run)
    found = recommender.recommend_many([[f"i{item:03d}", f"i{follower(item):03d}"] for item in range(24)], k=3)
    first = [items[0].item_id == f"i{follower(follower(item)):03d}" for item, items in enumerate(found)]
    assert sum(first) >= SOLVED * 24
    assert all(items[0].probability > 0.3 for items in found)

"""Grounding, worked examples and untuned models in `evaluate` and `recommend`, as a user types them."""

import json
from pathlib import Path
from typing import Any

import pytest

from catalign.recommender import Recommender
from toy import TITLES, follower, mistake, solve, works


@pytest.fixture(scope="module")
def run(toy_dataset: Path, warm_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of LML that knows the toy world."""
    output = tmp_path_factory.mktemp("runs") / "lml"
    return solve(toy_dataset, warm_model, output, "--objective", "lml", "--epochs", 6)


def last_row(*arguments: object) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(works("evaluate", *arguments, "--json"))[-1]
    return row


def test_bigrec_is_lml_with_grounding(run: Path) -> None:
    row = last_row(run, "--decoder", "grounding", "--windows", 40)
    assert row["method"] == "lml, grounded"
    assert row["hr@1"] > 0.8  # what it writes is the right title, whose embedding is its own nearest
    assert row["hr@20"] >= row["hr@10"] >= row["hr@1"]  # a full list, however narrow the generation
    assert {name: row["produced_by"][name] for name in ("decoder", "beams", "length_penalty")} == {
        "decoder": "grounding", "beams": 4, "length_penalty": 1.0,
    }  # fmt: skip
    assert "score" not in row["produced_by"]
    assert json.loads((run / "metrics-grounded.json").read_text())["hr@1"] == row["hr@1"]
    assert (run / "evaluations" / "test-40-seed0-beams4-grounding" / "metrics.json").is_file()
    assert {path.name for path in (run / "grounding").iterdir()} == {"titles.npy", "titles.json"}
    said = works("evaluate", run, "--decoder", "grounding", "--windows", 40)
    assert "lml, grounded" in said and "decoder grounding" in said
    searched = last_row(run, "--windows", 40)
    assert searched["method"] == "lml" and "decoder" not in searched["produced_by"]


def test_recommend_what_is_nearest_to_what_the_model_writes(run: Path) -> None:
    history = [follower(0), follower(follower(0))]
    answer = follower(history[-1])
    given = [word for item in history for word in ("--history", TITLES[item])]
    found = json.loads(works("recommend", run, *given, "--decoder", "grounding", "-k", 30, "--json"))
    assert len(found) == len(TITLES) - len(history)  # all but the history
    assert found[0]["title"] == TITLES[answer] and found[0]["distance"] < found[1]["distance"] / 10
    assert [item["distance"] for item in found] == sorted(item["distance"] for item in found)
    repeated = Recommender.load(run).ground([TITLES[item] for item in history], 30, beams=1, exclude_history=False)
    assert len(repeated) == len(TITLES) and repeated[0].title == TITLES[answer]
    said = works("recommend", run, *given, "--decoder", "grounding", "-k", 2)
    assert TITLES[answer] in said.splitlines()[0] and "distance" in said


def test_examples_stand_before_the_prompts(run: Path, tmp_path: Path) -> None:
    row = last_row(run, "--windows", 20, "--examples", 2)
    assert row["method"] == "lml, 2 examples" and row["produced_by"]["checkpoint"].endswith(", 2 examples")
    assert (run / "evaluations" / "test-20-seed0-beams20-valid-2-examples").is_dir()
    assert (run / "metrics-2-examples.json").is_file()
    both = last_row(run, "--windows", 20, "--examples", 2, "--decoder", "grounding", "--output", tmp_path / "both")
    assert both["method"] == "lml, grounded, 2 examples"
    assert "show fewer examples" in mistake("evaluate", run, "--windows", 20, "--examples", 300)


def test_a_model_folder_is_evaluated_untuned(toy_dataset: Path, warm_model: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in warm_model.iterdir())
    place = ("--dataset", toy_dataset, "--windows", 20)
    row = last_row(warm_model, *place, "--output", tmp_path / "zero")
    assert row["method"] == "untuned" and row["n"] == 20
    assert row["produced_by"]["checkpoint"] == f"{warm_model.name}, untuned"
    shown = last_row(warm_model, *place, "--examples", 3, "--output", tmp_path / "shown")
    assert shown["method"] == "untuned, 3 examples"
    written = last_row(
        warm_model, *place, "--template", "instruction", "--decoder", "grounding", "--output", tmp_path / "g"
    )  # fmt: skip
    assert written["method"] == "untuned, grounded"
    pairs = last_row(warm_model, *place, "--protocol", "pairs", "--output", tmp_path / "p")
    assert pairs["method"] == "untuned"
    assert sorted(path.name for path in warm_model.iterdir()) == before  # nothing is written into it


def test_mistakes(run: Path, toy_dataset: Path, warm_model: Path, tmp_path: Path) -> None:
    said = mistake("evaluate", run, "--decoder", "grounding", "--score", "full")
    assert "--decoder grounding: --score goes with --decoder search" in said
    assert "--decoder goes with --protocol full" in mistake(
        "evaluate", run, "--protocol", "pairs", "--decoder", "grounding"
    )
    assert "--examples goes with --protocol full" in mistake("evaluate", run, "--protocol", "pairs", "--examples", 1)
    assert "--template: goes with a model folder" in mistake("evaluate", run, "--template", "plain")
    assert "is a model, not a run; pass a dataset with --dataset" in mistake("evaluate", warm_model)
    assert "name a folder with --output" in mistake("evaluate", warm_model, "--dataset", toy_dataset, "--windows", 5)
    assert "no recipe.yaml" in mistake("evaluate", tmp_path)
    history = ("--history", TITLES[0])
    for options in (("--score", "full", *history), ("--input", tmp_path / "x.jsonl", "--output", tmp_path / "y.jsonl")):
        said = mistake("recommend", run, "--decoder", "grounding", *options)
        assert "--input and --score go with --decoder search" in said
    assert "0 recommendations" in mistake_in_python(run)


def mistake_in_python(run: Path) -> str:
    from catalign.errors import UserError

    with pytest.raises(UserError) as caught:
        Recommender.load(run).ground([TITLES[0]], 0)
    return str(caught.value)

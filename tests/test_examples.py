"""The example package adds an objective, a source, a sampler of negatives and a score; and what is refused."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml

import toy
from catalign.decoding.candidates import score_candidates
from catalign.decoding.recommend import CatalogueSearch
from catalign.objectives import masked_softmax_losses
from catalign.plugins import load
from catalign.recommender import Recommender
from tiny import tiny_catalogue, tiny_model

EXAMPLE = Path(__file__).parents[1] / "examples" / "extending"
SHORT = ("--set", "epochs=1", "--no-validation", "--train-examples", 32, "--batch-size", 16, "--precision", "float32")

MISTAKES = '''
"""Functions that do not fit."""
import numpy as np
import torch

class Focal: ...
seven = 7
def lonely(logits): return logits
def summed(valid_logits_E, position_E, gold_P, temperature=1.0): return valid_logits_E.sum()
def without_gradient(valid_logits_E, position_E, gold_P, temperature=1.0): return torch.ones(len(gold_P))
def rising(logits_E, position_E, positions): return torch.ones(len(logits_E))
def sigmoid(logits_E, position_E, positions): return torch.nn.functional.logsigmoid(logits_E)
def one(windows, items, count, seed): return np.zeros((len(windows), count), dtype=np.int64)
def fractions(windows, items, count, seed): return np.zeros((len(windows), count))
def far(windows, items, count, seed): return np.full((len(windows), count), len(items))
def text(folder): return "tables"
'''


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example package and `mistakes` can be imported."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "mistakes.py").write_text(MISTAKES)
    (folder / "needy.py").write_text("import a_package_that_is_not_there")
    (folder / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.syspath_prepend(EXAMPLE / "src")
    load.cache_clear()
    yield folder
    for name in ("mistakes", "extending", "extending.losses", "extending.sources", "extending.negatives",
                 "extending.scores"):  # fmt: skip
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def focal_run(toy_dataset: Path, toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps with the objective of the example, in a process that has the package on its path."""
    output = tmp_path_factory.mktemp("runs") / "focal"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE / "src")
        toy.works("train", "--dataset", toy_dataset, "--model", toy_model, "--objective", "extending.losses:focal",
                  *SHORT, "--output", output)  # fmt: skip
    return output


def test_every_module_is_short() -> None:
    for path in EXAMPLE.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 40, path


def test_its_readme_names_what_is_there() -> None:
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    for path in (EXAMPLE / "src" / "extending").glob("[a-z]*.py"):
        assert f"(src/extending/{path.name})" in text


def test_source(tmp_path: Path) -> None:
    toy.write_tables(tmp_path)
    columns = {"user": "listener", "item": "track", "time": "at"}
    pl.read_csv(tmp_path / "log.csv").rename(columns).write_csv(tmp_path / "plays.csv")
    tracks = pl.read_csv(tmp_path / "items.csv").rename({"item": "track", "title": "name"})
    tracks.with_columns(artist=pl.lit("N. N.")).write_csv(tmp_path / "tracks.csv")
    toy.works("data", "prepare", tmp_path, "--layout", "extending.sources:diary", "--output", tmp_path / "ds")
    assert pl.read_parquet(tmp_path / "ds" / "items.parquet")["artist"].unique().to_list() == ["N. N."]
    card = yaml.safe_load((tmp_path / "ds" / "dataset.json").read_text())
    assert card["options"]["duplicates"] == "first"


def test_source_of_windows(tmp_path: Path, installed: Path) -> None:
    windows = """
import polars as pl
from catalign.data.sources.window_files import PublishedWindows

def cut(folder):
    items = pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["red", "green", "blue"], "file": "x", "row": [1, 2, 3]})
    row = {"user_id": "u", "history": ["a", "b"], "target": "c", "timestamp": None, "file": "x", "row": 1}
    frame = pl.DataFrame([{**row, "split": split} for split in ("train", "valid", "test")])
    frame = frame.with_columns(pl.col("timestamp").cast(pl.Int64))
    return PublishedWindows(items, frame, [folder / "x"], "as it came")
"""
    (installed / "cutting.py").write_text(windows)
    (tmp_path / "x").write_text("windows")
    toy.works("data", "prepare", tmp_path, "--layout", "cutting:cut", "--output", tmp_path / "ds")
    assert pl.read_parquet(tmp_path / "ds" / "windows" / "test.parquet")["target"].to_list() == [2]
    said = toy.mistake(
        "data", "prepare", tmp_path, "--layout", "cutting:cut", "--k-core", 2, "--output", tmp_path / "e"
    )
    assert "--k-core goes with tables of interactions" in said


def test_objective(focal_run: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((focal_run / "recipe.yaml").read_text())
    assert recipe["objective"]["name"] == "extending.losses:focal"
    said = toy.catalign("train", focal_run / "recipe.yaml", "--output", tmp_path / "again")
    assert said.code == 0 and f"imported extending.losses:focal ({EXAMPLE}" in said.err
    assert toy.repeatable(tmp_path / "again") == toy.repeatable(focal_run)


def test_the_focal_loss_is_msl_where_gamma_is_0() -> None:
    from extending.losses import focal

    logits_E, position_E, gold_P = torch.randn(5), torch.tensor([0, 0, 0, 1, 1]), torch.tensor([1, 3])
    plain_P = masked_softmax_losses(logits_E, position_E, gold_P, 1.5)
    assert torch.equal(focal(logits_E, position_E, gold_P, 1.5, gamma=0.0), plain_P)
    expected_P = (1 - torch.exp(-plain_P)) ** 2 * plain_P
    assert torch.allclose(focal(logits_E, position_E, gold_P, 1.5), expected_P)


def test_a_run_is_used_without_its_objective(focal_run: Path) -> None:
    history = ("--history", toy.TITLES[0], "--history", toy.TITLES[1])
    for name in [name for name in sys.modules if name.startswith("extending")]:
        del sys.modules[name]
    assert toy.works("recommend", focal_run, *history)
    assert not [name for name in sys.modules if name.startswith("extending")]


def test_soft_stage_takes_the_objective_over(focal_run: Path, tmp_path: Path) -> None:
    toy.works("train", "--stage", "soft", "--from", focal_run, *SHORT, "--output", tmp_path / "soft")
    recipe = yaml.safe_load((tmp_path / "soft" / "recipe.yaml").read_text())
    assert recipe["objective"]["name"] == "extending.losses:focal"


def test_negatives(focal_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from extending.negatives import alphabetical

    from catalign.training.preference_module import PreferenceBatches

    taken: list[Any] = []
    change = PreferenceBatches.change
    monkeypatch.setattr(PreferenceBatches, "change", lambda self, items: (taken.append(items), change(self, items)))
    drawn = ("--negatives-from", "extending.negatives:alphabetical", "--negatives", 2)
    toy.works("train", "--stage", "preference", *drawn, "--from", focal_run, *SHORT, "--output", tmp_path / "dmpo")
    recipe = yaml.safe_load((tmp_path / "dmpo" / "recipe.yaml").read_text())
    assert recipe["negatives"]["kind"] == "extending.negatives:alphabetical"
    windows = pl.DataFrame({"window": [0], "history": [[1, 3]], "target": [2]})
    items = pl.DataFrame({"title": [f"{letter}" for letter in "abcdefgh"]})
    assert alphabetical(windows, items, 2, 0)[0, :5].tolist() == [2, 3, 1, 4, 0]
    assert taken[-1].shape == (32, 2)


def test_a_history_is_passed_over() -> None:
    from catalign.training.negatives import proposed_negatives

    trie_titles = [(number,) for number in range(3, 11)]
    from tiny import tiny_trie

    trie = tiny_trie(trie_titles)
    windows = pl.DataFrame({"window": [0], "history": [[1, 3]], "target": [2]})
    items = pl.DataFrame({"title": [f"{letter}" for letter in "abcdefgh"]})
    name = "extending.negatives:alphabetical"
    found = proposed_negatives(name, trie, windows, items, [np.array([1, 3])], 2, 0)
    assert found.tolist() == [[4, 0]]


@pytest.mark.parametrize("score", ["extending.scores:flat", "mistakes:sigmoid"])
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_search_and_ranking_agree_on_a_score(score: str, architecture: str) -> None:
    from catalign.prompting.prompter import Prompter
    from catalign.prompting.templates import PLAIN

    titles = [(3, 4, 5), (3, 4, 6), (3, 7), (3, 8, 9, 10), (3, 8), (3,)]  # the root has one child
    model, catalogue = tiny_model(architecture), tiny_catalogue(titles)
    prompter = Prompter(catalogue, model.tokenizer, PLAIN, context=model.context)
    histories = [[0, 1], [4]]
    items_BK, score_BK = CatalogueSearch(model, prompter, beams=10, score=score).recommend_all(histories, len(titles))
    exact = score_candidates(model, prompter, histories, [range(len(titles))] * 2, score=score)
    plain = score_candidates(model, prompter, histories, [range(len(titles))] * 2)
    for items, scores, known, usual in zip(items_BK, score_BK, exact, plain, strict=True):
        assert np.allclose(scores, known[items], atol=1e-4) and sorted(items) == list(range(len(titles)))
        assert not np.allclose(known, usual, atol=1e-2)


def test_score_on_the_command_line(focal_run: Path, tmp_path: Path) -> None:
    score = ("--score", "extending.scores:flat")
    row = toy.evaluated(focal_run, *score, "--windows", 5, "--output", tmp_path / "flat")
    assert row["produced_by"]["score"] == "extending.scores:flat"
    history = ("--history", toy.TITLES[0], "--history", toy.TITLES[1])
    assert len(toy.works("recommend", focal_run, *history, *score, "-k", 3).splitlines()) == 3
    assert toy.works("rank", focal_run, *history, *score, "--candidate", toy.TITLES[2], "--candidate", toy.TITLES[3])
    recommender = Recommender.load(focal_run)
    flat, usual = (recommender.recommend(toy.TITLES[:2], 1, score=mode)[0] for mode in (score[1], "valid"))
    assert flat.probability < usual.probability


def test_the_service_takes_the_score(focal_run: Path) -> None:
    testing = pytest.importorskip("starlette.testclient")
    from catalign.serving.app import create_app
    from catalign.serving.service import Service
    from catalign.serving.settings import ServiceSettings
    from catalign.serving.variants import Variant

    recommender, score = Recommender.load(focal_run), "extending.scores:flat"
    service = Service([Variant("focal", 1.0, recommender.run)], ServiceSettings(score=score))
    with testing.TestClient(create_app(service, None)) as client:
        found = client.post("/v1/recommend", json={"history": toy.TITLES[:2], "k": 3}).json()["items"]
    expected = recommender.recommend(toy.TITLES[:2], 3, score=score)
    assert [item["title"] for item in found] == [item.title for item in expected]
    assert [item["probability"] for item in found] == pytest.approx([item.probability for item in expected], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere.losses:focal", "there is no module nowhere; install its package"),
        ("extending.loses:focal", "there is no module extending.loses;"),
        ("extending.losses:vocal", "extending.losses has no vocal; did you mean focal?"),
        ("needy:focal", "needy needs a_package_that_is_not_there, which is not installed"),
        ("broken:focal", "broken cannot be imported (ZeroDivisionError: division by zero)"),
        ("mistakes:Focal", "is a class; a function of (valid_logits_E, position_E, gold_P, temperature) is expected"),
        ("mistakes:seven", "is of type int; a function of"),
        ("mistakes:lonely", "too many positional arguments; a function of (valid_logits_E"),
    ],
)
def test_what_is_no_objective_is_refused(
    name: str, told: str, toy_dataset: Path, toy_model: Path, tmp_path: Path
) -> None:
    place = ("--dataset", toy_dataset, "--model", toy_model, "--output", tmp_path / "run")
    assert f"objective {name}: {told}" in toy.mistake("train", "--objective", name, *place)
    assert not (tmp_path / "run").exists()


def test_other_refusals(toy_dataset: Path, toy_model: Path, focal_run: Path, tmp_path: Path) -> None:
    place = ("--dataset", toy_dataset, "--model", toy_model, "--output", tmp_path / "run")
    preference = ("--stage", "preference", "--from", focal_run, "--output", tmp_path / "run")
    said = toy.mistake("train", *preference, "--objective", "extending.losses:focal")
    assert "no such objective: extending.losses:focal" in said
    said = toy.mistake("train", *place, "--set", "objective.name=focal")
    assert "objective.name: no such choice: focal; choose from lml, msl" in said
    said = toy.mistake("train", *place, "--set", "validation.score=mistakes:lonely")
    assert "score mistakes:lonely: too many positional arguments" in said
    said = toy.mistake("train", *preference, "--negatives-from", "mistakes:lonely")
    assert (
        "negatives mistakes:lonely: too many positional arguments; a function of (windows, items, count, seed)" in said
    )
    said = toy.mistake("data", "prepare", tmp_path, "--layout", "nowhere:diary", "--output", tmp_path / "run")
    assert "--layout nowhere:diary: there is no module nowhere" in said
    said = toy.mistake("evaluate", focal_run, "--score", "extending.scores:flatt")
    assert "did you mean flat?" in said
    said = toy.catalign("evaluate", focal_run, "--score", "half").err
    assert "'half' is not valid, full or MODULE:NAME" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--objective", "mistakes:summed"), "objective mistakes:summed: gives [] torch.float32"),
        (
            ("--objective", "mistakes:without_gradient"),
            "objective mistakes:without_gradient: its losses have no gradient",
        ),
        (("--negatives-from", "mistakes:one"), "negatives mistakes:one: proposes fewer than 3 other titles"),
        (("--negatives-from", "mistakes:fractions"), "negatives mistakes:fractions: gives [32, 3] float64"),
        (("--negatives-from", "mistakes:far"), "proposes what is not among the 24 items of the catalogue"),
    ],
)
def test_what_does_not_come_back_as_it_should_is_refused(
    arguments: tuple[str, str], told: str, toy_dataset: Path, toy_model: Path, focal_run: Path, tmp_path: Path
) -> None:
    preference = ("--stage", "preference", "--from", focal_run)
    place = preference if "--negatives-from" in arguments else ("--dataset", toy_dataset, "--model", toy_model)
    ended = toy.catalign("train", *place, *arguments, *SHORT, "--output", tmp_path / "run")
    assert ended.code == 2 and told in ended.err and "Traceback" not in ended.err


def test_scores_that_rise_and_sources_that_give_no_tables_are_refused(focal_run: Path, tmp_path: Path) -> None:
    ended = toy.catalign("recommend", focal_run, "--history", toy.TITLES[0], "--score", "mistakes:rising")
    assert ended.code == 2 and "score mistakes:rising: gives an increment above 0, or none" in ended.err
    ended = toy.catalign("data", "prepare", tmp_path, "--layout", "mistakes:text", "--output", tmp_path / "ds")
    assert ended.code == 2 and "gives str; a TableSource or PublishedWindows is expected" in ended.err
    ended = toy.catalign(
        "data", "prepare", tmp_path, "--layout", "extending.sources:diary", "--output", tmp_path / "ds"
    )
    assert ended.code == 2 and "plays.csv: is not there" in ended.err

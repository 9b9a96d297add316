"""The protocols of `catalign evaluate` and `catalign rank`, as a user types them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalign.catalogue.catalogue import Catalogue
from catalign.data.dataset import load_dataset
from catalign.recommender import Recommender
from fewshot_files import write_fewshot
from toy import TITLES, catalign, follower, make_dataset, mistake, works


def rows_of(run: Path, *options: object) -> dict[str, dict[str, Any]]:
    rows = json.loads(works("evaluate", run, "--json", *options))
    return {row["method"]: row for row in rows}


def test_one_of_n_by_history_and_with_the_candidates_listed(toy_run: Path, tmp_path: Path) -> None:
    before = (toy_run / "metrics.json").read_bytes() if (toy_run / "metrics.json").exists() else None
    options = ("--protocol", "candidates", "--candidates", 8, "--windows", 20)
    rows = rows_of(toy_run, *options, "--output", tmp_path / "history")
    assert list(rows) == ["popularity", "item-kNN", "item-kNN, ordered", "msl"]
    assert rows["msl"]["hr@1"] == 1.0 == rows["msl"]["valid_ratio"] and rows["msl"]["n"] == 20
    assert rows["popularity"]["hr@1"] < 0.6 and "valid_ratio" not in rows["popularity"]
    written = json.loads((toy_run / "metrics-candidates.json").read_text())
    assert written["hr@1"] == 1.0 and written["floor"].keys() == rows.keys() - {"msl"}
    listed = rows_of(toy_run, *options, "--candidates", 3, "--prompt", "choices", "--output", tmp_path / "choices")
    assert listed["msl"]["produced_by"]["prompt"] == "choices" and 0 <= listed["msl"]["hr@1"] <= 1
    assert ((toy_run / "metrics.json").read_bytes() if before is not None else None) == before


def test_free_generation_of_a_model_that_knows_the_titles(toy_run: Path, tmp_path: Path) -> None:
    options = (
        "--protocol",
        "candidates",
        "--generation",
        "free",
        "--candidates",
        8,
        "--windows",
        20,
        "--output",
        tmp_path / "p",
    )
    row = rows_of(toy_run, *options)["msl"]
    assert row["valid_ratio"] >= row["hr@1"] and "hr@5" not in row
    assert row["produced_by"]["generation"] == "free" and row["produced_by"]["score"] is None
    said = works("evaluate", toy_run, *options)
    assert "ValidRatio" in said and "HR@1" in said and "among drawn candidates" in said


@pytest.mark.parametrize("score", ["valid", "full"])
def test_pairs_by_history(toy_run: Path, tmp_path: Path, score: str) -> None:
    rows = rows_of(toy_run, "--protocol", "pairs", "--score", score, "--output", tmp_path / "p")
    assert rows["msl"]["accuracy"] > 0.9 and rows["msl"]["auc"] > 0.9
    assert rows["msl"]["ci95_over"] == "users" and rows["msl"]["cold"] == {"n": 0}
    assert rows["popularity"]["accuracy"] < 0.8
    said = works("evaluate", toy_run, "--protocol", "pairs", "--score", score, "--output", tmp_path / "p")
    assert all(word in said for word in ("paired", "pooled", "popularity", "msl", "ties half"))
    assert json.loads((toy_run / "metrics-pairs.json").read_text())["accuracy"] == rows["msl"]["accuracy"]


def test_published_pairs_on_a_catalogue_that_the_run_never_saw(toy_run: Path, tmp_path: Path) -> None:
    train = [([TITLES[0], "new lamp"], TITLES[1], [TITLES[2]], [True])]
    test = [([TITLES[3], "new lamp"], TITLES[4], [TITLES[5]], [True]), ([TITLES[6]], TITLES[7], ["new lamp"], [False])]
    write_fewshot(tmp_path, train, test)
    works("data", "prepare", tmp_path, "--domain", "games", "--output", tmp_path / "few")
    options = ("--protocol", "pairs", "--prompt", "choices", "--dataset", tmp_path / "few")
    assert "few: has another catalogue than the run was trained on" in mistake("evaluate", toy_run, *options)
    rows = rows_of(toy_run, *options, "--transfer", "--output", tmp_path / "p")
    assert rows["msl"]["n"] == 2 and rows["msl"]["produced_by"]["prompt"] == "pair, games"
    assert "popularity, all histories" in rows
    assert (toy_run / "metrics-pairs-on-few.json").is_file()
    mistaken = mistake("evaluate", toy_run, *options, "--transfer", "--split", "valid")
    assert "the split valid has no windows; choose another --split" in mistaken


def test_one_of_n_and_the_full_catalogue_on_another_catalogue(toy_run: Path, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", titles=[*TITLES[:20], "new lamp"])
    options = ("--dataset", other, "--transfer", "--windows", 6)
    rows = rows_of(toy_run, *options, "--protocol", "candidates", "--candidates", 4, "--output", tmp_path / "c")
    assert rows["msl"]["n"] == 6
    assert rows_of(toy_run, *options, "--output", tmp_path / "f")["msl"]["n"] == 6
    assert (toy_run / "metrics-on-ds.json").is_file() and (toy_run / "metrics-candidates-on-ds.json").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--candidates", 5], "--protocol full: --candidates goes with --protocol candidates"),
        (["--protocol", "pairs", "--beams", 5], "--protocol pairs: --beams goes with --protocol full"),
        (["--protocol", "pairs", "--generation", "free"], "--generation goes with --protocol candidates"),
        (["--prompt", "choices"], "--prompt goes with --protocol candidates or --protocol pairs"),
        (["--protocol", "candidates", "--exclude-history"], "--exclude-history goes with --protocol full"),
        (
            ["--protocol", "pairs", "--prompt", "choices", "--score", "valid"],
            "--prompt choices: --score valid goes with --prompt history; answers to listed candidates are scored over",
        ),
        (
            ["--protocol", "candidates", "--generation", "free", "--score", "full"],
            "--generation free: --score goes with --generation constrained",
        ),
        (["--protocol", "candidates", "--candidates", 24], "23 negatives asked for, but of 24 titles only"),
    ],
)
def test_options_that_do_not_go_together(toy_run: Path, options: list[object], words: str) -> None:
    assert words in mistake("evaluate", toy_run, *options)


def test_rank_gives_exact_log_probabilities_best_first(toy_run: Path, toy_dataset: Path) -> None:
    shown = [TITLES[3], TITLES[follower(3)]]  # the toy world was trained on two items at least
    right = TITLES[follower(follower(3))]
    named = [TITLES[number] for number in range(0, 24, 4) if TITLES[number] != right]
    histories = [text for title in shown for text in ("--history", title)]
    options = [*histories, *(text for title in (*named, right) for text in ("--candidate", title))]
    ranked = json.loads(works("rank", toy_run, *options, "--json"))
    assert ranked[0]["title"] == right and {item["title"] for item in ranked} == {*named, right}
    values = [item["log_probability"] for item in ranked]
    assert values == sorted(values, reverse=True)
    recommender = Recommender.load(toy_run)
    (best,) = recommender.recommend(shown, 1, exclude_history=False)
    assert best.title == right and np.log(best.probability) == pytest.approx(values[0], abs=1e-4)
    everything = recommender.rank(shown, recommender.catalogue.item_ids)
    assert np.exp([item.log_probability for item in everything]).sum() == pytest.approx(1, abs=1e-4)
    full = json.loads(works("rank", toy_run, *options, "--json", "--score", "full"))
    assert full[0]["title"] == right and full[0]["log_probability"] <= values[0]
    said = works("rank", toy_run, *options)
    assert said.startswith(f"  1. {right}  (i") and "log-probability" in said


def test_items_are_ranked_by_id_too_and_equal_titles_stay_in_their_order(toy_run: Path) -> None:
    recommender = Recommender.load(toy_run)
    by_id, by_title = (recommender.rank(["i003"], names) for names in (["i005", "i001"], [TITLES[5], TITLES[1]]))
    assert by_id == by_title and {item.item_id for item in by_id} == {"i001", "i005"}
    assert Catalogue.from_frame(load_dataset(recommender.run.recipe.dataset).items).titles == TITLES


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--candidate", "i001"], "catalign rank: no history given; pass --history TITLE_OR_ID ..."),
        (["--history", "i001"], "catalign rank: no candidate given; pass --candidate TITLE_OR_ID ..."),
        (
            ["--history", "i001", "--candidate", "red lmp"],
            'the catalogue: no item has the id or title "red lmp"; did you mean "red lamp"',
        ),
        (["--history", "rde lamp", "--candidate", "i001"], 'no item has the id or title "rde lamp"; did you mean'),
        (
            ["--history", "i001", "--candidate", "i002", "--candidate", TITLES[2]],
            f'the candidates: "{TITLES[2]}" is named twice; name each candidate once',
        ),
    ],
)
def test_what_cannot_be_ranked(toy_run: Path, options: list[object], words: str) -> None:
    assert words in mistake("rank", toy_run, *options)


def test_an_unknown_protocol_is_refused(toy_run: Path) -> None:
    ended = catalign("evaluate", toy_run, "--protocol", "sampled")
    assert ended.code == 2 and "candidates" in ended.err

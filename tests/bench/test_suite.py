"""A suite file: what it says, what it takes, and what is refused before anything runs."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalign.baselines.methods import METHODS
from catalign.bench.steps import plan
from catalign.bench.suite import Suite, load_suite
from toy import mistake, works

ROOT = Path(__file__).parents[2]
SUITE: dict[str, Any] = {
    "name": "A suite",
    "data": {"one": {"source": "one"}, "two": {"source": "two", "prepare": {"k_core": 5}, "recipe": {"epochs": 9}}},
    "models": {"tiny": {"preset": "tiny", "titles_only": True}},
    "seeds": [0, 1],
    "recipe": {"epochs": 2, "batch_size": 8},
    "methods": {
        "with-items": {"model": "tiny", "item_embeddings_from": "sasrec"},
        "sasrec": {"baseline": "sasrec"},
        "msl": {"model": "tiny", "recipe": {"objective": "msl"}},
        "soft": {"after": "msl", "recipe": {"stage": "soft"}, "seeds": [1]},
    },
}


def changed(**parts: Any) -> dict[str, Any]:
    """The suite with other parts."""
    return {**SUITE, **parts}


def with_method(**fields: Any) -> dict[str, Any]:
    return changed(methods={**SUITE["methods"], "other": fields})


def written(folder: Path, fields: Any) -> Path:
    file = folder / "suite.yaml"
    file.write_text(fields if isinstance(fields, str) else yaml.safe_dump(fields, sort_keys=False))
    return file


def test_the_plan_is_what_a_person_would_type(tmp_path: Path) -> None:
    planned = plan(load_suite(written(tmp_path, SUITE)), Path("out"), Path("data"))
    typed = {name: shlex.join(step.arguments) for name, step in planned.steps.items()}
    assert typed["data/two"] == "data prepare data/two --k-core 5 --output out/data/two"
    assert typed["models/one/tiny-seed1"] == (
        "model init --dataset out/data/one --preset tiny --epochs 1 --titles-only --seed 1 "
        "--output out/models/one/tiny-seed1"
    )
    assert typed["runs/one/sasrec-seed0/baseline"] == (
        "baseline sasrec --dataset out/data/one --trials 6 --epochs 100 --patience 3 --seed 0 "
        "--output out/runs/one/sasrec-seed0"
    )
    assert (
        typed["runs/two/soft-seed1/train"] == "train out/recipes/two/soft-seed1.yaml --output out/runs/two/soft-seed1"
    )
    assert planned.steps["runs/two/soft-seed1/train"].recipe == {
        "epochs": 9, "batch_size": 8, "stage": "soft", "seed": 1, "dataset": "out/data/two",
        "from": "out/runs/two/msl-seed1",
    }  # fmt: skip
    items = planned.steps["runs/one/with-items-seed1/train"].recipe
    assert items is not None and items["item_embeddings"] == "out/runs/one/sasrec-seed1"
    assert (items["model"], items["epochs"]) == ("out/models/one/tiny-seed1", 2)
    assert [(row.data, row.method, row.seed) for row in planned.rows][:7] == [
        ("one", "with-items", 0), ("one", "with-items", 1), ("one", "sasrec", 0), ("one", "sasrec", 1),
        ("one", "msl", 0), ("one", "msl", 1), ("one", "soft", 1),
    ]  # fmt: skip
    assert len(planned.rows) == 14


def test_every_step_stands_behind_what_it_needs(tmp_path: Path) -> None:
    planned = plan(load_suite(written(tmp_path, SUITE)), Path("out"), Path("data"))
    names = list(planned.steps)
    for place, name in enumerate(names):
        for needed in planned.steps[name].needs:
            assert names.index(needed) < place, (name, needed)
    assert {row.last for row in planned.rows} <= set(names)


@pytest.mark.parametrize("name", ["leaderboard.yaml", "shop.yaml"])
def test_the_shipped_suites_are_whole(name: str) -> None:
    suite = load_suite(ROOT / "recipes" / name)
    planned = plan(suite, Path("out"), Path("data"))
    stages = {(step.recipe or {}).get("stage", "sft") for step in planned.steps.values()}
    assert stages == {"sft", "soft", "preference"}
    if name == "leaderboard.yaml":
        assert {method.baseline for method in suite.methods.values()} >= set(METHODS)
        assert set(suite.data) == {"video-games", "toys", "books"} and len(suite.seeds) == 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (changed(method={}), "unknown name method; did you mean methods? choose from name, about, data"),
        (changed(budget={"trails": 3}), "unknown name budget.trails; did you mean trials?"),
        (changed(data={"one": {"source": "x", "prepare": {"kcore": 5}}}), "one.prepare.kcore; did you mean k_core?"),
        (changed(models={"tiny": {"preset": "huge"}}), "models.tiny.preset is huge; it should be 'tiny', 'small' or"),
        (with_method(modle="tiny"), "unknown name methods.other.modle; did you mean model?"),
        (with_method(), "methods.other: one of baseline, model and after"),
        (with_method(model="tiny", after="msl"), "methods.other: one of baseline, model and after"),
        (with_method(model="tinny"), "methods.other.model: no such name: tinny; did you mean tiny?"),
        (with_method(after="msl2", recipe={"stage": "soft"}), "other.after: no such name: msl2; did you mean msl?"),
        (with_method(after="other", recipe={"stage": "soft"}), "methods.other.after: other goes on from itself"),
        (with_method(after="soft", recipe={"stage": "preference"}), "methods.other: soft has no run of seed 0"),
        (with_method(after="sasrec", recipe={"stage": "soft"}), "a baseline is no run to go on from"),
        (with_method(baseline="sasrek"), "methods.other: no such baseline: sasrek; did you mean sasrec?"),
        (with_method(baseline="ease", recipe={"epochs": 1}), "a baseline has no recipe"),
        (with_method(model="tiny", item_embeddings_from="msl"), "item_embeddings_from: msl is no baseline"),
        (with_method(model="tiny", recipe={"epochz": 3}), "other on one: unknown name epochz; did you mean epochs?"),
        (with_method(model="tiny", recipe={"objective": "mls"}), "other on one: no such objective: mls; did you mean"),
        (with_method(model="tiny", recipe={"seed": 3}), "other on one: seed is put in by the suite; leave it out"),
        (with_method(after="msl"), "other on one: the stage sft begins; name a model and no other stage"),
        (with_method(model="tiny", recipe={"stage": "soft"}), "the stage soft goes on from a method"),
        (changed(reference="best"), "reference: no such name: best"),
        (changed(data={}), "data is {}"),
        (changed(data={"one": {"source": "x", "without": ["mls"]}}), "one.without: no such name: mls; did you mean"),
        (changed(data={"One!": {"source": "one"}}), "data.One! is One!"),
        (changed(data={"one": {}}), "data.one: either a source or a shop"),
        (changed(seeds=[]), "seeds is []"),
        ({"name": "x", "methods": {}}, "no data given"),
        ("- a\n- b\n", "is not a suite: a mapping of names to values is expected"),
        ("name: [", "is not YAML"),
        ("name: x\nmethods:\n  msl: {}\n  msl: {}\n", "is not YAML (msl stands twice in line 3"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_runs(tmp_path: Path, fields: Any, words: str) -> None:
    assert words in mistake("bench", written(tmp_path, fields), "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_file(tmp_path: Path) -> None:
    assert mistake("bench", tmp_path / "x.yaml", "--output", tmp_path / "out").endswith("x.yaml: no such suite")


def test_sources_are_looked_for_first(tmp_path: Path) -> None:
    said = mistake("bench", written(tmp_path, SUITE), "--output", tmp_path / "out", "--data", tmp_path)
    assert "one: the source of one is not there; name the folder that holds it with --data" in said


def test_a_dry_run_prints_what_is_left(tmp_path: Path) -> None:
    fields = changed(data={"shop": {"shop": {"users": 30, "items": 20}}}, methods={"msl": SUITE["methods"]["msl"]})
    lines = works("bench", written(tmp_path, fields), "--output", tmp_path / "out", "--dry-run").splitlines()
    assert len(lines) == 2 + 2 * 3 and lines[0].startswith("catalign data sample --users 30 --items 20 --output")
    assert not (tmp_path / "out").exists()


def test_a_method_can_be_left_out_on_a_set(tmp_path: Path) -> None:
    data = {"one": SUITE["data"]["one"], "two": {"source": "two", "without": ["msl", "sasrec"]}}
    planned = plan(load_suite(written(tmp_path, changed(data=data))), Path("out"), Path("data"))
    assert {row.method for row in planned.rows if row.data == "two"} == {"with-items", "soft"}
    assert "runs/two/msl-seed1/train" in planned.steps, "soft goes on from it"
    assert "runs/two/msl-seed1/evaluate" not in planned.steps and "runs/one/msl-seed1/evaluate" in planned.steps


def test_the_last_word_is_the_data_set() -> None:
    suite = Suite.model_validate(with_method(model="tiny", recipe={"epochs": 5}))
    assert [suite.fields_of("other", data)["epochs"] for data in ("one", "two")] == [5, 9]


def test_a_stage_is_checked_with_what_it_takes_over(tmp_path: Path) -> None:
    """Refreshed hard negatives need an adapter, free answers an objective over the vocabulary: both are the run's."""
    refreshed = {"stage": "preference", "negatives": {"kind": "hard", "refresh_steps": 5}}
    free = {"stage": "soft", "distillation": {"mode": "free"}}
    methods = {
        "lml": {"model": "tiny", "recipe": {"objective": "lml", "lora": {}}},
        "free": {"after": "lml", "recipe": free},
        "refreshed": {"after": "free", "recipe": refreshed},
    }
    assert set(load_suite(written(tmp_path, changed(methods=methods))).methods) == set(methods)
    without = {**methods, "lml": {"model": "tiny", "recipe": {"objective": "msl"}}}
    assert "free" in mistake("bench", written(tmp_path, changed(methods=without)), "--output", tmp_path / "out")

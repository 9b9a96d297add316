"""Item embeddings in the prompt through the command line, in a world where titles say nothing.

Everybody takes one of many items, then the one flagship of its kind. Titles are random letters and hardly any item is
seen twice, so that the kind of an item is told by its embedding alone.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file

from catalign.model.item_embedding import PROJECTOR, VECTORS
from catalign.recommender import Recommender
from catalign.training.callbacks import LogFile
from catalign.training.run import load_run
from catalign.training.validation import Validator
from toy import catalign, evaluated, log_lines, make_model, mistake, series, works

KINDS, PEOPLE, WIDTH = 6, 240, 16
TRAIN = ("--precision", "float32", "--batch-size", 16, "--learning-rate", 2e-3)
QUICK = (*TRAIN, "--epochs", 1, "--train-examples", 32, "--logging-steps", 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset `ds`, a model `lm` of random weights and embeddings `e.parquet`; only read it."""
    folder, generator = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    kind = generator.integers(0, KINDS, PEOPLE)
    letters = generator.choice(list("abcdefghijklmnopqrstuvwxyz"), (KINDS + PEOPLE, 6))
    ids = [f"i{item:03d}" for item in range(KINDS + PEOPLE)]
    log = ["user,item,time"]
    for person in range(PEOPLE):
        for visit, item in enumerate((KINDS + person, kind[person])):
            log.append(f"u{person:03d},{ids[item]},{1_600_000_000 + 100 * person + visit}")
    (folder / "log.csv").write_text("\n".join(log) + "\n")
    titles = [f"{item},{''.join(row)}" for item, row in zip(ids, letters, strict=True)]
    (folder / "items.csv").write_text("\n".join(["item,title", *titles]) + "\n")
    columns = ("--user", "user", "--item", "item", "--time", "time", "--title", "title", "--min-history", 1)
    tables = ("--interactions", folder / "log.csv", "--items", folder / "items.csv")
    works("data", "prepare", *tables, *columns, "--output", folder / "ds")
    make_model(folder / "ds", folder / "lm")
    centre = generator.normal(size=(KINDS, WIDTH))
    noise = 0.3 * generator.normal(size=(KINDS + PEOPLE, WIDTH))
    vector = centre[np.r_[np.arange(KINDS), kind]] + noise
    schema = {"item_id": pl.String, "embedding": pl.List(pl.Float32)}
    pl.DataFrame({"item_id": ids, "embedding": vector.tolist()}, schema).write_parquet(folder / "e.parquet")
    return folder


def train(world: Path, output: Path, *options: object) -> Path:
    works("train", "--dataset", world / "ds", "--model", world / "lm", "--output", output, *TRAIN, *options)
    return output


@pytest.fixture(scope="module")
def solved(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows the world; only read it."""
    run = tmp_path_factory.mktemp("runs") / "run"
    return train(world, run, "--epochs", 5, "--item-embeddings", world / "e.parquet")


@pytest.fixture(scope="module")
def adapter(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an adapter that knows little; only read it."""
    run = tmp_path_factory.mktemp("runs") / "adapter"
    return train(world, run, *QUICK, "--lora", "--item-embeddings", world / "e.parquet")


def test_embeddings_tell_what_titles_do_not(world: Path, solved: Path, tmp_path: Path) -> None:
    without = train(world, tmp_path / "without", "--epochs", 5)
    assert evaluated(without)["hr@1"] <= 0.5
    assert evaluated(solved)["hr@1"] >= 0.9
    works("evaluate", solved, "--windows", 5, "--examples", 2)


def test_a_run_holds_all_that_it_needs(world: Path, solved: Path, tmp_path: Path) -> None:
    shutil.copytree(solved, tmp_path / "copy")
    recipe = tmp_path / "copy" / "recipe.yaml"
    lines = [
        line if "e.parquet" not in line else "item_embeddings: /nowhere" for line in recipe.read_text().split("\n")
    ]
    recipe.write_text("\n".join(lines))
    here, there = (Recommender.load(run).recommend(["i010", "i011"], k=5) for run in (solved, tmp_path / "copy"))
    assert here == there
    provenance = json.loads((solved / "provenance.json").read_text())["item_embeddings"]
    assert provenance.keys() == {"items", "width", "sha256"}
    assert (provenance["items"], provenance["width"]) == (KINDS + PEOPLE, WIDTH)
    for file in (VECTORS, PROJECTOR):
        (tmp_path / "copy" / file).unlink()
        assert file in mistake("evaluate", tmp_path / "copy")
        shutil.copy(solved / file, tmp_path / "copy")


def test_the_epoch_that_is_kept_has_its_projector(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a validation that likes the worst epoch best, which is not the last."""
    measure = Validator.__call__
    monkeypatch.setattr(Validator, "__call__", lambda self: {name: -value for name, value in measure(self).items()})
    run = train(world, tmp_path / "run", "--epochs", 2, "--item-embeddings", world / "e.parquet")
    first, last = (-line["eval_ndcg@10"] for line in log_lines(run) if "eval_ndcg@10" in line)
    assert first < last - 0.01
    assert evaluated(run, "--split", "valid", "--beams", 10)["ndcg@10"] == pytest.approx(first, abs=1e-6)


def test_items_without_an_embedding_are_items_like_others(
    world: Path, solved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part = pl.read_parquet(world / "e.parquet").head(100)
    part.write_parquet(tmp_path / "part.parquet")
    with caplog.at_level(logging.WARNING):
        run = train(world, tmp_path / "run", *QUICK, "--item-embeddings", tmp_path / "part.parquet")
    assert f"part.parquet: {KINDS + PEOPLE - 100} of {KINDS + PEOPLE} items have no embedding" in caplog.text
    recommender = Recommender.load(run)
    assert len(recommender.recommend(["i200", "i010"], k=3)) == 3
    everything = recommender.recommend(["i010"], k=KINDS + PEOPLE, exclude_history=False)
    assert sum(item.probability for item in everything) == pytest.approx(1, abs=1e-4)
    first = recommender.run.prompter
    assert len(first.prompt([200])) == len(load_run(solved).prompter.prompt([200])) - 1


def test_a_student_takes_the_embeddings_and_solves_the_world(solved: Path, tmp_path: Path) -> None:
    run = tmp_path / "soft"
    works("train", "--stage", "soft", "--from", solved, "--output", run, *TRAIN, "--epochs", 5, "--alpha", 10)
    assert evaluated(run)["hr@1"] >= 0.9
    assert pl.read_parquet(run / VECTORS).equals(pl.read_parquet(solved / VECTORS))
    assert len(series(run, "distance")) > 5 and np.isfinite(series(run, "distance")).all()


@pytest.mark.parametrize(
    ("source", "options"),
    [
        pytest.param("solved", (), id="full"),
        pytest.param("solved", ("--lora",), id="full, new adapter"),
        pytest.param("adapter", (), id="adapter"),
        pytest.param("adapter", ("--negatives-from", "hard", "--refresh-steps", 2), id="hard, refreshed"),
    ],
)
def test_the_preference_stage_goes_on_from_the_projector(
    source: str, options: tuple[object, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    start, run = request.getfixturevalue(source), tmp_path / "dmpo"
    works("train", "--stage", "preference", "--from", start, "--output", run, *QUICK, *options)
    first = log_lines(run)[0]
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-6), "policy and reference are one, projector and all"
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert (run / PROJECTOR).read_bytes() != (start / PROJECTOR).read_bytes()
    before, after = (load_run(folder).model.item_embedding for folder in (start, run))
    assert before is not None and after is not None
    moved = (after.projector[0].weight - before.projector[0].weight).abs().max()
    assert 0 < moved < 0.1, "it goes on from there"
    works("evaluate", run, "--windows", 5)


def test_a_cache_of_another_projector_is_refused(adapter: Path, world: Path, tmp_path: Path) -> None:
    """The adapter's weights alone do not tell one reference from another."""
    shutil.copytree(adapter, tmp_path / "other")
    shared = ("--reference-cache", tmp_path / "cache", *QUICK)
    works("train", "--stage", "preference", "--from", adapter, "--output", tmp_path / "a", *shared)
    run = train(world, tmp_path / "seed", *QUICK, "--lora", "--item-embeddings", world / "e.parquet", "--seed", 1)
    shutil.copy(run / PROJECTOR, tmp_path / "other")
    said = mistake("train", "--stage", "preference", "--from", tmp_path / "other", "--output", tmp_path / "b", *shared)
    assert "holds log-probabilities of another reference (other: items)" in said


def test_soft_then_preference_then_soft(adapter: Path, tmp_path: Path) -> None:
    runs = [adapter, *(tmp_path / name for name in ("soft", "dmpo", "again"))]
    for stage, start, run in zip(("soft", "preference", "soft"), runs, runs[1:], strict=False):
        works("train", "--stage", stage, "--from", start, "--output", run, *QUICK)
    assert len({(run / PROJECTOR).read_bytes() for run in runs}) == 4
    assert all((run / VECTORS).read_bytes() == (adapter / VECTORS).read_bytes() for run in runs)
    works("evaluate", runs[-1], "--windows", 5, "--decoder", "grounding")
    works("evaluate", runs[-1], "--windows", 5, "--protocol", "candidates", "--candidates", 5, "--prompt", "choices")


def test_the_task_of_pairs_shows_items(world: Path, tmp_path: Path) -> None:
    options = (*QUICK, "--task", "pairs", "--objective", "lml", "--no-validation")
    run = train(world, tmp_path / "run", *options, "--item-embeddings", world / "e.parquet")
    works("evaluate", run, "--protocol", "pairs", "--prompt", "choices", "--windows", 5)
    assert series(run) != series(train(world, tmp_path / "without", *options))


def test_embeddings_may_come_from_a_run_and_a_recipe(world: Path, solved: Path, tmp_path: Path) -> None:
    run = train(world, tmp_path / "run", *QUICK, "--item-embeddings", solved)
    works("train", run / "recipe.yaml", "--output", tmp_path / "again")
    assert series(tmp_path / "again") == series(run)
    assert (tmp_path / "again" / PROJECTOR).read_bytes() == (run / PROJECTOR).read_bytes()


def test_a_run_that_was_killed_goes_on_with_its_projector(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(world / "e.parquet", tmp_path)
    options = (*QUICK, "--epochs", 3, "--checkpoint-steps", 1, "--item-embeddings", tmp_path / "e.parquet")
    whole, run = train(world, tmp_path / "whole", *options), tmp_path / "killed"
    log = LogFile.on_log

    def dies(self: LogFile, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        log(self, args, state, control, **kwargs)
        if state.global_step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(LogFile, "on_log", dies)
    with pytest.raises((KeyboardInterrupt, AssertionError)):
        train(world, run, *options)
    monkeypatch.undo()
    pl.read_parquet(world / "e.parquet").reverse().head(200).write_parquet(tmp_path / "e.parquet")
    said = mistake("train", "--resume", "--output", run)
    assert "e.parquet: holds other embeddings than when the run began; put the file back, or train anew" in said
    shutil.copy(world / "e.parquet", tmp_path)
    works("train", "--resume", "--output", run)
    assert series(run) == pytest.approx(series(whole), rel=1e-6)
    weights = [load_file(folder / PROJECTOR) for folder in (run, whole)]
    assert all((weights[0][name] - weights[1][name]).abs().max() < 1e-6 for name in weights[1])


def test_mistakes(world: Path, solved: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(world / "e.parquet")
    bad = tmp_path / "bad.parquet"

    def refused(path: Path, *options: object) -> str:
        places = ("--dataset", world / "ds", "--model", world / "lm", "--output", tmp_path / "run")
        line = mistake("train", *places, "--item-embeddings", path, *options)
        assert not (tmp_path / "run").exists()
        return line

    assert f"none.parquet: no such file; give a Parquet file of item embeddings or a run folder with {VECTORS}" in (
        refused(tmp_path / "none.parquet")
    )
    assert f"{VECTORS}: no such file" in refused(world / "ds")
    bad.write_text("no")
    assert "bad.parquet: cannot be read as Parquet" in refused(bad)
    frame.rename({"embedding": "vector"}).write_parquet(bad)
    assert "has no column 'embedding'; its columns are item_id, vector" in refused(bad)
    frame.with_columns(pl.col("embedding").list.head(pl.int_range(pl.len()).clip(3, 4))).write_parquet(bad)
    assert 'item "i004" has 4 numbers, item "i000" has 3' in refused(bad)
    frame.with_columns(pl.col("embedding").list.eval(pl.element() * float("nan"))).write_parquet(bad)
    assert 'the embedding of item "i000" is not finite' in refused(bad)
    frame.with_columns(item_id=pl.format("other-{}", "item_id")).write_parquet(bad)
    said = refused(bad)
    assert "has no embedding of any item of the catalogue" in said and "other-i000" in said and "like i0" in said
    said = mistake("train", "--stage", "preference", "--from", solved, "--output", tmp_path / "run",
                   "--item-embeddings", world / "e.parquet")  # fmt: skip
    assert "item_embeddings: the run" in said and "leave it out" in said
    assert catalign("train", "--help").out.count("--item-embeddings") == 1


def test_a_new_item_needs_no_embedding(world: Path, solved: Path, tmp_path: Path) -> None:
    """It is recommended, and stands in histories by its title; the others keep their embeddings in another order."""
    items = pl.read_csv(world / "items.csv")
    new = pl.DataFrame({"item": ["new"], "title": ["qwertz"]})
    pl.concat([new, items.reverse()]).write_csv(tmp_path / "items.csv")
    columns = ("--item-id", "item", "--title", "title")
    works("model", "recatalogue", solved, "--items", tmp_path / "items.csv", *columns, "--output", tmp_path / "run")
    before, after = Recommender.load(solved), Recommender.load(tmp_path / "run")
    old, grown = (recommender.run.prompter.prompt for recommender in (before, after))
    for item_id in ("i003", "i100"):
        index, moved = (recommender.catalogue.index_of(item_id) for recommender in (before, after))
        assert grown([moved]).tolist() == old([index]).tolist() and moved != index
    everything = after.recommend(["i100", "new"], k=KINDS + PEOPLE + 1, exclude_history=False)
    assert "new" in {item.item_id for item in everything} and len(everything) == KINDS + PEOPLE + 1

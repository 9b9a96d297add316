"""A teacher answers the training windows of the toy world, where the true answers are known."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from catalign.data.dataset import load_dataset
from catalign.errors import UserError
from catalign.training import distillation
from catalign.training.batches import Windows
from catalign.training.distillation import distil, read_answers, statistics
from catalign.training.run import Run, load_run
from catalign.training.soft_settings import Distillation
from toy import solve


@pytest.fixture(scope="module")
def teacher(toy_dataset: Path, warm_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained with LML: after MSL a model knows which title follows, not how a text goes on by itself."""
    return load_run(solve(toy_dataset, warm_model, tmp_path_factory.mktemp("runs") / "lml", "--objective", "lml"))


@pytest.fixture(scope="module")
def windows(toy_dataset: Path) -> Windows:
    return Windows.from_frame(load_dataset(toy_dataset).windows("train").head(60))


def test_constrained_answers_are_real_items_and_mostly_true(teacher: Run, windows: Windows, tmp_path: Path) -> None:
    answers = distil(teacher, windows, Distillation(best=3), tmp_path)
    assert answers["window"].to_list() == list(range(60))
    assert answers["items"].list.len().to_list() == [3] * 60
    titles = teacher.catalogue.titles
    for texts, items, scores in answers.select("texts", "items", "scores").iter_rows():
        assert texts == [titles[item] for item in items]
        assert scores == sorted(scores, reverse=True) and sum(np.exp(scores)) <= 1 + 1e-5
    found = json.loads((tmp_path / "statistics.json").read_text())
    assert found["windows"] == 60 and found["share_real"] == 1 and found["share_empty"] == 0
    true = [items[0] == target for items, target in zip(answers["items"], windows.target_S, strict=True)]
    assert found["share_true"] == np.mean(true) > 0.8


def test_free_answers_are_the_teachers_own_text(teacher: Run, windows: Windows, tmp_path: Path) -> None:
    answers = distil(teacher, windows, Distillation(mode="free", best=2), tmp_path)
    titles = set(teacher.catalogue.titles)
    best, real = answers["texts"].list.first(), answers["items"].list.first().is_not_null()
    assert real.to_list() == [text in titles for text in best]
    assert statistics(answers, windows)["share_true"] > 0.5


def test_a_killed_distillation_goes_on(
    teacher: Run, windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "CHUNK", 16)
    whole = distil(teacher, windows, Distillation(), tmp_path / "whole")
    distil(teacher, windows, Distillation(), tmp_path / "killed")
    (tmp_path / "killed" / "part-00001.parquet").unlink()  # as if it had never been written
    (tmp_path / "killed" / "statistics.json").unlink()
    assert len(read_answers(tmp_path / "killed")) == 44
    again = distil(teacher, windows, Distillation(), tmp_path / "killed")
    assert again.select("window", "items").equals(whole.select("window", "items"))
    assert json.loads((tmp_path / "killed" / "statistics.json").read_text())["timed"] == 16


def test_answers_of_other_settings_are_refused(teacher: Run, windows: Windows, tmp_path: Path) -> None:
    distil(teacher, windows, Distillation(), tmp_path)
    with pytest.raises(UserError, match="beams 4 there, 2 now"):
        distil(teacher, windows, Distillation(beams=2), tmp_path)
    fewer = dataclasses.replace(windows, target_S=windows.target_S[::-1].copy())
    with pytest.raises(UserError, match="windows"):
        distil(teacher, fewer, Distillation(), tmp_path)


def test_statistics_count_texts_that_are_no_title() -> None:
    answers = pl.DataFrame(
        {"window": [0, 1, 2], "texts": [["a"], [""], ["b"]], "items": [[4], [None], [5]], "scores": [[0.0]] * 3},
        schema=distillation.SCHEMA,
    )
    histories = [np.array([1], dtype=np.uint32)] * 3
    windows = Windows(np.arange(3), histories, np.array([4, 4, 4]), np.ones(3, dtype=np.int64))
    assert statistics(answers, windows) == {
        "windows": 3, "share_real": 2 / 3, "share_empty": 1 / 3, "share_true": 1 / 3,
    }  # fmt: skip


def test_a_part_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet").write_bytes(b"not Parquet")
    with pytest.raises(UserError, match="part-00000"):
        read_answers(tmp_path)

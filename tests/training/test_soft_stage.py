"""The SOFT stage through the command line, on the toy world."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from catalign.training.distillation import read_answers
from toy import catalign, evaluated, log_lines, make_dataset, mistake, series, solve, works

QUICK = ("--epochs", 3, "--batch-size", 16, "--learning-rate", 2e-3, "--precision", "float32", "--valid-windows", 12)
FEW = (*QUICK, "--train-examples", 48, "--logging-steps", 1)


def soft(teacher: Path, output: Path, *arguments: object) -> Path:
    works("train", "--stage", "soft", "--from", teacher, "--output", output, *arguments)
    return output


@pytest.fixture(scope="module")
def lml_run(toy_dataset: Path, warm_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "lml"
    return solve(toy_dataset, warm_model, run, "--objective", "lml", "--epochs", 6)


def test_it_solves_the_toy_world_and_logs_what_moved(toy_run: Path, tmp_path: Path) -> None:
    options = (*QUICK, "--batching", "shuffled", "--epochs", 8, "--alpha", 10)
    run = soft(toy_run, tmp_path / "soft", *options)
    assert evaluated(run)["ndcg@10"] > 0.9
    lambdas, distances = series(run, "lambda"), series(run, "distance")
    assert lambdas[0] == 1 and lambdas[-1] < 0.9
    first = distances[0]
    for weight, distance in zip(lambdas, distances, strict=True):
        assert weight == pytest.approx(min(math.exp(10 * (distance / first - 1)), 1), rel=1e-6)
    real, easy = series(run, "loss/real"), series(run, "loss/self-distilled")
    assert len(real) == len(easy) == len(lambdas) and all(np.isfinite(real)) and all(np.isfinite(easy))
    for loss, weight, one, other in zip(series(run), lambdas, real, easy, strict=True):
        assert min(one, other) * 0.9 <= loss <= max(one, other) * 1.1 and 0 <= weight <= 1
    statistics = json.loads((run / "distilled" / "statistics.json").read_text())
    assert statistics["share_real"] == 1 and statistics["windows"] > 300


def test_real_alone_is_plain_fine_tuning(toy_run: Path, toy_dataset: Path, warm_model: Path, tmp_path: Path) -> None:
    run = soft(toy_run, tmp_path / "soft", *FEW, "--curriculum", "real")
    places = ("--dataset", toy_dataset, "--model", warm_model, "--output", tmp_path / "sft")
    works("train", *places, *FEW)
    np.testing.assert_allclose(series(run), series(tmp_path / "sft"), rtol=2e-4)
    np.testing.assert_allclose(series(run), series(run, "loss/real"), rtol=1e-5)


def test_distilled_alone_never_sees_the_truth(toy_run: Path, tmp_path: Path) -> None:
    run = soft(toy_run, tmp_path / "soft", *FEW, "--curriculum", "distilled")
    np.testing.assert_allclose(series(run), series(run, "loss/self-distilled"), rtol=1e-5)
    assert set(series(run, "lambda")) == {1.0}


def test_micro_batches_and_padded_rows_train_alike(toy_run: Path, tmp_path: Path) -> None:
    shared = ("--distilled", tmp_path / "answers", "--curriculum", "constant", "--distilled-weight", 0.3)
    whole = series(soft(toy_run, tmp_path / "a", *FEW, *shared))
    for number, option in enumerate((("--micro-batch-size", 1), ("--no-share-prefixes",))):
        np.testing.assert_allclose(
            series(soft(toy_run, tmp_path / f"b{number}", *FEW, *shared, *option)), whole, rtol=2e-4
        )


def test_free_answers_and_a_soft_target(lml_run: Path, tmp_path: Path) -> None:
    run = soft(lml_run, tmp_path / "soft", *FEW, "--answers", "free", "--answers-kept", 2, "--curriculum-steps", 2)
    answers = read_answers(run / "distilled")
    assert answers["texts"].list.len().to_list() == [2] * 48
    assert len(set(series(run, "distance"))) > 2  # moved within epochs


def test_linear_falls_with_the_steps(toy_run: Path, tmp_path: Path) -> None:
    run = soft(toy_run, tmp_path / "soft", *FEW, "--curriculum", "linear", "--curriculum-steps", 1)
    steps = [line["step"] for line in log_lines(run) if "lambda" in line]
    # A line is logged after the weight has moved.
    np.testing.assert_allclose(series(run, "lambda"), 1 - np.array(steps) / 9)


def test_an_adapter_and_a_preference_stage_after_it(toy_run: Path, tmp_path: Path) -> None:
    run = soft(toy_run, tmp_path / "soft", *FEW, "--epochs", 1, "--lora", "--objective", "msl+ats")
    assert (run / "adapter_config.json").is_file()
    after = ("--output", tmp_path / "dmpo", "--epochs", 1, "--train-examples", 16, "--precision", "float32")
    works("train", "--stage", "preference", "--from", run, *after)
    again = soft(tmp_path / "dmpo", tmp_path / "again", *FEW, "--epochs", 1)
    assert json.loads((again / "provenance.json").read_text())["training"]["best_epoch"] == 1


def test_a_run_killed_while_the_teacher_answers_goes_on(
    toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalign.training import distillation

    monkeypatch.setattr(distillation, "CHUNK", 16)
    written: list[Path] = []
    write = distillation.write_parquet

    def dies(frame: pl.DataFrame, path: Path) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(frame, path)

    monkeypatch.setattr(distillation, "write_parquet", dies)
    arguments = ("train", "--stage", "soft", "--from", toy_run, "--output", tmp_path / "soft", *FEW, "--epochs", 1)
    with pytest.raises((KeyboardInterrupt, AssertionError, SystemExit)):
        assert catalign(*arguments).code == 0
    assert len(read_answers(tmp_path / "soft" / "distilled")) == 32
    monkeypatch.setattr(distillation, "write_parquet", write)
    works("train", "--resume", "--output", tmp_path / "soft")
    statistics = json.loads((tmp_path / "soft" / "distilled" / "statistics.json").read_text())
    assert statistics["windows"] == 48 and statistics["timed"] == 16
    assert "already exists" in mistake(*arguments)


def test_mistakes(toy_run: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        line = mistake("train", "--stage", "soft", "--output", tmp_path / "soft", *arguments)
        assert not (tmp_path / "soft").exists()
        return line

    assert "--from" in refused()
    assert "not a run folder" in refused("--from", tmp_path)
    assert "free answers" in refused("--from", toy_run, "--answers", "free")
    assert "alpha" in refused("--from", toy_run, "--alpha", 0)
    assert "alpha" in refused("--from", toy_run, "--alpha", "nan")
    assert "did you mean self-adaptive" in refused("--from", toy_run, "--curriculum", "self-adaptiv")
    assert "catalogue" in refused("--from", toy_run, "--dataset", make_dataset(tmp_path / "other", prefix="x"))
    other = tmp_path / "lm"
    works("model", "init", "--dataset", make_dataset(tmp_path / "more", titles=["a lamp", "b lamp", "c lamp"] * 4),
          "--output", other, "--preset", "tiny", "--epochs", 0)  # fmt: skip
    assert "tokenizer" in refused("--from", toy_run, "--model", other)
    assert "belongs to --stage soft" in mistake(
        "train", "--stage", "preference", "--from", toy_run, "--output", tmp_path / "soft", "--alpha", 1
    )


def test_answers_that_do_not_fit_leave_the_run_that_was_there(toy_run: Path, tmp_path: Path) -> None:
    run = soft(toy_run, tmp_path / "soft", *FEW, "--epochs", 1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("no answers")
    again = ("train", "--stage", "soft", "--from", toy_run, *FEW, "--epochs", 1, "--output", run, "--overwrite")
    assert "does not hold a teacher's answers" in mistake(*again, "--distilled", other)
    assert "so it is not replaced" in mistake(*again, "--distilled", run / "distilled")
    works("evaluate", run, "--windows", 5)

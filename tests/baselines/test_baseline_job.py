"""What a baseline's worker is given, and what is refused of what it returns."""

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from catalign.baselines.job import Answers, read_answers, run_worker, write_job
from catalign.errors import UserError
from stub_worker import environments_with

INTERACTIONS = pl.DataFrame(
    {
        "user_id": ["b", "b", "b", "a", "a", "a"],
        "item": pl.Series([4, 2, 0, 1, 4, 3], dtype=pl.UInt32),
        "timestamp": [None, 5, 6, 1, 2, 3],
        "split": ["train", "train", "test", "train", "train", "valid"],
    }
)
VALID = pl.DataFrame(
    {"window": [0, 1], "history": [[1, 4], [4, 2, 1]], "target": [3, 2]},
    schema={"window": pl.UInt32, "history": pl.List(pl.UInt32), "target": pl.UInt32},
)
ASKED = pl.DataFrame(
    {"window": [0, 2], "history": [[4, 2], [2]], "target": [0, 1]},
    schema={"window": pl.UInt32, "history": pl.List(pl.UInt32), "target": pl.UInt32},
)
SETTINGS = {"library": "rectools", "method": "popularity", "history": 2, "depth": 3}


def job_in(folder: Path, body: str) -> tuple[Path, Path]:
    """Write a job and an environment whose interpreter runs `body`; return the interpreter and the job."""
    job = folder / "job"
    job.mkdir()
    write_job(job, SETTINGS, INTERACTIONS, VALID, ASKED)
    return environments_with(folder, body) / "rectools" / "bin" / "python", job


def answered(folder: Path, body: str) -> Answers:
    python, job = job_in(folder, body)
    list(run_worker(python, job))
    return read_answers(job, VALID, ASKED, items=5, depth=3)


def test_only_training_is_handed_over(tmp_path: Path) -> None:
    write_job(tmp_path, SETTINGS, INTERACTIONS, VALID, ASKED)
    train = pl.read_parquet(tmp_path / "train.parquet")
    assert train["item"].to_list() == [4, 2, 1, 4] and train["milliseconds"].to_list() == [None, 5, 1, 2]
    assert train["user"].n_unique() == 2
    held = {name: pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("valid", "predict", "asked", "targets")}
    assert held["valid"].rows() == [(0, 1), (0, 4), (1, 2), (1, 1)], "histories are cut to the last two"
    assert held["predict"].rows() == [(0, 4), (0, 2), (2, 2)] and held["asked"].columns == ["window"]
    assert held["targets"].rows() == [(0, 3), (1, 2)], "of validation; those of the test split stay at home"
    assert {path.stem for path in tmp_path.iterdir()} == {*held, "train", "job"}


def test_answers_are_read_in_the_order_asked(tmp_path: Path) -> None:
    answers = answered(tmp_path, "answer([3, 2])")
    assert answers.ranked_WK.tolist() == [[3, 2, -1]] * 2 and answers.scores_WK[0].tolist()[:2] == [0, -1]
    assert answers.valid == pytest.approx((1 + 1 / 1.584962500721156) / 2)
    assert answers.embeddings is None and answers.search["versions"]["stub"] == "1"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("answer([3, 2], score=0.3)", r"NDCG@10 0.815465 on the validation windows, and it chose by 0\.3"),
        ("answer([3, 3])", r"is no ranking \(the ranked list of row 0 holds an item twice\)"),
        ("answer([3, 7])", "names items outside the catalogue"),
        ("answer([4, 3, 2, 1])", "holds lists of another length"),
        ("answer([3]); lists('targets', 'predictions', [3])", "predictions.parquet holds other windows"),
        ("answer([3]); (folder / 'predictions.parquet').unlink()", "predictions.parquet is missing"),
        ("answer([3]); (folder / 'embeddings.parquet').write_text('a')", "embeddings.parquet is missing or of another"),
        ("answer([3]); (folder / 'result.json').unlink()", "result.json: no such file"),
    ],
)  # fmt: skip
def test_wrong_answers_are_refused(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        answered(tmp_path, body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("print('hello', file=sys.stderr); sys.exit(3)", r"the worker ended with code 3 \(hello\)"),
        ("raise MemoryError('all of it')", r"the worker ended with code 1 \(MemoryError: all of it\)"),
        ("import os; os.kill(os.getpid(), 9)", "the worker ended with code -9 .it printed nothing"),
        ("print('I am fine')", "told something else than its progress: 'I am fine'"),
    ],
)
def test_a_worker_that_fails_is_told(tmp_path: Path, body: str, words: str) -> None:
    python, job = job_in(tmp_path, body)
    with pytest.raises(UserError, match=words):
        list(run_worker(python, job))


def test_an_interpreter_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"python: cannot be started \(No such file or directory\)"):
        list(run_worker(tmp_path / "python", tmp_path))


def test_leaving_early_ends_the_worker(tmp_path: Path) -> None:
    body = "import os, time\nprint(json.dumps({'event': 'pid', 'pid': os.getpid()}), flush=True)\ntime.sleep(60)"
    python, job = job_in(tmp_path, body)
    events = run_worker(python, job)
    pid = next(events)["pid"]
    events.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_the_worker_prints_elsewhere_is_no_progress(tmp_path: Path) -> None:
    said: list[dict[str, Any]] = []
    python, job = job_in(tmp_path, "print('a library chats', file=sys.stderr); answer([3])")
    said.extend(run_worker(python, job))
    assert [event["event"] for event in said] == ["epoch"]
    assert "a library chats" in (job / "worker.log").read_text()

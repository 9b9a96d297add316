"""A batch on a local Ray cluster: the same answers, also when a worker or the whole command is killed."""

import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psutil  # type: ignore[import-untyped]
import pytest
from test_batch_run import people, start, wait_for_part, write_people

from toy import catalign, works

pytest.importorskip("ray", reason="Ray is not installed (extra cluster)")
pytestmark = pytest.mark.slow

PEOPLE = 600
COMMON = ("--input", "in.jsonl", "--part-rows", 10, "--catalogue", "small=small.csv")


@pytest.fixture
def whole(toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pl.DataFrame]:
    """What one process answers."""
    monkeypatch.chdir(tmp_path)
    write_people([{name: value for name, value in row.items() if name != "filters"} for row in people(PEOPLE)])
    works("recommend", toy_run, *COMMON, "--output", "whole")
    yield pl.read_parquet("whole/part-*.parquet")


def in_ray(run: Path) -> "subprocess.Popen[str]":
    return start("recommend", run, *COMMON, "--output", "recs", "--engine", "ray", "--workers", 2)


def workers_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The processes that hold the model."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if any("MapWorker" in word for word in child.cmdline())]


def test_a_worker_that_is_killed_loses_nobody(toy_run: Path, whole: pl.DataFrame) -> None:
    process = in_ray(toy_run)
    wait_for_part(process, Path("recs"), parts=2)
    workers = workers_of(process)
    assert len(workers) == 2
    random.Random(0).choice(workers).kill()
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert out.startswith(f"recs: recommendations for {PEOPLE} people in 60 parts") and out.count("\n") == 1
    ours = ("checking files", "people in", "recommending")
    others = [line for line in err.splitlines() if not any(words in line for words in ours)]
    # Ray tells of the worker that died, and, each time, that an actor has arguments.
    assert all("(raylet)" in line or "has constructor arguments" in line for line in others), err
    told = pl.read_parquet("recs/part-*.parquet")
    assert told.drop("probabilities").equals(whole.drop("probabilities"))
    assert told["probabilities"].explode().to_list() == pytest.approx(
        whole["probabilities"].explode().to_list(), rel=1e-4
    )
    assert not list(Path("recs").glob(".*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)])
def test_another_engine_goes_on(toy_run: Path, whole: pl.DataFrame, number: signal.Signals, code: int) -> None:
    process = in_ray(toy_run)
    wait_for_part(process, Path("recs"))
    workers = workers_of(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=200)
    assert process.returncode == code, err
    assert number == signal.SIGKILL or "the same command goes on where it was" in err
    _, alive = psutil.wait_procs(workers, timeout=100)
    assert workers and alive == [], "the workers end with their command"
    assert len(list(Path("recs").glob("part-*.parquet"))) < 60
    works("recommend", toy_run, *COMMON, "--output", "recs")
    assert pl.read_parquet("recs/part-*.parquet").drop("probabilities").equals(whole.drop("probabilities"))


def test_there_is_no_cluster_at_the_address(toy_run: Path, whole: pl.DataFrame) -> None:
    ended = catalign(
        "recommend", toy_run, *COMMON, "--output", "recs", "--engine", "ray", "--ray-address", "127.0.0.1:1"
    )
    assert ended.code == 2 and "--ray-address 127.0.0.1:1: no cluster is there" in ended.err

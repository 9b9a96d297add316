"""Trackers receive the log and the recipe, and only those that were asked for."""

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalign.training import machine
from toy import mistake, series, works

SERVER = """
import os, sys

os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{sys.argv[1]}/runs.db"
os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = f"{sys.argv[1]}/artifacts"
from mlflow.server import app
from werkzeug.serving import make_server

make_server("127.0.0.1", int(sys.argv[2]), app).serve_forever()
"""
needs_mlflow = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mlflow", "flask", "sqlalchemy")),
    reason="mlflow-skinny and what its server needs are not installed (extra dev)",
)


@pytest.fixture
def tracking(tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server on a SQLite file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "server"
    folder.mkdir()
    log = (folder / "log").open("w")
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(folder), str(port)], stdout=log, stderr=log)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
    try:
        while True:
            assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5)
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()


@needs_mlflow
@pytest.mark.slow
def test_mlflow_receives_a_run(
    toy_dataset: Path, toy_model: Path, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "toy")
    usual = ["--dataset", toy_dataset, "--model", toy_model, "--train-examples", 24, "--batch-size", 8, "--epochs", 1]
    run = tmp_path / "first try"
    works("train", *usual, "--valid-windows", 4, "--logging-steps", 1, "--objective", "msl+ats", "--output", run,
          "--report-to", "mlflow")  # fmt: skip
    works("train", *usual, "--no-validation", "--output", tmp_path / "silent")  # sends nothing

    mlflow.flush_async_logging()
    client = mlflow.MlflowClient(tracking)
    (experiment,) = client.search_experiments(filter_string="name = 'toy'")
    (sent,) = client.search_runs([experiment.experiment_id])
    assert sent.info.run_name == "first try" and sent.info.status == "FINISHED"
    losses = [metric.value for metric in client.get_metric_history(sent.info.run_id, "loss")]
    assert losses == pytest.approx(series(run)) and len(losses) == 3
    names = {"temperature", "tokens_saved", "speed/windows_per_second", "seconds/forward", "eval_ndcg_10"}
    assert names <= sent.data.metrics.keys(), sent.data.metrics.keys()
    assert sent.data.params["recipe/batch_size"] == "8"
    assert sent.data.params["recipe/objective/temperature"] == "adaptive"


def test_refusals(toy_dataset: Path, toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    train = ["train", "--dataset", toy_dataset, "--model", toy_model, "--output", run, "--report-to"]
    assert "no such tracker; did you mean mlflow? choose from" in mistake(*train, "mflow")
    assert "always written" in mistake(*train, "tensorboard")
    monkeypatch.setattr(machine, "get_available_reporting_integrations", lambda: [])
    assert "--report-to comet_ml: its package is not installed; pip install comet-ml" in mistake(*train, "comet_ml")
    assert not run.exists()


def test_nothing_is_sent_unasked(
    toy_dataset: Path, toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a tracker is installed and its environment set."""
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    made: list[str] = []
    for name in machine.INTEGRATION_TO_CALLBACK:
        monkeypatch.setitem(machine.INTEGRATION_TO_CALLBACK, name, lambda name=name: made.append(name))
    usual = ["--dataset", toy_dataset, "--model", toy_model, "--train-examples", 8, "--epochs", 1, "--no-validation"]
    works("train", *usual, "--output", tmp_path / "run")
    assert made == [] and not any(name.startswith(("mlruns", "wandb")) for name in map(str, Path().iterdir()))

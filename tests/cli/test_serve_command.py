"""`catalign serve`: a real server on a real port, and what it refuses before it starts."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from toy import catalign, make_dataset, make_model, mistake, works


@pytest.fixture(scope="module")
def quick_run(toy_dataset: Path, toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has hardly learnt anything."""
    run = tmp_path_factory.mktemp("runs") / "quick"
    places = ["--dataset", toy_dataset, "--model", toy_model, "--output", run]
    works("train", *places, "--precision", "float32", "--epochs", 1, "--train-examples", 16)
    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no run given"),
        (["/no/such/run"], "not a run folder"),
        (["RUN", "--host", "0.0.0.0"], "pass --keys FILE"),
        (["RUN", "--host", "shop.example"], "pass --keys FILE"),
        (["RUN", "--keys", "/no/such/file"], "cannot be read"),
        (["RUN:0", "OTHER:1"], "is not above 0"),
        (["RUN", "RUN:2"], "two runs are called quick"),
    ],
)
def test_mistakes_are_one_line(quick_run: Path, arguments: list[str], said: str) -> None:
    assert said in mistake("serve", *(argument.replace("RUN", str(quick_run)) for argument in arguments))


def test_runs_of_different_catalogues_are_refused(quick_run: Path, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "other", titles=[f"thing {number}" for number in range(12)], users=20)
    model = make_model(dataset, tmp_path / "lm")
    places = ["--dataset", dataset, "--model", model, "--output", tmp_path / "elsewhere"]
    works("train", *places, "--precision", "float32", "--epochs", 1, "--train-examples", 16)
    assert "another catalogue" in mistake("serve", quick_run, tmp_path / "elsewhere")


def test_a_new_key_is_printed_with_its_line() -> None:
    said = catalign("serve", "--new-key", "shop")
    assert said.code == 0 and re.search(r"line: shop [0-9a-f]{64}\n", said.out)


@pytest.mark.slow
def test_a_server_starts_answers_and_ends_in_order(quick_run: Path) -> None:
    """A signal ends it with code 0 after what it took is answered; a taken port is a line and code 2."""
    program = "from catalign.cli.main import main; main()"
    command = [sys.executable, "-c", program, "serve", str(quick_run), "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        line = next(line for line in server.stderr if "http://" in line)
        address = re.search(r"http://\S+", line)
        assert address is not None
        request = urllib.request.Request(
            f"{address[0]}/v1/recommend", json.dumps({"history": ["i001"], "k": 3}).encode(),
            {"content-type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert len(json.load(answer)["items"]) == 3
        taken = address[0].rsplit(":", 1)[1]
        assert "cannot listen there" in mistake("serve", quick_run, "--port", taken)
        server.send_signal(signal.SIGTERM)
        assert '"route": "/v1/recommend"' in server.stderr.read()
        assert server.wait(timeout=60) in (0, -signal.SIGTERM)
    finally:
        server.kill()

"""What all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network; transformers reads these when toy imports it
os.environ["TRANSFORMERS_VERBOSITY"], os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "error", "1"

import toy  # noqa: E402
from postgres_server import PostgresServer, find_programs, postgres_server  # noqa: E402

SHARED = Path(__file__).parents[2] / "shared"
"""Real data and reference values beside the project; absent on other machines."""


@pytest.fixture(scope="session")
def toy_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset folder of the toy world; only read it."""
    return toy.make_dataset(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def toy_model(toy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of random weights with a tokenizer of the toy world's titles; only read it."""
    return toy.make_model(toy_dataset, tmp_path_factory.mktemp("model") / "lm")


@pytest.fixture(scope="session")
def warm_model(toy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model of the toy world: it knows the titles, not yet which follows which; only read it."""
    output = tmp_path_factory.mktemp("warm") / "lm"
    toy.works("model", "init", "--dataset", toy_dataset, "--output", output, "--preset", "tiny", "--epochs", 4)
    return output


@pytest.fixture(scope="session")
def toy_run(toy_dataset: Path, warm_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of MSL that knows the toy world; only read it."""
    return toy.solve(toy_dataset, warm_model, tmp_path_factory.mktemp("runs") / "msl")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL server of our own."""
    if find_programs() is None:
        pytest.skip("PostgreSQL is not installed (no initdb)")
    with postgres_server() as server:
        yield server


@pytest.fixture
def mortal_postgres() -> Iterator[PostgresServer]:
    """Another one, to kill."""
    if find_programs() is None:
        pytest.skip("PostgreSQL is not installed (no initdb)")
    with postgres_server() as server:
        yield server

"""What all tests share."""

from pathlib import Path

import pytest

import toy

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
def toy_run(toy_dataset: Path, toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of MSL that knows the toy world; only read it."""
    return toy.solve(toy_dataset, toy_model, tmp_path_factory.mktemp("runs") / "msl")

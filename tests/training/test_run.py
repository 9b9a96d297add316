"""The run folder can be used from anywhere, and is loaded whole or not at all."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from catalign.errors import UserError
from catalign.training.run import load_run
from toy import works


def test_a_run_is_used_from_another_folder(
    toy_dataset: Path, toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ds").symlink_to(toy_dataset)
    (tmp_path / "lm").symlink_to(toy_model)
    monkeypatch.chdir(tmp_path)
    works("train", "--dataset", "ds", "--model", "lm", "--output", "run", "--epochs", 1, "--lora")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "msl" in works("evaluate", "../run", "--windows", 5)
    monkeypatch.chdir(tmp_path / "run")
    assert load_run(Path()).checkpoint.startswith("run of 2")


def test_a_run_loads_from_its_folder_alone(toy_run: Path, tmp_path: Path) -> None:
    """Full weights need neither the dataset nor the model it started from."""
    shutil.copytree(toy_run, tmp_path / "copy", ignore=shutil.ignore_patterns("evaluations", "tensorboard", "log*"))
    recipe = tmp_path / "copy" / "recipe.yaml"
    lines = recipe.read_text().splitlines()
    gone = [line.split(":")[0] + ": /nowhere" if line.startswith(("dataset:", "model:")) else line for line in lines]
    recipe.write_text("\n".join(gone))
    program = (
        "import sys; from catalign.recommender import Recommender; "
        "print(len(Recommender.load(sys.argv[1]).recommend(['i001'])))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, "copy"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.stdout.strip() == "10", ended.stderr


@pytest.mark.parametrize("file", ["provenance.json", "template.json", "catalogue/catalogue.parquet", "config.json"])
def test_a_run_with_a_file_missing_is_told(toy_run: Path, tmp_path: Path, file: str) -> None:
    shutil.copytree(toy_run, tmp_path / "run")
    (tmp_path / "run" / file).unlink()
    with pytest.raises(UserError, match=file.rsplit("/")[-1]):
        load_run(tmp_path / "run")

"""What `catalign doctor` finds, and that it says so in both forms."""

import json
import tomllib
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from catalign import environment as module
from catalign.cli.doctor import doctor
from catalign.model.precision import PrecisionChoice

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def run(*options: str) -> str:
    app = typer.Typer()
    app.command()(doctor)
    result = CliRunner().invoke(app, list(options), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def pretend_versions(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None]) -> None:
    real = module._installed_version
    monkeypatch.setattr(module, "_installed_version", lambda name: versions[name] if name in versions else real(name))


def test_json_holds_what_a_program_needs() -> None:
    found = json.loads(run("--json"))
    versions = {row["package"]: row["version"] for row in found["versions"]}
    assert versions["torch"] == torch.__version__
    assert {"Python", "catalign", "transformers", "accelerate", "peft", "polars", "numpy"} <= set(versions)
    assert found["devices"]["cpu"]["cores"] >= 1
    assert found["precision"][0]["device"] == "cpu"
    assert len(found["precision"]) == 1 + len(found["devices"]["gpus"])


def test_the_tables_say_the_same() -> None:
    output = run()
    for text in ("Versions", "Devices", "Number formats in training", "Missing optional parts", torch.__version__):
        assert text in output


def test_number_formats_are_those_that_training_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype, said in ((torch.bfloat16, "bfloat16 autocast"), (torch.float32, "float32")):
        choice = PrecisionChoice(dtype, "because I say so")
        monkeypatch.setattr(module, "choose_precision", lambda device, choice=choice: choice)
        row = module.examine()["precision"][0]
        assert row["training"].startswith(said)
        assert row["why"] == "because I say so"
        assert "because I say so" in run()


def test_a_missing_or_old_requirement_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_versions(monkeypatch, {"peft": None, "torch": "2.1.0"})
    rows = {row["package"]: row for row in module.examine()["versions"]}
    assert not rows["peft"]["fits"]
    assert not rows["torch"]["fits"]
    assert rows["numpy"]["fits"]
    output = run()
    assert "not installed, needs >=0.20" in output
    assert "2.1.0, needs >=2.13" in output


def test_a_missing_optional_part_says_what_it_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_versions(monkeypatch, {"ir-measures": None})
    (part,) = [row for row in module.examine()["missing"] if row["part"] == "dev"]
    assert "ir-measures" in part["how"]
    assert "pip install 'catalign[dev]'" in run()


def test_a_whole_optional_part_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_installed_version", lambda name: "99.0")
    assert "dev" not in [row["part"] for row in module.examine()["missing"]]


def test_without_a_gpu_it_says_what_one_would_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert "GPU" in [row["part"] for row in module.examine()["missing"]]


def test_every_optional_part_is_described() -> None:
    declared = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(declared) == set(module.GIVES)

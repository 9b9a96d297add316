"""The workflows call targets that are there, publish what was tested, and the version stands once."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import catalign

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def workflow(name: str) -> dict[str, Any]:
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    read: dict[str, Any] = yaml.load(text, yaml.BaseLoader)  # which leaves `on` a word
    return read


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job.get("steps", []) if "run" in step]


@pytest.mark.parametrize("name", ["test", "release"])
def test_every_target_is_there(name: str) -> None:
    ran = [line for job in workflow(name)["jobs"].values() for line in commands(job)]
    targets = {target for line in ran for target in re.findall(r"\bmake (\w+)", line)}
    assert targets and all(re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE) for target in targets)


def test_both_ways_of_testing_run_the_same() -> None:
    here = re.findall(r"^make (\w+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), flags=re.MULTILINE)
    there = [
        line.removeprefix("make ") for line in commands(workflow("test")["jobs"]["test"]) if line.startswith("make")
    ]
    assert here == there


def test_nothing_is_published_untested() -> None:
    release = workflow("release")
    jobs = release["jobs"]
    assert release["on"] == {"push": {"tags": ["v*"]}}
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml" and "workflow_call" in workflow("test")["on"]
    assert jobs["build"]["needs"] == "test" and jobs["publish"]["needs"] == "build"
    assert "make dist" in commands(jobs["build"])
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == catalign.__version__

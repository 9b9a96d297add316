"""Every recipe in recipes/ fits the schema, its commands exist, and it trains: two steps on a small model."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import typer.main

from catalign.bench.suite import load_suite
from catalign.cli.main import app
from catalign.training.recipe import RECIPES, load_recipe, make_recipe
from fewshot_files import write_fewshot
from toy import ITEMS, TITLES, make_model, works

ROOT = Path(__file__).parents[1]
FILES = (ROOT / "recipes").glob("*/*.yaml")
RECIPE_FILES = sorted(str(path.relative_to(ROOT)) for path in FILES if path.parent.name != "accelerate")
SUITES = sorted((ROOT / "recipes").glob("*.yaml"))
README = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")


def commands(recipe: str) -> list[list[str]]:
    """The command lines in the head of a recipe."""
    text = (ROOT / recipe).read_text(encoding="utf-8")
    return [shlex.split(line)[1:] for line in re.findall(r"^# (?:First: |       )?(catalign .*)$", text, re.MULTILINE)]


def train_command(recipe: str) -> list[str]:
    """The one that trains it."""
    (found,) = [words for words in commands(recipe) if words[0] == "train"]
    return found


def output_of(recipe: str) -> str:
    """The run folder that a recipe makes, by its command."""
    words = train_command(recipe)
    return words[words.index("--output") + 1]


def starts(run: str) -> list[str]:
    """The recipes that make a run."""
    return [recipe for recipe in RECIPE_FILES if output_of(recipe) == run]


def test_there_are_recipes() -> None:
    assert len(RECIPE_FILES) > 40 and len(SUITES) >= 2


@pytest.mark.parametrize("recipe", RECIPE_FILES)
def test_a_recipe_fits_its_schema(recipe: str) -> None:
    fields = load_recipe(ROOT / recipe)
    first = fields.get("stage", "sft") == "sft"
    assert first == ("model" in fields) == ("dataset" in fields), "later stages take both from the run before"
    stand_ins = {} if first else {"dataset": "ds", "model": "lm"}
    made = make_recipe({**stand_ins, **fields}, where=recipe)
    assert isinstance(made, RECIPES[fields.get("stage", "sft")])
    text = (ROOT / recipe).read_text(encoding="utf-8")
    assert text.startswith("# ") and max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("suite", SUITES, ids=lambda path: path.name)
def test_a_suite_fits_its_schema(suite: Path) -> None:
    assert load_suite(suite).methods


@pytest.mark.parametrize("recipe", RECIPE_FILES)
def test_the_commands_of_a_recipe_exist(recipe: str) -> None:
    assert train_command(recipe)[1] == recipe, "the command names its own file"
    for words in commands(recipe):
        command: Any = typer.main.get_command(app)
        rest = iter(words)
        while hasattr(command, "commands"):  # a group of commands
            command = command.commands[next(rest)]
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in rest if word.startswith("--")} <= known, words


@pytest.mark.parametrize("recipe", RECIPE_FILES)
def test_what_a_recipe_goes_on_from_is_made_by_another(recipe: str) -> None:
    source = load_recipe(ROOT / recipe).get("from")
    assert source is None or starts(source)


def test_the_table_names_every_recipe_and_nothing_else() -> None:
    named = {name for name in re.findall(r"\]\(([\w./-]+\.yaml)\)", README) if not name.startswith("accelerate/")}
    assert named == {name.removeprefix("recipes/") for name in RECIPE_FILES} | {path.name for path in SUITES}


class Bench:
    """A folder with what the recipes ask for, small, and the runs that later stages go on from."""

    def __init__(self, folder: Path, dataset: Path) -> None:
        self.datasets = {"toy": dataset, "few-shot": self._few_shot(folder)}
        self.models = {name: make_model(path, folder / f"lm-{name}") for name, path in self.datasets.items()}
        vectors = np.random.default_rng(0).normal(size=(ITEMS, 4))
        columns = {"item_id": [f"i{item:03d}" for item in range(ITEMS)], "embedding": vectors.tolist()}
        schema = {"item_id": pl.String, "embedding": pl.List(pl.Float32)}
        self.embeddings = folder / "embeddings.parquet"
        pl.DataFrame(columns, schema).write_parquet(self.embeddings)

    def _few_shot(self, folder: Path) -> Path:
        def window(user: int) -> Any:
            titles = [TITLES[(user * 5 + step) % ITEMS] for step in range(9)]
            return titles[:3], titles[3], titles[4:]

        (folder / "files").mkdir()
        write_fewshot(folder / "files", [window(user) for user in range(12)], [window(user) for user in range(12, 20)])
        options = ("--layout", "dmpo", "--domain", "games", "--output", folder / "few-shot")
        works("data", "prepare", folder / "files", *options)
        return folder / "few-shot"

    def train(self, recipe: str, output: str) -> Path:
        """Train two steps by a recipe, after what it goes on from."""
        fields = load_recipe(ROOT / recipe)
        source = fields.get("from")
        if source is not None and not Path(source).exists():
            self.train(starts(source)[0], source)
        size = {"train_examples": 8, "batch_size": 4, "micro_batch_size": 2, "logging_steps": 1}
        if fields.get("stage") == "soft":
            size["curriculum.prompts"] = 4
        if source is None:
            world = "few-shot" if recipe.startswith("recipes/dmpo") else "toy"
            places: list[object] = ["--dataset", self.datasets[world], "--model", self.models[world]]
        else:
            places = []
        items = ["--item-embeddings", self.embeddings] if "item_embeddings" in fields else []
        smaller = [text for name, value in size.items() for text in ("--set", f"{name}={value}")]
        works("train", recipe, "--output", output, *places, *items, *smaller, "--epochs", 1, "--no-validation")
        return Path(output)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, toy_dataset: Path) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield Bench(folder, toy_dataset)


@pytest.mark.slow  # all of them together
@pytest.mark.parametrize("recipe", RECIPE_FILES)
def test_a_recipe_trains_for_two_steps(bench: Bench, recipe: str) -> None:
    run = bench.train(recipe, "tried/" + recipe.replace("/", "-"))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)
    assert json.loads((run / "provenance.json").read_text())["training"]["steps"] == 2

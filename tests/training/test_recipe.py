"""A recipe file becomes a recipe, or a line that says what to mend."""

from pathlib import Path

import pytest
import yaml

from catalign.errors import UserError
from catalign.training.recipe import OBJECTIVES, PREFERENCES, PreferenceRecipe, Recipe, load_recipe, make_recipe

LEAST = {"dataset": "ds", "model": "lm"}


def test_the_least_recipe_is_complete() -> None:
    recipe = make_recipe(LEAST, where="here")
    assert recipe.objective.label == "msl" and recipe.lora is None and recipe.windows_at_once == 128


def test_a_recipe_survives_its_file(tmp_path: Path) -> None:
    fields = {
        **LEAST,
        "objective": {"temperature": "adaptive"},
        "lora": {"target_modules": ["a", "b"]},
        "batch_size": 6,
    }
    recipe = make_recipe({**fields, "micro_batch_size": 2}, where="here")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert make_recipe(load_recipe(tmp_path / "r.yaml"), where="there") == recipe
    assert recipe.windows_at_once == 2


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_may_stand_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "r.yaml").write_text(f"{{dataset: ds, model: lm, objective: {name}}}")
    assert make_recipe(load_recipe(tmp_path / "r.yaml"), where="here").objective.label == name


@pytest.mark.parametrize("name", sorted(Recipe.model_fields))
def test_a_misspelt_name_is_recognised(name: str) -> None:
    with pytest.raises(UserError, match=rf"here: unknown name {name}s; did you mean \w+\?"):
        make_recipe({**LEAST, f"{name}s": 1}, where="here")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"lora": {"rnk": 3}}, r"here: unknown name lora\.rnk; did you mean rank\?"),
        ({"learning_rate": "fast"}, "here: learning_rate is fast; it should be a valid number"),
        ({"seed": 1.5}, r"here: seed is 1\.5; it should be a valid integer"),
        ({"objective": {"temperature": "warm"}}, r"here: objective\.temperature is warm"),
        ({"objective": {"name": "mls"}}, r"here: objective\.name: no such choice: mls; did you mean msl\? choose from"),
        ({"lora": {"target_modules": "q_proj"}}, r"here: lora\.target_modules is q_proj; it should be a valid tuple"),
        ({"dataset": None}, "here: dataset is None"),
    ],
)
def test_a_value_that_does_not_fit_is_named(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_recipe({**LEAST, **fields}, where="here")


PREFERENCE = {**LEAST, "stage": "preference", "from": "runs/sft"}


def test_the_least_preference_recipe_is_complete() -> None:
    recipe = make_recipe(PREFERENCE, where="here")
    assert isinstance(recipe, PreferenceRecipe)
    assert recipe.objective.label == "dmpo" and recipe.source == Path("runs/sft") and recipe.negatives.count == 3


def test_a_preference_recipe_survives_its_file(tmp_path: Path) -> None:
    negatives = {"kind": "hard", "refresh_steps": 3}
    recipe = make_recipe({**PREFERENCE, "lora": {}, "negatives": negatives, "validation": None}, where="here")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True)))
    assert make_recipe(load_recipe(tmp_path / "r.yaml"), where="there") == recipe


@pytest.mark.parametrize("name", PREFERENCES)
def test_a_preference_may_stand_by_its_name(tmp_path: Path, name: str) -> None:
    fields = f"{{dataset: ds, model: lm, stage: preference, from: a, negatives: {{count: 1}}, objective: {name}}}"
    (tmp_path / "r.yaml").write_text(fields)
    assert make_recipe(load_recipe(tmp_path / "r.yaml"), where="here").objective.label == name


@pytest.mark.parametrize("name", ["from", *sorted(set(PreferenceRecipe.model_fields) - {"source"})])
def test_a_misspelt_name_of_the_preference_stage_is_recognised(name: str) -> None:
    with pytest.raises(UserError, match=rf"here: unknown name {name}s; did you mean \w+\?"):
        make_recipe({**PREFERENCE, f"{name}s": 1}, where="here")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stage": "prefer"}, "here: no such stage: prefer; did you mean preference?"),
        ({"stage": "sft"}, "here: unknown name from; it belongs to --stage soft or preference"),
        ({"objective": {"name": "dpo"}}, "here: dpo takes 1 negative, not 3"),
        ({"without_sft": True}, "here: a run to start from, --from, or --without-sft: one of them, not both"),
        ({"from": None}, "here: a run to start from, --from, or --without-sft: one of them, not both"),
        ({"negatives": {"kind": "hard", "refresh_steps": 1}}, "here: all weights train, so there is no reference left"),
        ({"objective": {"eta": 1}}, r"here: unknown name objective\.eta; it belongs to --stage sft"),
    ],
)
def test_a_preference_that_does_not_fit(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_recipe({**PREFERENCE, **fields}, where="here")

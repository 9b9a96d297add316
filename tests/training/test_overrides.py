"""`--set`: keys with dots, values by the schema, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalign.errors import UserError
from catalign.training.overrides import override
from catalign.training.recipe import RECIPES, fields_of, make_recipe, part_of

LEAST = {"dataset": "ds", "model": "lm"}


def recipe_with(*assignments: str, **fields: Any) -> Any:
    return make_recipe(override({**LEAST, **fields}, assignments), where="here")


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("epochs=3", lambda recipe: recipe.epochs == 3),
        (" seed = 7 ", lambda recipe: recipe.seed == 7),
        ("learning_rate=1e-4", lambda recipe: recipe.learning_rate == 1e-4),
        ("learning_rate=.5", lambda recipe: recipe.learning_rate == 0.5),
        ("model=2024-01-01", lambda recipe: recipe.model == "2024-01-01"),
        ("model=1e4", lambda recipe: recipe.model == "1e4"),
        ("model=a: b", lambda recipe: recipe.model == "a: b"),
        ("model=a=b", lambda recipe: recipe.model == "a=b"),
        ("dataset=12", lambda recipe: recipe.dataset == Path("12")),
        ("share_prefixes=false", lambda recipe: recipe.share_prefixes is False),
        ("lora.rank=16", lambda recipe: recipe.lora.rank == 16 and recipe.lora.alpha == 16),
        ("lora={rank: 4, alpha: 8}", lambda recipe: (recipe.lora.rank, recipe.lora.alpha) == (4, 8)),
        ("lora.target_modules=[q_proj, k_proj]", lambda recipe: recipe.lora.target_modules == ("q_proj", "k_proj")),
        ("validation=null", lambda recipe: recipe.validation is None),
        ("validation.windows=20", lambda recipe: recipe.validation.windows == 20),
        ("objective=msl+ats", lambda recipe: recipe.objective.label == "msl+ats"),
        ("objective.temperature=4.5", lambda recipe: recipe.objective.temperature == 4.5),
        ("objective.temperature=adaptive", lambda recipe: recipe.objective.label == "msl+ats"),
        ("history.kind=anchored", lambda recipe: recipe.history.kind == "anchored"),
    ],
)
def test_a_value_is_read_as_its_field_wants_it(assignment: str, read: Any) -> None:
    assert read(recipe_with(assignment))


def test_parts_keep_what_is_not_set() -> None:
    fields = {**LEAST, "lora": {"rank": 2, "alpha": 4}, "validation": None}
    changed = override(fields, ["lora.rank=3", "lora.dropout=0", "validation.beams=20"])
    assert changed["lora"] == {"rank": 3, "alpha": 4, "dropout": 0} and changed["validation"] == {"beams": 20}
    assert fields["lora"] == {"rank": 2, "alpha": 4}, "the fields that were given stay as they were"


def test_the_stage_decides_what_is_known() -> None:
    assert override(LEAST, ["stage=soft", "curriculum.alpha=2"])["curriculum"] == {"alpha": 2}
    assert override(LEAST, ["negatives.count=2", "from=runs/a"], "preference")["from"] == "runs/a"
    with pytest.raises(UserError, match=r"--set: unknown name curriculum; it belongs to --stage soft"):
        override(LEAST, ["curriculum.alpha=2"])
    with pytest.raises(UserError, match="--set stage: no such stage: softer; did you mean soft"):
        override(LEAST, ["stage=softer"])


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (["epochs"], "--set: epochs names no value; write it as key=value"),
        (["=3"], "--set: =3 names no value"),
        (["epoch=3"], "--set: unknown name epoch; did you mean epochs? choose from dataset, model"),
        (["lora.rnk=3"], r"--set: unknown name lora.rnk; did you mean rank? choose from rank, alpha, dropout, target"),
        (["lora={rnk: 3}"], "--set: unknown name lora.rnk; did you mean rank? choose from rank, alpha"),
        (["lora.rank.x=3"], "--set lora.rank.x: lora.rank has no parts; write lora.rank=..."),
        (["lora..rank=3"], "--set: unknown name lora.;"),
        (["epochs=3", "epochs=3"], "--set: epochs is set twice"),
        (["lora.rank=3", "lora=null"], "--set: lora beside lora.rank is set twice"),
        (["epochs=soon"], "--set: epochs is soon; it should be a valid integer"),
        (["epochs=0"], "--set: epochs is 0; it should be greater than or equal to 1"),
        (["epochs=null"], "--set: epochs is None; it should be a valid integer"),
        (["seed=1.5"], "--set: seed is 1.5; it should be a valid integer"),
        (["seed=[1"], "--set: seed is [1; it should be a valid integer"),
        (["share_prefixes=maybe"], "--set: share_prefixes is maybe; it should be a valid boolean"),
        (["schedule=liner"], "--set: schedule: no such choice: liner; did you mean linear?"),
        (["lora=8"], "--set: lora: a mapping of names to values is expected"),
        (["lora={rank: 0}"], "--set: lora.rank is 0; it should be greater than or equal to 1"),
        (["objective=mls"], "--set objective: no such objective: mls; did you mean msl?"),
        (["objective=sdpo"], "--set objective: sdpo is no objective of the stage sft; pass --stage preference"),
    ],
)
def test_what_is_refused(assignments: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        override(LEAST, assignments)
    assert words in str(caught.value) and "\n" not in str(caught.value)


KEYS = sorted(
    {
        key
        for kind in RECIPES.values()
        for name, field in fields_of(kind).items()
        for key in [name, *(f"{name}.{below}" for below in fields_of(part_of(field) or kind) if part_of(field))]
    }
)


@given(st.sampled_from(KEYS), st.text(max_size=12))
def test_any_text_is_taken_or_refused_in_a_line(key: str, text: str) -> None:
    for stage in RECIPES:
        try:
            changed = override(LEAST, [f"{key}={text}"], stage)
        except UserError as refused:
            assert "\n" not in str(refused)
        else:
            assert set(changed) <= {*LEAST, key.split(".")[0]}

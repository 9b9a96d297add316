"""What a training run is asked to do: one typed file."""

import difflib
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from catalign.decoding.search import ScoreMode
from catalign.errors import UserError
from catalign.model.loading import Lora
from catalign.model.precision import Precision
from catalign.prompting.histories import HistoryRule
from catalign.training.module import Objective

OBJECTIVES: dict[str, dict[str, Any]] = {
    "lml": {"name": "lml"},
    "msl": {"name": "msl"},
    "msl+ats": {"name": "msl", "temperature": "adaptive"},
}
"""The objectives by their names on the command line."""


class Validation(BaseModel):
    """How the best epoch is chosen: by NDCG@10 on windows of the validation split, never of the test split.

    Attributes:
        windows: how many windows are drawn (all, if there are fewer).
        beams: width of the search.
        score: score mode of the search.
        patience: epochs without a better NDCG@10 after which training stops.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    windows: int = Field(default=1000, ge=1)
    beams: int = Field(default=10, ge=10)
    score: ScoreMode = "valid"
    patience: int = Field(default=3, ge=1)


class Recipe(BaseModel):
    """One run of `catalign train`.

    Attributes:
        dataset: dataset folder.
        model: Hugging Face folder or name.
        objective: what is minimised.
        template: `plain`, `instruction` or a YAML file.
        history: which items of a history a prompt shows; absent, all that the windows of the dataset hold.
        lora: the adapter; absent, all weights are trained.
        train_examples: few-shot: train on this many windows, drawn with the seed.
        epochs: most passes over the training windows.
        learning_rate: peak, reached after the warm-up steps.
        schedule: how the learning rate falls after that.
        warmup_steps: optimiser steps until the peak, at most a tenth of all steps.
        weight_decay: of AdamW.
        batch_size: windows of one optimiser step.
        micro_batch_size: windows of one forward pass; gradients are accumulated. Absent, the batch size.
        batching: `by-user` puts the windows of a user into one batch, where they share their prefixes; `shuffled` does
            not.
        row_tokens: longest row of the prefix forest, in tokens.
        share_prefixes: off, every window is a row of its own.
        precision: `auto` takes bfloat16 autocast where the hardware has it.
        validation: how the best epoch is chosen.
        logging_steps: optimiser steps between two lines of the log. Absent, about ten lines an epoch.
        seed: of everything that is drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: Path
    model: str
    objective: Objective = Objective()
    template: str = "plain"
    history: HistoryRule | None = None
    lora: Lora | None = None
    train_examples: int | None = Field(default=None, ge=1)
    epochs: int = Field(default=10, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    warmup_steps: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    batch_size: int = Field(default=128, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    batching: Literal["by-user", "shuffled"] = "by-user"
    row_tokens: int = Field(default=256, ge=16)
    share_prefixes: bool = True
    precision: Precision = "auto"
    trust_remote_code: bool = False
    validation: Validation = Validation()
    logging_steps: int | None = Field(default=None, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError("batch_size must be a multiple of micro_batch_size")
        return self

    @property
    def accumulation(self) -> int:
        """Forward passes of one optimiser step."""
        return self.batch_size // (self.micro_batch_size or self.batch_size)


def load_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe file into plain fields (checked by `make_recipe`).

    Raises:
        UserError: absent, or not a YAML mapping.
    """
    try:
        fields = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError("no such recipe", where=path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"is not YAML ({error})", where=path) from error
    except OSError as error:
        raise UserError("cannot be read", where=path, mend="give a recipe file (YAML)") from error
    if not isinstance(fields, dict):
        raise UserError("is not a recipe: a mapping of names to values is expected", where=path)
    if isinstance(fields.get("objective"), str):
        fields["objective"] = find_objective(fields["objective"], where=f"{path}, objective")
    for part in ("objective", "lora", "validation"):
        if not isinstance(fields.get(part, {}), dict | None):
            raise UserError(f"{part}: a mapping of names to values is expected", where=path)
    return fields


def find_objective(name: str, *, where: str) -> dict[str, Any]:
    """The fields of an objective by its short name.

    Raises:
        UserError: no such objective.
    """
    if name not in OBJECTIVES:
        raise UserError(f"no such objective: {name}", where=where, mend=_choose(name, list(OBJECTIVES)))
    return OBJECTIVES[name]


def make_recipe(fields: dict[str, Any], *, where: str) -> Recipe:
    """Check the fields of a recipe.

    Raises:
        UserError: an unknown name (with the nearest known one), a missing one, or a value that does not fit.
    """
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        known = _names(Recipe)
        path = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":
            raise UserError(f"unknown name {'.'.join(path)}", where=where, mend=_choose(path[-1], known)) from error
        name = ".".join(part for part in path if part in known)  # without the branch of a union
        if first["type"] == "missing":
            raise UserError(f"no {name} given", where=where, mend=f"name it: --{name}") from error
        if first["type"] == "literal_error":
            choices = re.findall(r"'([^']*)'", str(first["ctx"]["expected"]))
            mend = _choose(str(first["input"]), choices)
            raise UserError(f"{name}: no such choice: {first['input']}", where=where, mend=mend) from error
        if first["type"] == "value_error":  # of several fields together
            raise UserError(first["msg"].removeprefix("Value error, "), where=where) from error
        reason = first["msg"].replace("Input should", "it should")
        raise UserError(f"{name} is {first['input']}", where=where, mend=reason) from error


def _choose(name: str, choices: list[str]) -> str:
    """What to write instead of `name`: the nearest choice, and all of them."""
    near = difflib.get_close_matches(name, choices, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"choose from {', '.join(choices)}"


def _names(model: type[BaseModel]) -> list[str]:
    """Names of a model's fields and of the models below it."""
    names = list(model.model_fields)
    for field in model.model_fields.values():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                names.extend(_names(kind))
    return names

"""What a training run is asked to do: one typed file."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from catalign.decoding.scores import ScoreMode
from catalign.errors import UserError
from catalign.files import read_yaml
from catalign.model.loading import Lora
from catalign.model.precision import Precision
from catalign.model.quantized import Quantize
from catalign.plugins import is_outside
from catalign.prompting.histories import HistoryRule
from catalign.training.module import Objective
from catalign.training.negatives import Negatives
from catalign.training.preference_module import PreferenceName, PreferenceObjective
from catalign.training.soft_settings import Curriculum, Distillation

OBJECTIVES: dict[str, dict[str, Any]] = {
    "lml": {"name": "lml"},
    "msl": {"name": "msl"},
    "msl+ats": {"name": "msl", "temperature": "adaptive"},
}
"""The objectives of supervised fine-tuning by their names on the command line."""
PREFERENCES: dict[str, dict[str, Any]] = {name: {"name": name} for name in get_args(PreferenceName)}
STAGE_OBJECTIVES = {"sft": OBJECTIVES, "soft": OBJECTIVES, "preference": PREFERENCES}

Task = Literal["titles", "pairs"]


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


class StageRecipe(BaseModel):
    """What the recipes of all stages have in common.

    Attributes:
        dataset: dataset folder.
        model: Hugging Face folder or name.
        objective: what is minimised.
        stage: which stage of training this is.
        template: `plain`, `instruction` or a YAML file.
        history: which items of a history a prompt shows; absent, all that the windows of the dataset hold.
        lora: the adapter; absent, all weights are trained.
        item_embeddings: Parquet file with columns `item_id` and `embedding`, or a run folder that holds one: items of a
            history then stand in the prompt by a projection of their embedding beside their title (LLaRA).
        train_examples: few-shot: train on this many windows, drawn with the seed.
        epochs: most passes over the training windows.
        learning_rate: peak, reached after the warm-up steps.
        schedule: how the learning rate falls after that.
        warmup_steps: optimiser steps until the peak, at most a tenth of all steps.
        weight_decay: of AdamW.
        batch_size: windows of one optimiser step.
        micro_batch_size: windows of one forward pass; gradients are accumulated. Absent, the batch size.
        max_tokens: most tokens of one forward pass of a process, after merging common prefixes and with the padding of
            rows; a step is cut into as few passes as fit.
        gradient_checkpointing: keep what enters a layer only and compute the rest again in the backward pass: less
            memory, about a third more time.
        quantize: load the frozen weights below an adapter in so many bits (bitsandbytes).
        batching: `by-user` puts the windows of a user into one batch, where they share their prefixes; `shuffled` does
            not.
        row_tokens: longest row of the prefix forest, in tokens. Absent, the length with the least work for the first
            batches (`rows.choose_row_tokens`).
        share_prefixes: off, every window is a row of its own.
        precision: `auto` takes bfloat16 autocast where the hardware has it.
        validation: how the best epoch is chosen; null, nothing is validated and the last epoch is kept.
        logging_steps: optimiser steps between two lines of the log. Absent, about ten lines an epoch.
        checkpoint_steps: optimiser steps between two checkpoints within an epoch, whose end makes one anyway; null, no
            others.
        report_to: trackers that receive the log, by their names in Transformers (`mlflow`, `wandb`, `trackio`, ...).
        profile: write a trace of a few steps.
        peak_flops: operations a second that the device does at most, for the utilisation. Absent, known by the
            device's name or measured.
        seed: of everything that is drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: Path
    model: str
    objective: Objective | PreferenceObjective
    stage: str
    template: str = "plain"
    history: HistoryRule | None = None
    lora: Lora | None = None
    item_embeddings: Path | None = None
    train_examples: int | None = Field(default=None, ge=1)
    epochs: int = Field(default=10, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    warmup_steps: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    batch_size: int = Field(default=128, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    gradient_checkpointing: bool = False
    quantize: Quantize | None = None
    batching: Literal["by-user", "shuffled"] = "by-user"
    row_tokens: int | None = Field(default=None, ge=16)
    share_prefixes: bool = True
    precision: Precision = "auto"
    trust_remote_code: bool = False
    validation: Validation | None = Validation()
    logging_steps: int | None = Field(default=None, ge=1)
    checkpoint_steps: int | None = Field(default=500, ge=1)
    report_to: tuple[str, ...] = ()
    profile: bool = False
    peak_flops: float | None = Field(default=None, gt=0)
    seed: int = 0

    @model_validator(mode="after")
    def _check_batches(self) -> Self:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError("batch_size must be a multiple of micro_batch_size")
        return self

    @model_validator(mode="after")
    def _check_quantize(self) -> Self:
        if self.quantize is not None and self.lora is None:
            raise ValueError(f"weights of {self.quantize} cannot be trained, only an adapter on them: add --lora")
        return self

    @property
    def windows_at_once(self) -> int:
        """Most windows of one forward pass, in all processes together."""
        return self.micro_batch_size or self.batch_size


class Recipe(StageRecipe):
    """Supervised fine-tuning: the next title is the answer.

    Attributes:
        task: `titles`; or `pairs`, see `training.pairs_task`: the prompt shows the next title and another beside the
            history, and the answer names both in order.
    """

    objective: Objective = Objective()
    stage: Literal["sft"] = "sft"
    task: Task = "titles"

    @model_validator(mode="after")
    def _check_task(self) -> Self:
        check_task(self, "--objective lml")
        return self


def check_task(recipe: "Recipe | PreferenceRecipe", vocabulary: str) -> None:
    """Refuse what does not go with the task of pairs; `vocabulary` is the option for the scores that it takes."""
    if recipe.task == "titles":
        return
    if recipe.objective.scores != "vocabulary":
        raise ValueError(f"the task of pairs is scored over the whole vocabulary: pass {vocabulary}")
    if recipe.validation is not None:
        raise ValueError("validation searches for titles, the task of pairs answers with two: pass --no-validation")


class PreferenceRecipe(StageRecipe):
    """Preference optimisation after a run of supervised fine-tuning.

    `preference_stage.continued` takes over from that run what the file leaves out. Dropout is off in this stage,
    `lora.dropout` plays no part: policy and reference are compared title by title.

    Attributes:
        task: `titles` or `pairs`, as in `Recipe`; that of the run it starts from.
        source: the run to start from and to compare with; `from` in the file.
        without_sft: start from the model itself; stands in place of `from`.
        negatives: what the target is preferred to.
        reference_cache: folder of reference log-probabilities that several runs share; absent, `reference` in the run.
    """

    model_config = ConfigDict(populate_by_name=True)

    objective: PreferenceObjective = PreferenceObjective()
    stage: Literal["preference"]
    task: Task = "titles"
    source: Path | None = Field(default=None, alias="from")
    without_sft: bool = False
    epochs: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    negatives: Negatives = Negatives()
    reference_cache: Path | None = None

    @model_validator(mode="after")
    def _check_preference(self) -> Self:
        if (self.source is None) != self.without_sft:
            raise ValueError("a run to start from, --from, or --without-sft: one of them, not both")
        if self.negatives.refresh_steps is not None and self.lora is None and self.objective.has_reference:
            raise ValueError(
                "all weights train, so there is no reference left for refreshed negatives: add --lora, or leave "
                "--refresh-steps out"
            )
        if self.objective.name == "dpo" and self.negatives.count != 1:
            raise ValueError(f"dpo takes 1 negative, not {self.negatives.count}: pass --negatives 1, or take dmpo")
        check_task(self, "--score full")
        if self.task == "pairs" and self.negatives.kind == "hard":
            raise ValueError("hard negatives are found by search, which the task of pairs does not train: draw others")
        return self


class SoftRecipe(StageRecipe):
    """Self-distillation and curriculum: start again from the model that a finished run began with, and learn from it.

    `soft_stage.taught` takes over from that run what the file leaves out.

    Attributes:
        source: the teacher, a finished run; `from` in the file.
        distillation: how it answers the training prompts.
        distilled: folder of the answers that several runs share; absent, `distilled` in the run.
        curriculum: how the real titles take over.
    """

    model_config = ConfigDict(populate_by_name=True)

    objective: Objective = Objective()
    stage: Literal["soft"]
    source: Path = Field(alias="from")
    distillation: Distillation = Distillation()
    distilled: Path | None = None
    curriculum: Curriculum = Curriculum()

    @model_validator(mode="after")
    def _check_answers(self) -> Self:
        if self.distillation.mode == "free" and self.objective.name != "lml":
            raise ValueError(
                f"free answers need not be titles, which {self.objective.label} needs: pass --answers constrained or "
                "--objective lml"
            )
        return self


AnyRecipe = Recipe | PreferenceRecipe | SoftRecipe
RECIPES: dict[str, type[Recipe] | type[PreferenceRecipe] | type[SoftRecipe]] = {
    "sft": Recipe, "soft": SoftRecipe, "preference": PreferenceRecipe,
}  # fmt: skip
"""The recipe of each stage."""


def load_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe file into plain fields (checked by `make_recipe`).

    Raises:
        UserError: absent, or not a YAML mapping, or something in it stands twice.
    """
    fields = read_yaml(path, "recipe")
    if not isinstance(fields, dict):
        raise UserError("is not a recipe: a mapping of names to values is expected", where=path)
    if isinstance(fields.get("objective"), str):
        stage = str(fields.get("stage", "sft"))
        fields["objective"] = find_objective(fields["objective"], stage, where=f"{path}, objective")
    for part in ("objective", "history", "lora", "validation", "negatives", "distillation", "curriculum"):
        if not isinstance(fields.get(part, {}), dict | None):
            raise UserError(f"{part}: a mapping of names to values is expected", where=path)
    return fields


def find_objective(name: str, stage: str, *, where: str) -> dict[str, Any]:
    """The fields of an objective by its short name, or by that of a function outside the package.

    Raises:
        UserError: no such objective in this stage.
    """
    known = STAGE_OBJECTIVES[check_stage(stage, where=where)]
    if is_outside(name) and stage != "preference":
        return {"name": name}
    if name in known:
        return known[name]
    for other, objectives in STAGE_OBJECTIVES.items():
        if name in objectives:
            raise UserError(f"{name} is no objective of the stage {stage}", where=where, mend=f"pass --stage {other}")
    raise UserError(f"no such objective: {name}", where=where, mend=choose_from(name, list(known)))


def check_stage(stage: object, *, where: str) -> str:
    """The stage, if there is such a one.

    Raises:
        UserError: there is none.
    """
    if str(stage) not in RECIPES:
        raise UserError(f"no such stage: {stage}", where=where, mend=choose_from(str(stage), list(RECIPES)))
    return str(stage)


def make_recipe(fields: dict[str, Any], *, where: str) -> AnyRecipe:
    """Check the fields of a recipe.

    Raises:
        UserError: an unknown name (with the nearest known one), a missing one, or a value that does not fit.
    """
    kind = RECIPES[check_stage(fields.get("stage", "sft"), where=where)]
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise misfit(error, [], kind, where=where) from error


def misfit(error: ValidationError, path: list[str], kind: type[BaseModel] | None, *, where: str) -> UserError:
    """A line for the first thing that does not fit.

    Args:
        error: what pydantic found.
        path: names that lead to what was validated; none, a whole recipe.
        kind: the model that was validated; None, a single value.
        where: file or option.
    """
    first = error.errors()[0]
    below = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        assert kind is not None
        return unknown_name(below, kind, where=where, above=path)
    known = [] if kind is None else _names(kind)
    name = ".".join([*path, *(part for part in below if part in known)])  # without the branch of a union
    if first["type"] == "missing":
        return UserError(f"no {name} given", where=where, mend=f"name it: --{name}")
    if first["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", str(first["ctx"]["expected"]))
        mend = choose_from(str(first["input"]), choices)
        return UserError(f"{name}: no such choice: {first['input']}", where=where, mend=mend)
    if first["type"] == "value_error":  # of several fields together
        return UserError(first["msg"].removeprefix("Value error, "), where=where)
    if first["type"] == "model_type":
        return UserError(f"{name}: a mapping of names to values is expected", where=where)
    reason = first["msg"].replace("Input should", "it should")
    return UserError(f"{name} is {first['input']}", where=where, mend=reason)


def unknown_name(path: list[str], kind: type[BaseModel], *, where: str, above: Sequence[str] = ()) -> UserError:
    """A line for a name that a recipe does not have, with the nearest that stands in the same place.

    Args:
        path: names from the model `kind` to the unknown one.
        kind: where the path begins.
        where: file or option.
        above: names that lead to `kind`.
    """
    place: type[BaseModel] | None = kind
    for name in path[:-1]:
        place = None if place is None else part_of(fields_of(place)[name])
    near = [] if place is None else list(fields_of(place))
    mend = _other_stage(path[-1], kind) or choose_from(path[-1], near)
    return UserError(f"unknown name {'.'.join([*above, *path])}", where=where, mend=mend)


def fields_of(kind: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model by the names that they have in a file."""
    return {field.alias or name: field for name, field in kind.model_fields.items()}


def part_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model below a field, if there is one."""
    kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def choose_from(name: str, choices: list[str]) -> str:
    """Say what to write instead of `name`: the nearest choice, and all of them."""
    near = difflib.get_close_matches(name, choices, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"choose from {', '.join(choices)}"


def _other_stage(name: str, kind: type[BaseModel]) -> str | None:
    """Where a name belongs that the recipe of this stage does not know."""
    if name in _names(kind):
        return None
    stages = [stage for stage, other in RECIPES.items() if name in _names(other)]
    return f"it belongs to --stage {' or '.join(stages)}" if stages else None


def _names(model: type[BaseModel]) -> list[str]:
    """Names of a model's fields and of the models below it."""
    parts = [part for field in model.model_fields.values() if (part := part_of(field)) is not None]
    return [*fields_of(model), *(name for part in parts for name in _names(part))]

"""Values put into a recipe from outside: `--set objective.temperature=4.5`."""

import copy
from collections.abc import Sequence
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from catalign.errors import UserError
from catalign.files import load_yaml
from catalign.training.recipe import (
    RECIPES,
    check_stage,
    fields_of,
    find_objective,
    misfit,
    part_of,
    unknown_name,
)


def override(fields: dict[str, Any], assignments: Sequence[str], stage: str | None = None) -> dict[str, Any]:
    """The fields of a recipe with other values; the recipe's schema says of which type each is.

    Args:
        fields: of a recipe, not yet checked.
        assignments: `key=value`, where dots in a key lead into a part (`lora.rank`) and the value is written as in
            YAML: `null`, `[q_proj, v_proj]`. A part that is null begins anew.
        stage: of the recipe that is made; by default what the assignments say, then what the fields do.

    Raises:
        UserError: no such key (with the nearest), a value of another type, or a key that stands twice.
    """
    texts = _split(assignments)
    named = "--set stage" if "stage" in texts else "stage"
    stage = check_stage(stage or texts.get("stage") or fields.get("stage", "sft"), where=named)
    changed = copy.deepcopy(fields)
    for key, text in texts.items():
        field = _find(RECIPES[stage], key)
        *parts, name = key.split(".")
        place = changed
        for part in parts:
            place[part] = place.get(part) or {}
            place = place[part]
        if key == "objective" and not text.startswith("{"):
            place[name] = find_objective(text, stage, where="--set objective")
        else:
            place[name] = _typed(field, key, text)
    return changed


def _split(assignments: Sequence[str]) -> dict[str, str]:
    """The text of each key."""
    texts: dict[str, str] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"{assignment} names no value", where="--set", mend="write it as key=value")
        within = [other for other in texts if f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")]
        if within:
            both = key if key == within[0] else f"{key} beside {within[0]}"
            raise UserError(f"{both} is set twice", where="--set", mend="set it once")
        texts[key] = text.strip()
    return texts


def _find(kind: type[BaseModel], key: str) -> FieldInfo:
    """The field that a dotted key names."""
    part: type[BaseModel] | None = kind
    path: list[str] = []
    for name in key.split("."):
        if part is None:
            raise UserError(f"{'.'.join(path)} has no parts", where=f"--set {key}", mend=f"write {'.'.join(path)}=...")
        path.append(name)
        if name not in fields_of(part):
            raise unknown_name(path, kind, where="--set")
        field = fields_of(part)[name]
        part = part_of(field)
    return field


def _typed(field: FieldInfo, key: str, text: str) -> Any:
    """The value as the field takes it: read as YAML, or the text itself where the field is a text."""
    try:
        value = load_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        value = text
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        try:
            adapter.validate_python(text)
        except ValidationError:
            raise misfit(error, [key], part_of(field), where="--set") from error
        return text
    return value

"""`catalign data rules`, and the options of `catalign data prepare` that set cleaning rules by name."""

from pathlib import Path
from typing import Annotated, Any

import pydantic
import typer
import yaml
from rich.box import SIMPLE_HEAD
from rich.table import Table

from catalign.data.options import TableOptions
from catalign.data.rules import FEWSHOT_RULES, RULES, WINDOW_RULES, Rule, options_of, read_rules
from catalign.errors import UserError
from catalign.progress import results

PARTS = {"tables": RULES, "published windows": WINDOW_RULES, "few-shot files": FEWSHOT_RULES}


def rules_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """Print the cleaning rules in their order: whether they are on by default, what sets them, what they do.

    Set them by their option or by name: --rule k-core=5, --without-rule html-tags, or both in a file: --rules FILE.
    """
    usual = TableOptions().model_dump()
    if as_json:
        described = [_described(rule, part, usual) for part, rules in PARTS.items() for rule in rules]
        results.print_json(data=described)
        return
    for part, rules in PARTS.items():
        table = Table("rule", "default", "option", "what it does", title=part, title_justify="left", box=SIMPLE_HEAD)
        for rule in rules:
            told = _described(rule, part, usual)
            table.add_row(rule.name, told["default"], told["option"], rule.does)
        results.print(table, markup=False)


def rule_options(file: Path | None, given: list[str], without: list[str]) -> dict[str, Any]:
    """Return the options that `--rules`, `--rule` and `--without-rule` stand for.

    Raises:
        UserError: there is no such rule, it takes no such value, or it is set twice.
    """
    wanted = {} if file is None else read_rules(file)
    of_line = [_parsed(text) for text in given] + [(name, False) for name in without]
    for name, value in of_line:
        if [other for other, _ in of_line].count(name) > 1:
            raise UserError(f"the rule {name!r} is set twice")
        wanted[name] = value
    options = options_of(wanted)
    try:
        return TableOptions.model_validate(options).model_dump(include=set(options))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        names = {rule.option: rule.name for rule in RULES}
        raise UserError(f"cannot be {first['input']!r}: {first['msg']}", where=names[str(first["loc"][0])]) from error


def joined(options: dict[str, Any], of_rules: dict[str, Any]) -> dict[str, Any]:
    """Put options and those of named rules together.

    Raises:
        UserError: both set the same.
    """
    for name in options.keys() & of_rules.keys():
        raise UserError(f"--{name.replace('_', '-')} and a rule set the same", mend="pass one of them")
    return options | of_rules


def _parsed(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"{text!r} is no rule and value", where="--rule", mend="write NAME=VALUE, such as k-core=5")
    try:
        return name.strip(), yaml.safe_load(value)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{value!r} is no value", where=f"--rule {name}") from error


def _described(rule: Rule, part: str, usual: dict[str, Any]) -> dict[str, Any]:
    on, value = rule.setting(usual)
    default = "always" if rule.always else str(value) if value is not None else "on" if on else "off"
    option = f"--{rule.option.replace('_', '-')}" if rule.option else ""
    return {
        "name": rule.name,
        "part": part,
        "table": rule.table,
        "default": default,
        "option": option,
        "does": rule.does,
    }

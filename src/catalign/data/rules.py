"""The cleaning rules as data: what is changed and what is dropped, in the order in which it happens.

Every rule has a name, stands in `dataset.json` with what it did, and can be switched off alone, unless a dataset folder
would not be one without it. `cleaning`, `items`, `interactions`, `published` and `fewshot` carry the rules out.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import yaml

from catalign.data.ledger import Ledger
from catalign.errors import UserError


@dataclass(frozen=True)
class Rule:
    """A cleaning rule.

    Attributes:
        name: what it is called.
        table: the table it works on, as the ledger calls it.
        does: what it does, in words.
        reason: what the ledger says of the rows that it drops, with options in braces; empty: it changes titles.
        option: the option that sets it; None: it is on unless it stands among `without_rules`.
        off, on: values of that option that switch it off and on; on None: it needs a value of its own.
        always: it cannot be switched off.
    """

    name: str
    table: str
    does: str
    reason: str = ""
    option: str | None = None
    off: Any = None
    on: Any = None
    always: bool = False

    def setting(self, options: Mapping[str, Any]) -> tuple[bool, Any]:
        """Return whether the rule is on under `options`, and the value it has (None: it is on or off)."""
        if self.option is not None:
            value = options[self.option]
            return value != self.off, value if value != self.off and self.on is None else None
        wanted = bool(self.reason) or options["clean"]
        return wanted and self.name not in options["without_rules"], None


class RuleAccount(pydantic.BaseModel):
    """What a rule did, for `dataset.json`."""

    name: str
    table: str
    on: bool
    value: Any = pydantic.Field(default=None, description="of a rule that needs one")
    rows: int = pydantic.Field(description="rows dropped or titles changed")
    examples: list[dict[str, Any]] = pydantic.Field(description="the first rows dropped, or titles before and after")


def _title(name: str, does: str) -> Rule:
    return Rule(name, "items", does)


def _always(name: str, table: str, goes: str, reason: str) -> Rule:
    return Rule(name, table, goes, reason, always=True)


def _unless(name: str, goes: str, reason: str) -> Rule:
    return Rule(name, "interactions", goes, reason)


TITLE_RULES = (
    _title(
        "html-entities", "&amp; and its like become the characters they stand for, also where they were escaped twice"
    ),
    _title("html-tags", "HTML tags go, a script with its content; other angle brackets stay"),
    _title("control-characters", "control and invisible characters become blanks"),
    _title("white-space", "runs of white space become one blank, those at the ends go"),
    _title("composed-accents", "a letter and its accent become one character (Unicode NFC)"),
)
ITEM_RULES = (
    _always("item-without-id", "items", "a row without an item id goes", "no item id"),
    _always("repeated-item", "items", "of the rows of one id the first that has a title stays", "repeated item id"),
    Rule(
        "untitled-item", "items", "an item without a title goes; switched off, its id is its title", "no title",
        option="missing_titles", off="id", on="drop",
    ),
    Rule(
        "shared-titles", "items", "items of one title: merge makes them one, distinguish adds what tells them apart",
        "title of an earlier item (merged)", option="duplicate_titles", off="keep",
    ),
)  # fmt: skip
TABLE_RULES = (
    _always("without-user", "interactions", "an interaction without a user id goes", "no user id"),
    _always("without-item", "interactions", "an interaction without an item id goes", "no item id"),
    _unless(
        "without-time", "an interaction without a time goes; switched off, its time is unknown", "no timestamp"
    ),
    _unless(
        "unreadable-time", "one whose time is neither a number nor ISO 8601 goes; switched off, its time is unknown",
        "timestamp is neither a number nor ISO 8601",
    ),
    _unless(
        "unreadable-rating", "one whose rating is no number goes; switched off, its rating is unknown",
        "rating is not a number",
    ),
    _always(
        "unknown-split", "interactions", "one whose given split is none goes", "split is none of train, valid, test"
    ),
    _unless("unrated", "with min-rating, one without a rating goes; switched off, it stays", "no rating"),
    Rule(
        "min-rating", "interactions", "interactions rated lower go", "rating below {min_rating:g}", option="min_rating"
    ),
    _always(
        "unknown-item", "interactions", "one whose item the item table lacks goes", "item not in the item table"
    ),
    _always("untitled", "interactions", "one whose item has no title goes", "item without a title"),
    Rule(
        "repeated-pairs", "interactions", "of repeated (user, item) pairs the first or the last in time stays",
        "repeated (user, item) pair", option="duplicates", off="keep",
    ),
    Rule(
        "k-core", "interactions", "every user and every item keeps at least so many interactions",
        "outside the {k_core}-core", option="k_core", off=0,
    ),
    Rule(
        "unused-items", "items", "items without an interaction go", "no interaction left",
        option="keep_unused", off=True, on=False,
    ),
)  # fmt: skip
WINDOW_RULES = (
    _always("window-without-user", "windows", "a window without a user id goes", "no user id"),
    _always("unknown-target", "windows", "one whose target the item table lacks goes", "target not in the item table"),
    _always(
        "unknown-history", "windows", "one with an item in its history that the item table lacks goes",
        "history holds an item not in the item table",
    ),
    _always("untitled-target", "windows", "one whose target has no title goes", "target without a title"),
    _always(
        "short-history", "windows", "one with a history shorter than --min-history goes",
        "fewer than {min_history} items of history",
    ),
)  # fmt: skip
FEWSHOT_RULES = (
    _always(
        "training-user", "windows", "an evaluation user who is a training user too goes",
        "evaluation user who is a training user too",
    ),
    _always("untitled-target", "windows", "a window whose target has no title goes", "target without a title"),
    _always(
        "target-in-history", "windows", "one whose history holds the title of the target goes",
        "title of the target in the history",
    ),
    _always("untitled-negative", "negatives", "a negative without a title goes", "without a title"),
    _always("negative-is-target", "negatives", "one with the title of the target goes", "title of the target"),
    _always("negative-in-history", "negatives", "one whose title is in the history goes", "title in the history"),
    _always("repeated-negative", "negatives", "one that was named before goes", "named twice"),
    _always("without-negative", "windows", "a window without a negative goes", "no negative left"),
)  # fmt: skip
RULES = (*TITLE_RULES, *ITEM_RULES, *TABLE_RULES)
"""What preparing two tables does; published windows know the first two parts and rules of their own."""
UNREADABLE = "unreadable-row"  # stands for the reasons of the readers, who drop what they cannot take apart
_NAMED = {rule.name: rule for rule in RULES}


def reason_of(name: str, options: pydantic.BaseModel) -> str:
    """Return what the ledger says of a row of a table that the rule `name` drops."""
    return _NAMED[name].reason.format_map(options.model_dump())


def check_switches(without: Iterable[str]) -> None:
    """Check that rules may be switched off by name.

    Raises:
        UserError: there is no such rule, it cannot be switched off, or an option switches it off.
    """
    for name in without:
        if _find(name).option is not None or _find(name).always:
            raise UserError(f"the rule {name!r} has no switch of its own", mend="see catalign data rules")


def options_of(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that set rules as wanted.

    Args:
        wanted: name of a rule -> True, False or its value, such as `{"html-tags": False, "k-core": 5}`.

    Raises:
        UserError: there is no such rule, it cannot be switched off, or it takes no such value.
    """
    options: dict[str, Any] = {}
    without = []
    for name, value in wanted.items():
        rule = _find(name)
        if rule.always and value is not True:
            raise UserError(f"the rule {name!r} cannot be switched off", mend="see catalign data rules")
        if rule.option is None and not isinstance(value, bool):
            raise UserError(f"the rule {name!r} is on or off, not {value!r}")
        if rule.option is not None and value is True and rule.on is None:
            raise UserError(f"the rule {name!r} needs a value", mend=f"write {name}=VALUE")
        if rule.option is not None:
            options[rule.option] = rule.off if value is False else rule.on if value is True else value
        elif value is False:
            without.append(name)
    return options | ({"without_rules": without} if without else {})


def read_rules(path: Path) -> dict[str, Any]:
    """Read a YAML file of rule names and values, for `options_of`.

    Raises:
        UserError: it cannot be read or holds something else.
    """
    try:
        wanted = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError("no such file", where=path) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: no such day, 2001-99-99
        raise UserError(f"is not YAML ({error})", where=path) from error
    if not isinstance(wanted, dict) or not all(isinstance(name, str) for name in wanted):
        raise UserError("is not a YAML mapping of rules and values", where=path, mend="write lines such as k-core: 5")
    return wanted


def accounts(rules: Sequence[Rule], options: Mapping[str, Any], ledger: Ledger) -> list[RuleAccount]:
    """Say of every rule what it did; a rule of the readers stands for every reason that no other rule gives.

    Args:
        rules: those that could have applied, in their order.
        options: the values that `Rule.option` and the braces of `Rule.reason` name, `clean` and `without_rules`.
        ledger: what happened; its drops and rejects are put in the order of the rules.
    """
    settings = {rule: rule.setting(options) for rule in rules}
    reasons = {rule: rule.reason.format_map(options) for rule in rules if rule.reason and settings[rule][0]}
    ledger.arrange([(rule.table, reason) for rule, reason in reasons.items()])
    done = []
    for rule, (on, value) in settings.items():
        rows, examples = 0, []
        if rule in reasons:
            rows = ledger.dropped.get(rule.table, {}).get(reasons[rule], 0)
            examples = ledger.examples(rule.table, reasons[rule])
        elif not rule.reason:
            rows = ledger.changed.get(rule.table, {}).get(rule.name, 0)
            examples = ledger.examples(rule.table, rule.name)
        done.append(RuleAccount(name=rule.name, table=rule.table, on=on, value=value, rows=rows, examples=examples))
    claimed = {(rule.table, reason) for rule, reason in reasons.items()}
    for table, dropped in ledger.dropped.items():
        read = {reason: rows for reason, rows in dropped.items() if (table, reason) not in claimed}
        if read:
            examples = [example for reason in read for example in ledger.examples(table, reason)]
            done.append(RuleAccount(name=UNREADABLE, table=table, on=True, rows=sum(read.values()), examples=examples))
    return done


def _find(name: str) -> Rule:
    if name not in _NAMED:
        near = difflib.get_close_matches(name, _NAMED, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"there is no rule {name!r}", mend=f"{hint}catalign data rules lists them")
    return _NAMED[name]

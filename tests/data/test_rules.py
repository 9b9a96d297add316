"""The cleaning rules: each named, switchable, counted, with examples."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from catalign.data import fewshot, interactions, items, published
from catalign.data.cleaning import TITLE_CHANGES, clean_titles
from catalign.data.dataset import Dataset
from catalign.data.ledger import Ledger
from catalign.data.options import Table, TableOptions, TableSource, WindowOptions
from catalign.data.prepare import prepare_tables, prepare_windows
from catalign.data.rules import (
    FEWSHOT_RULES,
    ITEM_RULES,
    RULES,
    TABLE_RULES,
    TITLE_RULES,
    WINDOW_RULES,
    RuleAccount,
    accounts,
    options_of,
    read_rules,
)
from catalign.errors import UserError
from conftest import SHARED

RAW = "  Caf&eacute; <b>Ole\u0301</b>\u200b  no.&nbsp;1 "
ITEMS = f"sku,name\n001,{RAW}\n002,Bean\n003,Corn\n004,\n005,Dill\n"


def tables(folder: Path, extra: str = "") -> TableSource:
    rows = "\n".join(f"{who},00{(1, 2, 3, 5)[n % 4]},{n},{5 - n % 2}" for n in range(12) for who in ("ann", "bob"))
    (folder / "log.csv").write_text(f"who,sku,when,stars\n{rows}\n{extra}")
    (folder / "items.csv").write_text(ITEMS)
    return TableSource(
        interactions=Table.of(folder / "log.csv"), items=Table.of(folder / "items.csv"),
        user="who", item="sku", time="when", rating="stars", item_id="sku", title="name",
    )  # fmt: skip


def rules_of(dataset: Dataset) -> dict[str, RuleAccount]:
    return {rule.name: rule for rule in dataset.card.rules}


def test_every_title_change_is_counted_and_shown(tmp_path: Path) -> None:
    dataset = prepare_tables(tables(tmp_path), TableOptions(), tmp_path / "ds")
    assert dataset.items["title"][0] == "Café Olé no. 1"
    rules = rules_of(dataset)
    entities = rules["html-entities"]
    after = "  Café <b>Ole\u0301</b>\u200b  no.\u00a01 "
    assert (entities.on, entities.rows) == (True, 1)
    assert entities.examples == [{"item_id": "001", "before": RAW, "after": after}]
    assert [rules[rule.name].rows for rule in TITLE_RULES] == [1] * 5
    assert rules["composed-accents"].examples[0]["after"] == "Café Olé no. 1"
    assert rules["untitled-item"].rows == 1
    assert rules["untitled-item"].examples == [{"item_id": "004", "title": None, "file": "items.csv", "row": 5}]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("html-entities", "Caf&eacute; Olé no.&nbsp;1"),
        ("html-tags", "Café <b>Olé</b> no. 1"),
        ("control-characters", "Café Olé \u200b no. 1"),
        ("white-space", "  Café  Olé    no.\u00a01 "),
        ("composed-accents", "Café Ole\u0301 no. 1"),
    ],
)
def test_every_title_change_can_be_switched_off_alone(tmp_path: Path, name: str, title: str) -> None:
    dataset = prepare_tables(tables(tmp_path), TableOptions(without_rules=[name]), tmp_path / "ds")
    assert dataset.items["title"][0] == title
    rule = rules_of(dataset)[name]
    assert (rule.on, rule.rows, rule.examples) == (False, 0, [])


def test_the_rules_for_titles_are_those_that_clean() -> None:
    assert [rule.name for rule in TITLE_RULES] == list(TITLE_CHANGES)
    assert clean_titles(pl.Series([RAW]), without=list(TITLE_CHANGES)).to_list() == [RAW]


def test_no_cleaning_switches_all_title_rules_off(tmp_path: Path) -> None:
    rules = rules_of(prepare_tables(tables(tmp_path), TableOptions(clean=False), tmp_path / "ds"))
    assert [rules[rule.name].on for rule in TITLE_RULES] == [False] * 5


def test_every_drop_belongs_to_a_rule(tmp_path: Path) -> None:
    bad = "\n".join(
        [",001,1,5", "ann,,1,5", "ann,001,,5", "ann,001,soon,5", "ann,001,1,five", "ann,001,1,", "ann,001,1,1",
         "ann,999,1,5", "ann,004,1,5", "ann,001", "zoe,001,1,5", "bob,001,0,5"]
    )  # fmt: skip
    options = TableOptions(min_rating=3, duplicates="first", k_core=2, split="leave-one-out")
    card = prepare_tables(tables(tmp_path, bad), options, tmp_path / "ds").card
    rows = {rule.name: rule.rows for rule in card.rules if rule.table == "interactions"}
    assert rows == {
        "without-user": 1, "without-item": 1, "without-time": 1, "unreadable-time": 1, "unreadable-rating": 1,
        "unknown-split": 0, "unrated": 1, "min-rating": 1, "unknown-item": 1, "untitled": 1, "repeated-pairs": 17,
        "k-core": 1, "unreadable-row": 1,
    }  # fmt: skip
    assert sum(rows.values()) == sum(card.dropped["interactions"].values())
    values = {rule.name: rule.value for rule in card.rules if rule.value is not None}
    assert values == {"min-rating": 3.0, "repeated-pairs": "first", "k-core": 2}
    assert all(rule.examples for rule in card.rules if rule.rows)


def reasons_in(module: ModuleType) -> Iterator[str]:
    """The reasons that a module gives the ledger, their values as {}."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ledger.drop", "drop"):
            reason = node.args[-1]
            parts = reason.values if isinstance(reason, ast.JoinedStr) else [reason]
            if all(isinstance(part, ast.Constant | ast.FormattedValue) for part in parts):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)


def test_every_reason_in_the_code_has_a_rule() -> None:
    known = {re.sub(r"{.*?}", "{}", rule.reason) for rule in (*RULES, *WINDOW_RULES, *FEWSHOT_RULES)}
    given = {reason for module in (interactions, items, published, fewshot) for reason in reasons_in(module)}
    assert len(given) >= 13
    assert given <= known


def test_switched_off_rules_let_rows_stay_with_unknown_values(tmp_path: Path) -> None:
    bad = "ann,001,,5\nann,001,soon,5\nann,001,1,five\nann,001,1,"
    off = ["without-time", "unreadable-time", "unreadable-rating", "unrated"]
    options = TableOptions(split="leave-one-out", min_rating=4, without_rules=off)
    dataset = prepare_tables(tables(tmp_path, bad), options, tmp_path / "ds")
    assert dataset.card.dropped == {"items": {"no title": 1}}
    assert dataset.interactions["timestamp"].null_count() == 2
    assert dataset.interactions["rating"].null_count() == 2


def test_a_chronological_split_needs_every_time(tmp_path: Path) -> None:
    options = TableOptions(without_rules=["unreadable-time"])
    with pytest.raises(UserError, match="so the rule 'unreadable-time' stays on; pass another --split"):
        prepare_tables(tables(tmp_path), options, tmp_path / "ds")


def test_rules_by_name_are_the_options() -> None:
    wanted = {
        "k-core": 5, "min-rating": 3.5, "repeated-pairs": "last", "untitled-item": False, "unused-items": False,
        "shared-titles": "merge", "html-tags": False, "white-space": True, "unknown-item": True,
    }  # fmt: skip
    assert options_of(wanted) == {
        "k_core": 5, "min_rating": 3.5, "duplicates": "last", "missing_titles": "id", "keep_unused": True,
        "duplicate_titles": "merge", "without_rules": ["html-tags"],
    }  # fmt: skip
    off = {rule.name: False for rule in RULES if not rule.always}
    unset = TableOptions(**options_of(off))
    assert not any(rule.setting(unset.model_dump())[0] for rule in RULES if not rule.always)
    on = {rule.name: True for rule in RULES if rule.option is None or rule.on is not None}
    assert TableOptions(**options_of(on)) == TableOptions()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"htm-tags": False}, "there is no rule 'htm-tags'; did you mean html-tags?"),
        ({"unknown-item": False}, "'unknown-item' cannot be switched off"),
        ({"html-tags": 3}, "'html-tags' is on or off, not 3"),
        ({"k-core": True}, "'k-core' needs a value; write k-core=VALUE"),
    ],
)
def test_what_a_rule_does_not_take_is_told(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        options_of(wanted)


@pytest.mark.parametrize("name", ["k-core", "unknown-item", "nonsense"])
def test_only_rules_with_a_switch_are_switched_off_by_name(name: str) -> None:
    with pytest.raises(UserError, match="rule"):
        TableOptions(without_rules=[name])


@pytest.mark.parametrize(
    ("content", "message"),
    [("- a", "not a YAML mapping"), ("a: [", "is not YAML"), ("5: 6", "not a YAML mapping"), ("\xff", "is not YAML")],
)
def test_a_file_that_holds_no_rules_is_told(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "rules.yaml").write_bytes(content.encode("latin-1"))
    message = message.replace("not a YAML mapping", "is not a YAML mapping")
    with pytest.raises(UserError, match=message):
        read_rules(tmp_path / "rules.yaml")
    with pytest.raises(UserError, match="no such file"):
        read_rules(tmp_path / "none.yaml")


def test_names_are_unique_within_what_applies_together() -> None:
    for applied in (RULES, (*TITLE_RULES, *ITEM_RULES, *WINDOW_RULES), (*TITLE_RULES, *ITEM_RULES, *FEWSHOT_RULES)):
        names = [rule.name for rule in applied]
        assert len(set(names)) == len(names)
        reasons = [(rule.table, rule.reason) for rule in applied if rule.reason]
        assert len(set(reasons)) == len(reasons)
    assert all(rule.always or rule.reason for rule in TABLE_RULES)


def test_examples_can_stand_in_json() -> None:
    ledger = Ledger()
    ledger.enter("items", 1)
    ledger.note("items", "no item id", 1, [{"time": Path("a"), "row": 2}])
    options = TableOptions().model_dump()
    (rule,) = (rule for rule in accounts(ITEM_RULES, options, ledger) if rule.rows)
    assert rule.examples == [{"time": "a", "row": 2}]


@pytest.mark.realdata
@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the real data sets are not beside the project")
def test_rules_count_the_hazards_of_real_titles(tmp_path: Path) -> None:
    toys = prepare_windows(SHARED / "data" / "amazon_toys", "msl", WindowOptions(), tmp_path / "toys")
    rules = rules_of(toys)
    assert 0.14 * 11_758 < rules["html-entities"].rows < 0.16 * 11_758
    assert all("&" in example["before"] for example in rules["html-entities"].examples)
    assert rules["html-entities"].rows <= toys.card.titles.changed <= sum(rules[rule.name].rows for rule in TITLE_RULES)

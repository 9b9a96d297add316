"""Cleaning rules as a user sets them."""

import json
from pathlib import Path

import pytest

from catalign.data.dataset import load_dataset
from toy import mistake, works

LOG = "\n".join(["user,item,time", *(f"u{n % 7},00{n % 5},{1_600_000_000 + n}" for n in range(60))])
ITEMS = "item,title\n" + "\n".join(f"00{n},Title {n}" for n in range(5))
COLUMNS = ["--user", "user", "--item", "item", "--time", "time", "--title", "title"]


@pytest.fixture
def prepare(tmp_path: Path) -> list[object]:
    """`data prepare` of two small tables, without an output."""
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "items.csv").write_text(ITEMS.replace("Title 1", "Rock &amp; <b>Roll</b>"))
    return ["data", "prepare", "--interactions", tmp_path / "log.csv", "--items", tmp_path / "items.csv", *COLUMNS]


def test_the_rules_are_printed() -> None:
    described = {
        rule["name"]: rule for rule in json.loads(works("data", "rules", "--json")) if rule["part"] == "tables"
    }
    assert described["k-core"]["option"] == "--k-core"
    assert (described["html-tags"]["default"], described["unknown-item"]["default"]) == ("on", "always")
    said = works("data", "rules")
    assert all(name in said for name in described)


def test_rules_by_option_by_name_and_by_file_are_one(tmp_path: Path, prepare: list[object]) -> None:
    works(*prepare, "--k-core", 2, "--without-rule", "html-tags", "--output", tmp_path / "a")
    works(*prepare, "--rule", "k-core=2", "--rule", "html-tags=off", "--output", tmp_path / "b")
    (tmp_path / "rules.yaml").write_text("k-core: 9\nhtml-tags: off\nwhite-space: on\n")
    works(*prepare, "--rules", tmp_path / "rules.yaml", "--rule", "k-core=2", "--output", tmp_path / "c")
    cards = [load_dataset(tmp_path / name).card for name in "abc"]
    assert cards[0] == cards[1] == cards[2]
    assert cards[0].options["without_rules"] == ["html-tags"]
    assert load_dataset(tmp_path / "a").items["title"][1] == "Rock & <b>Roll</b>"


def test_mistakes_in_rules_are_told_in_one_line(tmp_path: Path, prepare: list[object]) -> None:
    out = ["--output", tmp_path / "ds"]
    assert "there is no rule 'htm'" in mistake(*prepare, "--without-rule", "htm", *out)
    assert "--rule: 'k-core' is no rule and value; write NAME=VALUE" in mistake(*prepare, "--rule", "k-core", *out)
    assert "k-core: cannot be 'many'" in mistake(*prepare, "--rule", "k-core=many", *out)
    assert "k-core: cannot be -1" in mistake(*prepare, "--rule", "k-core=-1", *out)
    assert "is no value" in mistake(*prepare, "--rule", "k-core=[", *out)
    assert "'k-core' is set twice" in mistake(*prepare, "--rule", "k-core=2", "--without-rule", "k-core", *out)
    assert "--k-core and a rule set the same" in mistake(*prepare, "--k-core", 3, "--rule", "k-core=2", *out)
    both = ["--missing-titles", "drop", "--without-rule", "untitled-item"]
    assert "--missing-titles and a rule set the same" in mistake(*prepare, *both, *out)
    assert "no such file" in mistake(*prepare, "--rules", tmp_path / "none.yaml", *out)
    assert not (tmp_path / "ds").exists()


def test_published_windows_know_the_rules_for_titles_only(tmp_path: Path) -> None:
    folder = tmp_path / "d3"
    folder.mkdir()
    (folder / "info.txt").write_text("Rock <b>Roll</b>\t0\nBean\t1\n")
    for split in ("train", "valid", "test"):
        (folder / f"{split}.csv").write_text("user_id,history_item_id,item_id,timestamp\nann,[0],1,5\n")
    works("data", "prepare", folder, "--without-rule", "html-tags", "--output", tmp_path / "ds")
    dataset = load_dataset(tmp_path / "ds")
    assert dataset.items["title"][0] == "Rock <b>Roll</b>"
    assert {"html-tags", "short-history"} <= {rule.name for rule in dataset.card.rules}
    out = ["--output", tmp_path / "other"]
    told = mistake("data", "prepare", folder, "--without-rule", "unrated", *out)
    assert "the rule 'unrated' is for tables of interactions; these windows are cut already" in told
    assert "--k-core goes with tables" in mistake("data", "prepare", folder, "--rule", "k-core=2", *out)

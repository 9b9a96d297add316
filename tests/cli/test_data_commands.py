"""`catalign data` as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from catalign.cli.data import app
from catalign.data.dataset import load_dataset
from catalign.errors import UserError

LOG = "\n".join(["user,item,time", *(f"u{n % 7},00{n % 5},{1_600_000_000 + n}" for n in range(60))])
ITEMS = "item,title\n" + "\n".join(f"00{n},Title {n}" for n in range(5))
COLUMNS = ["--user", "user", "--item", "item", "--time", "time", "--title", "title"]


@pytest.fixture
def tables(tmp_path: Path) -> list[str]:
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "items.csv").write_text(ITEMS)
    return ["--interactions", str(tmp_path / "log.csv"), "--items", str(tmp_path / "items.csv")]


def run(*arguments: object) -> str:
    """Run a command and return what it printed; a user's mistake raises, as the main application wants it."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def mistake(*arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_two_tables_become_a_dataset_folder(tmp_path: Path, tables: list[str]) -> None:
    said = run("prepare", *tables, *COLUMNS, "--output", tmp_path / "ds")
    assert "5 items, 7 users, 60 interactions; windows: train 42, valid 5, test 6" in said.replace("\n", " ")
    dataset = load_dataset(tmp_path / "ds")
    assert dataset.items["item_id"].to_list() == ["000", "001", "002", "003", "004"]


def test_every_rule_has_an_option(tmp_path: Path, tables: list[str]) -> None:
    (tmp_path / "items.tsv").write_text(
        "id\tname\tshelf\n" + "\n".join(f"00{n}\tSame &amp; title\ta" for n in range(5))
    )
    said = run(
        "prepare", "--interactions", tmp_path / "log.csv", "--items", tmp_path / "items.tsv",
        "--user", "user", "--item", "item", "--time", "time", "--item-id", "id", "--title", "name",
        "--metadata", "shelf", "--metadata", "id", "--split", "leave-one-out", "--k-core", 2, "--history", 3,
        "--min-history", 2, "--no-clean", "--missing-titles", "id", "--duplicate-titles", "keep",
        "--duplicates", "last", "--output", tmp_path / "ds", "--json",
    )  # fmt: skip
    card = json.loads(said)
    dataset = load_dataset(tmp_path / "ds")
    assert dataset.items.columns == ["item_id", "title", "shelf", "id"]
    assert dataset.items["title"][0] == "Same &amp; title"
    assert dataset.windows("train")["history"].list.len().unique().sort().to_list() == [2]
    assert card["splits"]["test"]["windows"] == 7
    assert card["options"]["k_core"] == 2
    assert card["dropped"] == {"interactions": {"repeated (user, item) pair": 25}}


def test_a_prepared_sample_store_can_be_inspected(tmp_path: Path) -> None:
    said = run("sample", "--output", tmp_path / "shop", "--users", 120, "--items", 90, "--seed", 5, "--prepare")
    assert "90 items, 120 users" in said
    description = json.loads(run("inspect", tmp_path / "shop" / "dataset", "--json"))
    dataset = load_dataset(tmp_path / "shop" / "dataset")
    test = dataset.windows("test")
    assert description["splits"]["test"]["windows"] == test.height
    assert sum(description["splits"]["test"]["history_length"]["windows"].values()) == test.height
    cold = dataset.training_counts()[test["target"].to_numpy()] == 0
    assert description["splits"]["test"]["cold_target_share"] == pytest.approx(cold.mean())
    shown = run("inspect", tmp_path / "shop" / "dataset")
    assert all(word in shown for word in ("cold targets", "history of 10", "shared titles", f"{test.height:,}"))


def test_a_sample_store_is_a_known_layout(tmp_path: Path) -> None:
    run("sample", "--output", tmp_path / "shop", "--users", 120, "--items", 90)
    run("prepare", tmp_path / "shop", "--output", tmp_path / "ds", "--k-core", 2)
    assert load_dataset(tmp_path / "ds").items.columns == ["item_id", "title", "department", "price"]


def test_warnings_go_to_standard_error(tmp_path: Path, tables: list[str]) -> None:
    arguments = ["prepare", *tables, *COLUMNS, "--split", "leave-one-out", "--output", str(tmp_path / "ds")]
    result = CliRunner().invoke(app, arguments)
    assert "leaks" in result.stderr
    assert "leaks" not in result.stdout


def test_mistakes_are_told_in_one_line(tmp_path: Path, tables: list[str]) -> None:
    out = ["--output", tmp_path / "ds"]
    assert "--user is not given; choose from its columns: user, item, time" in mistake("prepare", *tables, *out)
    assert "nothing to prepare" in mistake("prepare", *out)
    assert "no column 'usr'; did you mean 'user'?" in mistake("prepare", *tables, *COLUMNS, "--user", "usr", *out)
    assert "no such file" in mistake("prepare", "--interactions", "none.csv", "--items", "none.csv", *out)
    assert "is in no known layout" in mistake("prepare", tmp_path, *out)
    assert "there is no layout 'x'; choose from msl" in mistake("prepare", tmp_path, "--layout", "x", *out)
    assert "--layout goes with a folder" in mistake("prepare", *tables, *COLUMNS, "--layout", "msl", *out)
    assert "--user goes with tables of your own" in mistake("prepare", tmp_path, "--user", "user", *out)
    assert "no train.csv" in mistake("prepare", tmp_path, "--layout", "msl", *out)
    assert "is not a dataset folder" in mistake("inspect", tmp_path)
    assert not (tmp_path / "ds").exists()


def test_rules_for_tables_are_refused_for_windows(tmp_path: Path) -> None:
    (tmp_path / "info.txt").write_text("A\t0\n")
    said = mistake("prepare", tmp_path, "--k-core", 5, "--output", tmp_path / "ds")
    assert "--k-core goes with tables of interactions" in said


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, tables: list[str]) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert "cannot be written" in mistake("prepare", *tables, *COLUMNS, "--output", locked / "ds")


def test_the_program_ends_with_code_2_and_one_line(tmp_path: Path, tables: list[str]) -> None:
    program = "import sys; from catalign.cli.main import main; sys.argv[0] = 'catalign'; main()"
    arguments = ["data", "prepare", *tables, *COLUMNS, "--k-core", "99", "--output", str(tmp_path / "ds")]
    ended = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.strip().count("\n") == 0
    assert "log.csv, row 2: no interaction is left (60 outside the 99-core" in ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.csv", "log.csv"]

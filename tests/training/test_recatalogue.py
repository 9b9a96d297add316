"""A trained run takes another catalogue; a new item that continues what was learnt is recommended in its place."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from catalign.data.dataset import load_dataset
from catalign.files import read_json
from catalign.recommender import Recommender
from catalign.training.run import load_run, read_recipe
from toy import evaluated, mistake, solve, works, write_tables

SERIES = ("amber", "birch", "cedar", "delta", "ember", "frost", "grove", "haven")
PARTS, USERS = 5, 72
NEW = "grove part 5"


def write_series(folder: Path) -> list[str]:
    """A shop in which everybody reads series part by part; the last part of one is not there yet: they stop there."""
    titles = [f"{name} part {part}" for name in SERIES for part in range(1, PARTS + 1)]
    options = write_tables(folder, titles=titles, users=1, visits=1)
    sold = [number for number, title in enumerate(titles) if title != NEW]
    items = (folder / "items.csv").read_text().splitlines()
    (folder / "all.csv").write_text("\n".join(items))
    (folder / "items.csv").write_text("\n".join(line for line in items if NEW not in line))
    generator, log = np.random.default_rng(0), ["user,item,time"]
    unfinished = SERIES.index(NEW.split()[0])
    for user in range(USERS):
        series = sorted(generator.permutation(len(SERIES))[:2].tolist(), key=lambda number: number == unfinished)
        read = [PARTS * number + part for number in series for part in range(PARTS)]
        known = [item for item in read if item in sold]
        log += [f"u{user:03d},i{item:03d},{1_600_000_000 + user * 10_000 + at}" for at, item in enumerate(known)]
    (folder / "log.csv").write_text("\n".join(log) + "\n")
    return options


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop prepared as `ds`, a model `lm` and a finished run `run`; only read it."""
    folder = tmp_path_factory.mktemp("series")
    works("data", "prepare", *write_series(folder), "--output", folder / "ds")
    works("model", "init", "--dataset", folder / "ds", "--output", folder / "lm", "--preset", "tiny", "--epochs", 4)
    solve(folder / "ds", folder / "lm", folder / "run")
    return folder


def recommended(run: Path, *history: str, k: int = 1) -> list[str]:
    return [item.title for item in Recommender.load(run).recommend(history, k)]


def test_a_new_item_is_recommended_where_it_should_be(shop: Path, tmp_path: Path) -> None:
    before = [f"grove part {part}" for part in range(1, PARTS)]
    other = [f"haven part {part}" for part in range(1, PARTS)]
    assert recommended(shop / "run", *other) == ["haven part 5"]
    assert NEW not in recommended(shop / "run", *before, k=10)
    said = works("model", "recatalogue", shop / "run", "--items", shop / "all.csv", "--output", tmp_path / "run")
    assert "40 items, 1 new, 0 gone, 0 with another title" in said
    assert recommended(tmp_path / "run", *before) == [NEW]
    assert recommended(tmp_path / "run", *other) == ["haven part 5"]  # and only there
    shown = json.loads(works("recommend", tmp_path / "run", "--history", before[-1], "--json"))
    assert NEW in [item["title"] for item in shown]


def test_the_new_run_holds_the_old_weights_and_says_where_it_is_from(shop: Path, tmp_path: Path) -> None:
    works("model", "recatalogue", shop / "run", "--items", shop / "all.csv", "--output", tmp_path / "run")
    weights = [folder / "model.safetensors" for folder in (shop / "run", tmp_path / "run")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert weights[0].stat().st_ino == weights[1].stat().st_ino  # linked
    old, new = load_run(shop / "run").catalogue, load_run(tmp_path / "run").catalogue
    (record,) = read_json(tmp_path / "run" / "provenance.json")["recatalogued"]
    assert record["from"]["catalogue"] == old.digest != new.digest == record["to"]["catalogue"]
    assert (record["items"], record["added"], record["removed"], record["to"]["items"]) == (40, 1, 0, "all.csv")
    counts = dict(zip(new.item_ids, new.popularity.tolist(), strict=True))
    assert counts == dict(zip(old.item_ids, old.popularity.tolist(), strict=True)) | {"i034": 0}
    assert "recatalogued" not in read_json(shop / "run" / "provenance.json")


def test_removed_items_are_recommended_no_longer(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("item,title\ni035,haven part 1\ni036,haven part 2 (reprint)\n")
    shutil.copytree(shop / "run", tmp_path / "run")
    works("evaluate", tmp_path / "run", "--windows", 3)
    said = works("model", "recatalogue", tmp_path / "run", "--items", tmp_path / "few.csv", "--in-place")
    assert "2 items, 0 new, 37 gone, 1 with another title" in said
    assert recommended(tmp_path / "run", "haven part 1", k=5) == ["haven part 2 (reprint)"]
    assert not (tmp_path / "run" / "evaluations").exists()
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert "recipe" in str(sorted((tmp_path / "run").iterdir()))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.fixture(scope="module")
def larger(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset to which a week was appended, in which the new item was there and bought."""
    folder = tmp_path_factory.mktemp("larger")
    with (folder / "week.csv").open("w") as log:
        log.write("user,item,time\n")
        for user in range(USERS, USERS + 9):
            log.writelines(
                f"u{user:03d},i{item:03d},{1_600_000_000 + user * 10_000 + item}\n" for item in range(30, 35)
            )
    week = ["--interactions", folder / "week.csv", "--items", shop / "all.csv"]
    works("data", "append", shop / "ds", *week, "--output", folder / "ds")
    return folder / "ds"


def test_evaluate_and_train_go_on_with_the_result(shop: Path, larger: Path, tmp_path: Path) -> None:
    said = mistake("evaluate", shop / "run", "--dataset", larger)
    assert f"catalign model recatalogue {shop / 'run'} --dataset {larger} --output NEW_RUN" in said
    works("model", "recatalogue", shop / "run", "--dataset", larger, "--output", tmp_path / "run")
    assert read_recipe(tmp_path / "run").dataset == larger.resolve()
    new = load_dataset(larger).items["item_id"].to_list().index("i034")
    assert (load_dataset(larger).windows("test")["target"] == new).sum() > 0
    assert evaluated(tmp_path / "run")["hr@1"] >= 0.7
    stage = ["--stage", "preference", "--objective", "dpo", "--negatives", 1, "--epochs", 1, "--train-examples", 20]
    said = mistake("train", *stage, "--from", shop / "run", "--dataset", larger, "--output", tmp_path / "no")
    assert "catalign model recatalogue" in said
    works("train", *stage, "--from", tmp_path / "run", "--output", tmp_path / "dpo")
    assert len(load_run(tmp_path / "dpo").catalogue) == 40


def test_the_titles_are_written_by_the_rules_of_the_dataset(toy_dataset: Path, tmp_path: Path) -> None:
    options = [*write_tables(tmp_path), "--duplicate-titles", "distinguish", "--title-format", "the {title}"]
    items = (tmp_path / "items.csv").read_text().replace('i001,"green lamp"', 'i001,"red lamp"')
    (tmp_path / "items.csv").write_text(items)
    works("data", "prepare", *options, "--output", tmp_path / "ds")
    works("model", "init", "--dataset", tmp_path / "ds", "--output", tmp_path / "lm", "--preset", "tiny", "--epochs", 0)
    works("train", "--dataset", tmp_path / "ds", "--model", tmp_path / "lm", "--output", tmp_path / "run",
          "--epochs", 1, "--train-examples", 5)  # fmt: skip
    assert load_run(tmp_path / "run").catalogue.titles[:2] == ["the red lamp (i000)", "the red lamp (i001)"]
    (tmp_path / "items.csv").write_text(items + 'i900,"red lamp"\ni901,\n')
    said = works(
        "model", "recatalogue", tmp_path / "run", "--items", tmp_path / "items.csv", "--output", tmp_path / "new"
    )
    assert "25 items, 1 new, 0 gone, 0 with another title; 1 rows dropped: no title" in said
    titles = load_run(tmp_path / "new").catalogue.titles  # what the run knows under a mark keeps it
    assert [titles[0], titles[1], titles[-1]] == ["the red lamp (i000)", "the red lamp (i001)", "the red lamp"]


def test_mistakes_are_told_in_one_line(toy_run: Path, toy_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item,title\nx,red lamp\n")
    items, output = ["--items", tmp_path / "items.csv"], ["--output", tmp_path / "new"]

    def refused(*arguments: object) -> str:
        return mistake("model", "recatalogue", toy_run, *arguments)

    assert "pass --output NEW_RUN, or --in-place" in refused(*items)
    assert "not both" in refused(*items, *output, "--in-place")
    assert "pass --items FILE or --dataset DATASET" in refused(*output)
    assert "one catalogue is needed" in refused(*items, "--dataset", toy_dataset, *output)
    assert "--title goes with --items" in refused("--dataset", toy_dataset, *output, "--title", "title")
    assert "already exists" in refused(*items, "--output", tmp_path)
    assert "no column 'name'" in refused(*items, *output, "--title", "name")
    assert "no such file" in refused("--items", tmp_path / "none.csv", *output)
    (tmp_path / "items.csv").write_text("item,title\nx,\n")
    assert "no item is left (1 no title)" in refused(*items, *output)
    (tmp_path / "items.csv").write_text(f"item,title\nx,{'long ' * 2000}\n")
    assert "more than the model's context" in refused(*items, *output)
    assert "is not a run folder" in mistake("model", "recatalogue", tmp_path, *items, *output)
    assert not (tmp_path / "new").exists()


def test_a_title_that_the_tokenizer_cannot_write_is_told(
    toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(toy_run, run)
    tokenizer = load_run(run).model.tokenizer
    end = json.loads((run / "tokenizer.json").read_text())
    end["model"]["vocab"] = {token: number for token, number in end["model"]["vocab"].items() if token != "z"}
    end["model"]["unk_token"] = "<padding>"
    (run / "tokenizer.json").write_text(json.dumps(end))
    config = json.loads((run / "tokenizer_config.json").read_text())
    (run / "tokenizer_config.json").write_text(json.dumps(config | {"unk_token": "<padding>"}))
    assert tokenizer.unk_token_id is None
    (tmp_path / "items.csv").write_text("item,title\nx,red lamp\ny,zzz\n")
    said = mistake("model", "recatalogue", run, "--items", tmp_path / "items.csv", "--output", tmp_path / "new")
    assert 'cannot write 1 new titles, such as "zzz"' in said

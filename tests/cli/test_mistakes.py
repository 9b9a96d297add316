"""A user's mistakes: exit code 2, one line that says what, where and how to mend it, and nothing left behind."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from catalign.errors import UserError
from catalign.recommender import Recommender
from toy import catalign, make_dataset, make_model, mistake, series, works


@pytest.fixture
def place(tmp_path: Path, toy_dataset: Path, toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a dataset `ds` and a model `lm`."""
    (tmp_path / "ds").symlink_to(toy_dataset)
    (tmp_path / "lm").symlink_to(toy_model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def leaves_nothing(folder: Path, *arguments: object) -> str:
    """Make a mistake and check that the folder looks as before."""
    before = listing(folder)
    said = mistake(*arguments)
    assert listing(folder) == before
    return said


TRAIN = ("train", "--dataset", "ds", "--model", "lm", "--output", "run")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dataset", "lm"], "lm: is not a dataset folder (no dataset.json); make one with catalign data prepare"),
        (["--dataset", "none"], "none: is not a dataset folder"),
        (["--model", "ds"], "ds: is not a model folder (no config.json)"),
        (["--model", "./none"], "./none: cannot be loaded as a causal language model"),
        (["--model", "nobody/nothing"], "nobody/nothing: cannot be loaded as a causal language model"),
        (
            ["--objective", "mls"],
            "--objective: no such objective: mls; did you mean msl? choose from lml, msl, msl+ats",
        ),
        (["--template", "plane"], "no such template: plane; use plain or instruction, or a YAML file"),
        (["--schedule", "liner"], "schedule: no such choice: liner; did you mean linear? choose from linear, constant"),
        (["--batching", "users"], "batching: no such choice: users; did you mean by-user?"),
        (["--precision", "fp16"], "precision: no such choice: fp16; choose from auto, float32"),
        (["--denominator", "every"], "objective.denominator: no such choice: every; choose from branching, all"),
        (["--epochs", 0], "epochs is 0; it should be greater than or equal to 1"),
        (["--learning-rate", -1], "learning_rate is -1.0; it should be greater than 0"),
        (["--temperature", -1], "the temperature must be above 0"),
        (["--objective", "msl+ats", "--temperature", 2], "msl+ats finds its temperature itself; leave it out"),
        (["--batch-size", 8, "--micro-batch-size", 3], "batch_size must be a multiple of micro_batch_size"),
        (["--row-tokens", 1], "row_tokens is 1; it should be"),
        (["--valid-beams", 5], "validation.beams is 5; it should be greater than or equal to 10"),
        (["--train-examples", 100_000], "--train-examples: 100,000 training examples asked for, the dataset has 336"),
        (["--train-examples", 0], "train_examples is 0"),
        (["--lora-rank", 4], "adapter options without an adapter; add --lora"),
        (["--lora", "--lora-rank", 0], "lora.rank is 0"),
        (["--lora", "--target-modules", "q_prj"], "the model has no module q_prj; it has down_proj, gate_proj, k_proj"),
        (["--output", "ds"], "ds: already exists; choose another folder or pass --overwrite"),
        (["--output", "ds", "--overwrite"], "ds: is not a run folder, so it is not replaced; choose another folder"),
        (["none.yaml"], "none.yaml: no such recipe"),
        (["--bear-weight", 1, "--objective", "lml"], "the bear weight belongs to msl"),
        (["--bear-weight", -1], "objective.bear_weight is -1.0; it should be greater than or equal to 0"),
        (["--set", "epoch=3"], "--set: unknown name epoch; did you mean epochs? choose from dataset, model"),
        (["--set", "epochs=ten"], "--set: epochs is ten; it should be a valid integer"),
        (["--set", "epochs=1", "--set", "epochs=2"], "--set: epochs is set twice"),
        (["."], "cannot be read; give a recipe (YAML)"),
    ],
)
def test_train_says_what_is_wrong(place: Path, options: list[object], words: str) -> None:
    assert words in leaves_nothing(place, *TRAIN, *options)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("epoch: 3", "r.yaml: unknown name epoch; did you mean epochs? choose from dataset, model, objective"),
        ("objective: {nam: msl}", "r.yaml: unknown name objective.nam; did you mean name?"),
        ("objective: msll", "r.yaml, objective: no such objective: msll; did you mean msl?"),
        ("objective: {name: lml, temperature: adaptive}", "the adaptive temperature belongs to msl"),
        ("objective: {temperature: hot}", "objective.temperature is hot"),
        ("objective: [msl]", "r.yaml: objective: a mapping of names to values is expected"),
        ("lora: true", "r.yaml: lora: a mapping of names to values is expected"),
        ("validation: {patience: 0}", "validation.patience is 0"),
        ("epochs: ten", "epochs is ten; it should be a valid integer"),
        ("history: 3", "r.yaml: history: a mapping of names to values is expected"),
        ("stage: [sft]", "stage: no such stage: ['sft']; did you mean sft?"),
        ("seed: 1\nseed: 2", "r.yaml: is not YAML (seed stands twice in line 1 and below)"),
        ("seed: !!int x", "r.yaml: is not YAML"),
        ("- 1", "r.yaml: is not a recipe"),
        ("a: [", "r.yaml: is not YAML"),
    ],
)
def test_a_recipe_says_what_is_wrong(place: Path, recipe: str, words: str) -> None:
    Path("r.yaml").write_text(recipe)
    assert words in leaves_nothing(place, "train", "r.yaml", *TRAIN[1:])


def test_what_a_run_needs_is_asked_for(place: Path) -> None:
    assert "--output: no output given; name the run folder to make" in leaves_nothing(place, "train")
    assert "no dataset given; name it: --dataset" in leaves_nothing(place, "train", "--model", "lm", "--output", "x")
    assert "no model given; name it: --model" in leaves_nothing(place, "train", "--dataset", "ds", "--output", "x")


def test_options_change_a_recipe(place: Path) -> None:
    Path("r.yaml").write_text("{dataset: ds, model: lm, objective: msl+ats, lora: {rank: 2}, epochs: 1, batch_size: 9}")
    works("train", "r.yaml", "--output", "a", "--objective", "lml", "--full", "--precision", "float32")
    said = json.loads(json.dumps(Recommender.load("a").run.recipe.model_dump(mode="json")))
    assert said["objective"]["name"] == "lml" and said["objective"]["temperature"] == 1
    assert said["lora"] is None and said["batch_size"] == 9
    works(
        "train", "a/recipe.yaml", "--output", "b", "--lora", "--lora-rank", 3, "--objective", "msl", "--temperature", 2
    )
    again = Recommender.load("b").run.recipe
    assert again.lora is not None and again.lora.rank == 3
    assert again.objective.label == "msl tau=2"


def test_options_go_before_set_and_set_before_the_recipe(place: Path) -> None:
    Path("r.yaml").write_text("{dataset: ds, model: lm, objective: msl+ats, learning_rate: 1e-4, epochs: 1, seed: 1}")
    given = ["--set", "objective=msl", "--set", "objective.temperature=3"]
    said = mistake("train", "r.yaml", "--output", "a", *given)
    assert "objective.temperature beside objective is set twice" in said
    given = [
        "--set",
        "objective.temperature=3",
        "--set",
        "seed=2",
        "--set",
        "batch_size=20",
        "--set",
        "validation=null",
    ]
    works("train", "r.yaml", "--output", "a", *given, "--seed", 3, "--bear-weight", 0.5)
    recipe = Recommender.load("a").run.recipe
    assert (recipe.seed, recipe.batch_size, recipe.validation, recipe.learning_rate) == (3, 20, None, 1e-4)
    assert recipe.objective.label == "msl+bear tau=3"


def test_a_run_is_repeated_by_its_own_recipe(place: Path) -> None:
    given = ["--set", "train_examples=40", "--set", "lora.rank=2", "--batch-size", 20, "--epochs", 1]
    works(*TRAIN, *given, "--no-validation")
    works("train", "run/recipe.yaml", "--output", "again")
    assert [series(Path("run")), Path("run/recipe.yaml").read_text()] == [
        series(Path("again")),
        Path("again/recipe.yaml").read_text(),
    ]


@pytest.mark.parametrize("split", ["train", "valid"])
def test_an_empty_split_is_told_at_once(place: Path, split: str) -> None:
    shutil.copytree("ds", "empty")
    path = Path("empty/windows") / f"{split}.parquet"
    pl.read_parquet(path).clear().write_parquet(path)
    said = leaves_nothing(place, *TRAIN, "--dataset", "empty")
    assert f"empty: the split {split} has no windows; prepare it again" in said


def test_an_empty_test_split_is_told(place: Path, toy_run: Path) -> None:
    shutil.copytree("ds", "empty")
    path = Path("empty/windows/test.parquet")
    pl.read_parquet(path).clear().write_parquet(path)
    said = leaves_nothing(place, "evaluate", toy_run, "--dataset", "empty")
    assert "empty: the split test has no windows; choose another --split" in said


def test_a_title_longer_than_the_context(place: Path) -> None:
    titles = ["a one", "b one", "c one", " ".join(f"{number * 7919}" for number in range(60))]
    dataset = make_dataset(place / "long", titles=titles)
    make_model(dataset, place / "short", context=64)
    said = leaves_nothing(place, *TRAIN, "--dataset", dataset, "--model", "short")
    assert "item i003: the title has" in said and "shorten the title or use a model with a longer context" in said


def test_model_init_says_what_is_wrong(place: Path) -> None:
    assert "is not a dataset folder" in leaves_nothing(place, "model", "init", "--dataset", "lm", "--output", "x")
    said = leaves_nothing(place, "model", "init", "--dataset", "ds", "--output", "lm")
    assert "lm: already exists; choose another folder or pass --overwrite" in said
    said = leaves_nothing(place, "model", "init", "--dataset", "ds", "--output", "ds", "--overwrite")
    assert "ds: is not a model folder, so it is not replaced" in said


def test_a_run_folder_that_is_none(place: Path, toy_run: Path) -> None:
    for verb in (("evaluate",), ("recommend", "--history", "i001")):
        said = leaves_nothing(place, *verb, "ds")
        assert "ds: is not a run folder (no recipe.yaml); give a folder made by catalign train" in said
        assert "none: is not a run folder" in leaves_nothing(place, *verb, "none")
    shutil.copytree(toy_run, "half")
    provenance = json.loads(Path("half/provenance.json").read_text())
    del provenance["training"]
    Path("half/provenance.json").write_text(json.dumps(provenance))
    said = leaves_nothing(place, "evaluate", "half")
    assert "half: this run has not finished; go on with it: catalign train --resume --output" in said


@pytest.mark.parametrize(
    ("file", "content"),
    [("recipe.yaml", "a: ["), ("provenance.json", "{"), ("template.json", "[]"), ("template.json", "{}")],
)
def test_a_damaged_run_is_told(place: Path, toy_run: Path, file: str, content: str) -> None:
    shutil.copytree(toy_run, "damaged")
    (place / "damaged" / file).write_text(content)
    assert f"damaged/{file}" in leaves_nothing(place, "evaluate", "damaged")


def test_a_dataset_with_another_catalogue(place: Path, toy_run: Path) -> None:
    other = make_dataset(place / "other", prefix="j")
    said = leaves_nothing(place, "evaluate", toy_run, "--dataset", other)
    assert "has another catalogue than the run was trained on; pass the dataset of the run with --dataset" in said


def test_a_dataset_that_is_gone(place: Path, toy_run: Path) -> None:
    shutil.copytree(toy_run, "moved")
    recipe = Path("moved/recipe.yaml")
    recipe.write_text(recipe.read_text().replace("dataset: ", "dataset: /nowhere"))
    assert "the dataset of this run is gone; pass it with --dataset" in leaves_nothing(place, "evaluate", "moved")
    assert "ndcg@10" in works("evaluate", "moved", "--dataset", "ds", "--json")


def test_a_history_that_cannot_be_read(place: Path, toy_run: Path) -> None:
    said = leaves_nothing(place, "recommend", toy_run, "--history", "red lamp", "--history", "gren lamp")
    assert 'no item has the id or title "gren lamp"; did you mean "green lamp" or ' in said
    assert "catalign recommend: no history given" in leaves_nothing(place, "recommend", toy_run)
    both = leaves_nothing(place, "recommend", toy_run, "--history", "i001", "--input", "x.jsonl")
    assert "a history and a file given; pass --history" in both


@pytest.mark.parametrize("option", [["-k", 0], ["--beams", 0], ["--score", "half"], ["--bems", 3]])
def test_usage_errors_end_with_2(place: Path, toy_run: Path, option: list[object]) -> None:
    ended = catalign("recommend", toy_run, "--history", "i001", *option)
    assert ended.code == 2 and str(option[0]) in ended.err and "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"items": ["i001"]}', "in.jsonl: has no column 'history'; its columns are items"),
        ('{"history": "i001"}', "in.jsonl: the column 'history' holds String; give a list of item ids or titles"),
        ('{"history": [[1]]}', "in.jsonl: the column 'history' holds List(List(Int64)); give a list"),
        ('{"history": [1.5]}', "in.jsonl: the column 'history' holds List(Float64); give a list"),
        ('{"history": ["i001"], "items": 3}', "in.jsonl: has a column 'items' already; rename it"),
        ('{"history": ["i001"]}\n{"history": []}', "in.jsonl, row 2: history: the history is empty; name at least one"),
        ('{"history": ["i001"]}\n{"history": null}', "in.jsonl, row 2: history: the history is empty"),
        ('{"history": ["i001", null]}', "in.jsonl, row 1: the history holds a null; remove it"),
        ('{"history": ["red lamp"]}\n{"history": ["red lmp"]}', "in.jsonl, row 2: the catalogue: no item has the id"),
        ("not json", "in.jsonl: cannot be read"),
        ("", "in.jsonl: "),
    ],
)
def test_a_file_of_histories_says_which_row(place: Path, toy_run: Path, content: str, words: str) -> None:
    Path("in.jsonl").write_text(content)
    said = leaves_nothing(place, "recommend", toy_run, "--input", "in.jsonl", "--output", "out.parquet")
    assert words in said


def test_files_of_other_kinds(place: Path, toy_run: Path) -> None:
    Path("in.jsonl").write_text('{"history": ["i001"]}')
    Path("in.csv").write_text("history\ni001\n")
    Path("in.parquet").write_text("no")
    recommend = ("recommend", toy_run, "--input")
    assert "--output: no output given" in leaves_nothing(place, *recommend, "in.jsonl")
    ending = "neither Parquet nor JSON lines; use the ending .parquet or .jsonl"
    assert f"out.csv: {ending}" in leaves_nothing(place, *recommend, "in.jsonl", "--output", "out.csv")
    assert f"in.csv: {ending}" in leaves_nothing(place, *recommend, "in.csv", "--output", "out.jsonl")
    assert "none.jsonl: no such file" in leaves_nothing(place, *recommend, "none.jsonl", "--output", "out.jsonl")
    assert "in.parquet: cannot be read" in leaves_nothing(place, *recommend, "in.parquet", "--output", "out.jsonl")
    there = leaves_nothing(place, *recommend, "in.jsonl", "--output", "in.jsonl")
    assert "in.jsonl: already exists; choose another file or pass --overwrite" in there


def test_evaluations_of_other_settings_are_not_mixed(place: Path, toy_run: Path) -> None:
    works("evaluate", toy_run, "--output", "predictions")
    said = leaves_nothing(place, "evaluate", toy_run, "--output", "predictions", "--beams", 15)
    assert "holds predictions of other settings (beams 20 there, 15 now" in said


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(place: Path) -> None:
    (place / "locked").mkdir(mode=0o500)
    said = leaves_nothing(place, *TRAIN, "--output", "locked/run")
    assert "locked/run: cannot be written; check the folder's permissions" in said


def test_a_file_in_the_way(place: Path) -> None:
    Path("file").write_text("mine")
    assert "file: " in leaves_nothing(place, *TRAIN, "--output", "file")
    assert "file" in leaves_nothing(place, *TRAIN, "--output", "file/run")
    assert "file" in leaves_nothing(place, "model", "init", "--dataset", "ds", "--output", "file")
    assert Path("file").read_text() == "mine"


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def last_line(*arguments: object) -> str:
    """The line that a failed command ends with; what it announced before may stand above."""
    ended = catalign(*arguments)
    assert ended.code == 2 and "Traceback" not in ended.err
    return ended.err.strip().splitlines()[-1]


def test_a_disk_full_while_the_embedded_model_is_saved(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = listing(place)
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full_disk)
    said = last_line("model", "init", "--dataset", "ds", "--output", "new", "--preset", "tiny", "--epochs", 0)
    assert "new: the disk is full; free some space and run again" in said
    assert listing(place) == before


@pytest.mark.parametrize("saving", [1, 2], ids=["a checkpoint", "the best model"])
def test_a_disk_full_in_training_leaves_no_finished_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, saving: int
) -> None:
    saved = []
    save = PreTrainedTokenizerBase.save_pretrained

    def fills_up(self: PreTrainedTokenizerBase, folder: Path, **options: Any) -> Any:
        saved.append(folder)
        return full_disk() if len(saved) == saving else save(self, folder, **options)

    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", fills_up)
    said = last_line(*TRAIN, "--epochs", 1, "--precision", "float32")
    assert "run: the disk is full; free some space and run again" in said
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert len(saved) == saving
    said = mistake("evaluate", "run")
    assert "run: this run has not finished; go on with it: catalign train --resume --output" in said
    works("train", "--resume", "--output", "run")
    works("evaluate", "run")


def test_the_python_face_says_what_is_wrong(toy_run: Path) -> None:
    recommender = Recommender.load(toy_run)
    with pytest.raises(UserError, match="history 2: the history is empty"):
        recommender.recommend_many([["i001"], []])
    with pytest.raises(UserError, match="history 1: is one text; give a list"):
        recommender.recommend("i001")
    with pytest.raises(UserError, match="-k: 0 recommendations asked for; ask for at least 1"):
        recommender.recommend(["i001"], k=0)

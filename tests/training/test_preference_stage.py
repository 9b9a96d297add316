"""The preference stage through the command line, on the toy world."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM

from catalign.data.dataset import load_dataset
from catalign.model.reference import train_on
from catalign.training.preference_stage import PreferenceStage, continued
from catalign.training.recipe import PreferenceRecipe, make_recipe
from catalign.training.run import load_run
from toy import log_lines, make_dataset, make_model, mistake, series, works

SAME = {"rtol": 2e-4, "atol": 1e-6}
"""Float32 sums in another order."""
QUICK = ("--epochs", 1, "--batch-size", 8, "--train-examples", 48, "--learning-rate", 1e-3)
USUAL = ("--precision", "float32", "--logging-steps", 1, "--valid-windows", 12)


@pytest.fixture(scope="module")
def sft(toy_dataset: Path, toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs to start from: full weights, and an adapter; they know a little."""
    folder = tmp_path_factory.mktemp("sft")
    common = ("--dataset", toy_dataset, "--model", toy_model, "--epochs", 3, "--batch-size", 16, "--valid-windows", 12)
    works("train", *common, "--learning-rate", 2e-3, "--objective", "lml", "--output", folder / "full")
    adapter = ("--lora", "--target-modules", "q_proj,v_proj,up_proj", "--learning-rate", 1e-2)
    works("train", *common, *adapter, "--objective", "msl", "--output", folder / "adapter")
    return {"full": folder / "full", "adapter": folder / "adapter"}


class Prefer:
    """Trains the preference stage in a folder of its own, one run per name."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder, self.source = folder, source

    def __call__(self, name: str, *options: object) -> Path:
        run = self.folder / name
        works("train", "--stage", "preference", "--from", self.source, "--output", run, *QUICK, *USUAL, *options)
        return run

    def losses(self, name: str, *options: object) -> Any:
        return np.array(series(self(name, *options)))


@pytest.fixture
def prefer(tmp_path: Path, sft: dict[str, Path]) -> Prefer:
    return Prefer(tmp_path, sft["adapter"])


@pytest.fixture
def prefer_full(tmp_path: Path, sft: dict[str, Path]) -> Prefer:
    return Prefer(tmp_path, sft["full"])


@pytest.mark.parametrize("kind", ["adapter", "full", "full, new adapter", "without sft"])
def test_before_the_first_step_policy_and_reference_agree(
    kind: str, tmp_path: Path, sft: dict[str, Path], toy_dataset: Path, toy_model: Path
) -> None:
    source = {
        "adapter": ("--from", sft["adapter"]),
        "full": ("--from", sft["full"]),
        "full, new adapter": ("--from", sft["full"], "--lora"),
        "without sft": ("--without-sft", "--model", toy_model, "--dataset", toy_dataset),
    }[kind]
    works("train", "--stage", "preference", *source, "--output", tmp_path / "run", *QUICK, *USUAL)
    first = log_lines(tmp_path / "run")[0]
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-6)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
        assert first[name] == pytest.approx(0, abs=1e-6)
    assert log_lines(tmp_path / "run")[5]["loss"] != pytest.approx(np.log(2), abs=1e-5)


def test_all_objectives_are_dpo_with_one_negative(prefer: Prefer) -> None:
    expected = prefer.losses("dpo", "--objective", "dpo", "--negatives", 1)
    assert len(expected) == 6 and expected.std() > 1e-4
    for name in ("dmpo", "pairs", "sdpo", "pair-sum"):
        np.testing.assert_allclose(prefer.losses(name, "--objective", name, "--negatives", 1), expected, **SAME)


def test_the_family_is_ordered(prefer: Prefer) -> None:
    last = [prefer.losses(name, "--objective", name)[-1] for name in ("dmpo", "pairs", "sdpo", "pair-sum")]
    assert last == sorted(last) and last[0] < last[2] < last[3]


@pytest.mark.parametrize("objective", ["dmpo", "dmpo-released"])
def test_eight_micro_batches_of_one_are_one_of_eight(prefer: Prefer, objective: str) -> None:
    options = ("--objective", objective, "--sft-weight", 0.5)
    eight = prefer(f"{objective}-eight", *options)
    one = prefer(f"{objective}-one", *options, "--micro-batch-size", 1)
    for name in ("loss", "rewards/chosen", "rewards/margins", "accuracy"):
        np.testing.assert_allclose(series(one, name), series(eight, name), rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("score", ["valid", "full"])
def test_a_prefix_forest_trains_as_padded_rows_do(prefer_full: Prefer, score: str) -> None:
    forest = prefer_full.losses("forest", "--score", score)
    rows = prefer_full.losses("rows", "--score", score, "--no-share-prefixes")
    np.testing.assert_allclose(forest, rows, **SAME)


def stage_of(source: Path, **fields: Any) -> PreferenceStage:
    """A stage as the command builds it, on twenty windows."""
    given = {"stage": "preference", "from": str(source), "precision": "float32", **fields}
    recipe = make_recipe(continued(given, where="test"), where="test")
    assert isinstance(recipe, PreferenceRecipe)
    run, dataset = load_run(source), load_dataset(recipe.dataset)
    train_on(run.model, source)
    frame = dataset.windows("train").with_row_index("window").head(20)
    stage = PreferenceStage(recipe, run.model, run.prompter, frame)
    stage.choose_negatives(dataset)
    return stage


@pytest.mark.parametrize("score", ["valid", "full"])
def test_the_cached_reference_is_the_adapters(sft: dict[str, Path], tmp_path: Path, score: str) -> None:
    stage = stage_of(sft["adapter"], objective={"score": score})
    cache = stage.open_cache(tmp_path / "c", load_run(sft["adapter"]).catalogue)
    stage.take_reference(cache)
    cached = stage.batches.reference_SC
    assert np.isfinite(cached).all() and cached.std() > 0.1
    with torch.no_grad():
        for weight in stage.module.parameters():
            if weight.requires_grad:
                weight.add_(0.05)
    np.testing.assert_allclose(stage.reference_scores(list(range(20))), cached, atol=1e-5)
    np.testing.assert_allclose(stage.reference_scores([7]), cached[[7]], atol=1e-5)
    moved = stage.module.log_probabilities(**stage.batches(list(range(20)))).detach().view(20, -1)
    assert np.abs(moved.numpy() - cached).mean() > 0.01
    stage.batches.change(stage.batches.item_SC[:, 1:])
    stage.take_reference(stage.open_cache(tmp_path / "c", load_run(sft["adapter"]).catalogue))
    np.testing.assert_array_equal(stage.batches.reference_SC, cached)  # read, not computed


def test_a_cache_serves_other_betas_and_objectives(prefer: Prefer, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = ("--reference-cache", prefer.folder / "cache")
    prefer("first", *shared)
    assert not (prefer.folder / "first" / "reference").exists()
    alone = prefer.losses("alone", "--beta", 0.5, "--objective", "sdpo")
    assert (prefer.folder / "alone" / "reference" / "reference.parquet").is_file()
    before = (prefer.folder / "cache" / "reference.parquet").read_bytes()

    def never(*_: object) -> None:
        raise AssertionError("the reference is known")

    monkeypatch.setattr(PreferenceStage, "reference_scores", never)
    found = prefer.losses("second", *shared, "--beta", 0.5, "--objective", "sdpo")
    np.testing.assert_allclose(found, alone, **SAME)
    assert (prefer.folder / "cache" / "reference.parquet").read_bytes() == before


def test_the_released_form_asks_no_reference(prefer: Prefer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PreferenceStage, "reference_scores", None)
    run = prefer("released", "--objective", "dmpo-released")
    assert not (run / "reference").exists() and series(run)[0] > np.log(2)


@pytest.mark.parametrize("negatives", ["uniform", "hard"])
def test_preference_improves_the_rank_of_the_target(prefer_full: Prefer, negatives: str) -> None:
    options = ("--epochs", 6, "--train-examples", 320, "--beta", 1, "--objective", "sdpo")
    run = prefer_full("run", *options, "--negatives-from", negatives)
    accuracy, margins = np.array(series(run, "accuracy")), np.array(series(run, "rewards/margins"))
    assert accuracy[-40:].mean() > accuracy[:5].mean() + 0.02 and margins[-40:].mean() > 0.5
    if negatives == "uniform":  # hard ones push down what the little trained model believes
        assert max(series(run, "eval_ndcg@10")) > 0.5
    assert json.loads(works("recommend", run, "--history", "i001", "--json"))
    assert load_run(run).recipe.objective.label == "sdpo"


def test_the_new_adapter_alone_is_saved(prefer: Prefer, toy_model: Path) -> None:
    run = prefer("run")
    assert (run / "adapter_model.safetensors").is_file()
    assert {path.name for path in run.iterdir() if path.is_dir()} == {"catalogue", "reference", "tensorboard"}
    tokens = {"input_ids": torch.tensor([[5, 6, 7]])}
    logits = [
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(toy_model), folder)(**tokens).logits.detach()
        for folder in (run, prefer.source)
    ]
    np.testing.assert_allclose(load_run(run).model.causal(**tokens).logits.detach(), logits[0], atol=1e-6)
    assert not np.allclose(logits[0], logits[1], atol=1e-4)
    assert works("recommend", run, "--history", "i001", "-k", 3)


def test_a_run_of_full_weights_gets_a_new_adapter(prefer_full: Prefer) -> None:
    run = prefer_full("run", "--lora", "--lora-rank", 4)
    assert not (run / "model.safetensors").exists()
    config = json.loads((run / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(prefer_full.source.resolve()) and config["r"] == 4
    assert works("recommend", run, "--history", "i001", "-k", 3)
    again = Prefer(prefer_full.folder, run)("again")  # and that one trains on
    assert load_run(again).recipe.model == str(prefer_full.source.resolve())
    assert log_lines(again)[0]["loss"] == pytest.approx(np.log(2), abs=1e-6)


def test_everything_else_is_taken_over(prefer: Prefer, prefer_full: Prefer, toy_dataset: Path) -> None:
    one, other = load_run(prefer("a")).recipe, load_run(prefer_full("b")).recipe
    assert isinstance(one, PreferenceRecipe) and isinstance(other, PreferenceRecipe)
    assert one.dataset == toy_dataset.resolve() and one.history is not None
    assert one.lora is not None and one.lora.target_modules == ("q_proj", "v_proj", "up_proj") and other.lora is None
    assert (one.objective.score, other.objective.score) == ("valid", "full")  # as msl and lml train
    assert one.negatives.seed == one.seed == 0


def test_a_run_is_repeated_by_its_own_recipe(prefer: Prefer) -> None:
    first = prefer("a", "--objective", "sdpo", "--negatives-from", "popular", "--beta", 0.3)
    assert "from: " in (first / "recipe.yaml").read_text()
    works("train", first / "recipe.yaml", "--output", prefer.folder / "again")
    assert series(first) == series(prefer.folder / "again")


def test_a_recipe_file_names_it_all(prefer: Prefer) -> None:
    recipe = prefer.folder / "r.yaml"
    recipe.write_text(
        f"stage: preference\nfrom: {prefer.source}\nobjective: pairs\nnegatives: {{kind: hard, count: 2}}\n"
        "validation: null\nepochs: 1\ntrain_examples: 16\n"
    )
    works("train", recipe, "--output", prefer.folder / "run", "--beta", 0.2)
    run = load_run(prefer.folder / "run")
    assert isinstance(run.recipe, PreferenceRecipe)
    assert run.recipe.objective.name == "pairs" and run.recipe.objective.beta == 0.2
    assert run.recipe.negatives.kind == "hard" and run.recipe.validation is None


def test_without_validation_the_last_epoch_is_kept(prefer: Prefer) -> None:
    said = works(
        "train", "--stage", "preference", "--from", prefer.source, "--output", prefer.folder / "a",
        *QUICK, "--epochs", 2, "--no-validation",
    )  # fmt: skip
    assert "2 epochs, the last is kept" in said
    run = load_run(prefer.folder / "a")
    assert run.training["chosen_on"] == "last epoch" and run.training["best_epoch"] == 2
    assert run.checkpoint.endswith("epoch 2, the last") and not series(run.folder, "eval_ndcg@10")


def test_rewards_reach_tensorboard(prefer: Prefer) -> None:
    events = EventAccumulator(str(prefer("run") / "tensorboard")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {f"train/{name}" for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "accuracy")} <= tags
    assert len(events.Scalars("train/accuracy")) == 6


def test_hard_negatives_are_refreshed(prefer: Prefer) -> None:
    options = ("--negatives-from", "hard", "--negatives", 2, "--learning-rate", 1e-2, "--epochs", 2)
    once = prefer("once", *options)
    often = prefer("often", *options, "--refresh-steps", 4)
    known = [len(pl.read_parquet(run / "reference" / "reference.parquet")) for run in (once, often)]
    assert known[1] > known[0] > 100  # two more searches found other titles
    assert series(once)[:4] == series(often)[:4] and series(once)[6:] != series(often)[6:]


def dataset_with(dataset: Path, folder: Path, change: Any) -> Path:
    """A copy of a dataset whose training windows are changed."""
    shutil.copytree(dataset, folder)
    path = folder / "windows" / "train.parquet"
    change(pl.read_parquet(path)).write_parquet(path)
    return folder


def give(offset: int) -> Any:
    """A change: negatives that stand `offset` items after the target."""
    column = pl.concat_list((pl.col("target") + offset) % 24, (pl.col("target") + 5) % 24).alias("negatives")
    return lambda frame: frame.with_columns(column.cast(pl.List(pl.UInt32)))


def test_negatives_may_be_given(prefer: Prefer, toy_dataset: Path) -> None:
    given = dataset_with(toy_dataset, prefer.folder / "ds", give(7))
    run = load_run(prefer("run", "--dataset", given, "--negatives-from", "given", "--negatives", 1))
    assert run.recipe.dataset == given and len(series(run.folder)) == 6
    stage = stage_of(prefer.source, dataset=str(given), negatives={"kind": "given", "count": 2})
    target_S = stage.batches.windows.target_S
    np.testing.assert_array_equal(stage.batches.item_SC.T, [target_S, (target_S + 7) % 24, (target_S + 5) % 24])


def test_negatives_of_a_category(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    items = pl.read_parquet(dataset / "items.parquet")
    things = items.with_columns(thing=pl.col("title").str.split(" ").list.last())
    things.write_parquet(dataset / "items.parquet")
    model = make_model(dataset, tmp_path / "lm")
    places = ("--dataset", dataset, "--model", model, "--without-sft", "--output", tmp_path / "run")
    works("train", "--stage", "preference", *places, *QUICK, "--negatives-from", "category", "--category", "thing")
    assert (tmp_path / "run" / "provenance.json").is_file()


def leaves_nothing(folder: Path, *arguments: object) -> str:
    before = sorted(folder.rglob("*"))
    said = mistake("train", *arguments, "--output", folder / "run")
    assert sorted(folder.rglob("*")) == before
    return said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--objective", "dpo"], "dpo takes 1 negative, not 3: pass --negatives 1, or take dmpo"),
        (["--negatives", 0], "negatives.count is 0; it should be greater than or equal to 1"),
        (["--negatives", 20], "--negatives: 20 negatives asked for, but for some training window only 1"),
        (["--negatives", 20, "--negatives-from", "hard"], "--negatives: 20 negatives asked for"),
        (["--negatives-from", "easy"], "negatives.kind: no such choice: easy; choose from uniform, popular, category"),
        (["--negatives-from", "given"], "train.parquet: the windows have no column negatives; draw them"),
        (["--negatives-from", "category"], "negatives of a category need its column: pass --category"),
        (["--negatives-from", "category", "--category", "x"], "--category: the items have no column x"),
        (["--category", "x"], "a category column is given, but the negatives are uniform"),
        (["--refresh-steps", 3], "only hard negatives are refreshed, not uniform ones"),
        (["--beta", 0], "objective.beta is 0.0; it should be greater than 0"),
        (["--score", "half"], "objective.score: no such choice: half; choose from valid, full"),
        (["--objective", "msl"], "--objective: msl is no objective of the stage preference; pass --stage sft"),
        (["--objective", "dmpoo"], "--objective: no such objective: dmpoo; did you mean dmpo? choose from dmpo, pairs"),
        (["--temperature", 2], "unknown name objective.temperature; it belongs to --stage sft"),
        (["--full"], "lora: the run "),
        (["--lora", "--lora-rank", 3], "has another; leave it out"),
        (["--template", "instruction"], "template: the run "),
        (["--history", "anchored"], "history: the run "),
        (["--model", "elsewhere"], "model: the run "),
        (["--without-sft"], "a run to start from, --from, or --without-sft: one of them, not both"),
        (["--train-examples", 10_000], "10,000 training examples asked for, the dataset has 336"),
    ],
)
def test_mistakes_leave_nothing(sft: dict[str, Path], tmp_path: Path, options: list[object], words: str) -> None:
    said = leaves_nothing(tmp_path, "--stage", "preference", "--from", sft["adapter"], *options)
    assert words in said


def test_a_run_to_start_from_is_needed(toy_dataset: Path, toy_model: Path, tmp_path: Path) -> None:
    places = ("--dataset", toy_dataset, "--model", toy_model)
    for given in ((), places):
        said = leaves_nothing(tmp_path, "--stage", "preference", *given)
        assert "no run to start from; name one with --from, or pass --without-sft and a --model" in said
    assert "no model given" in leaves_nothing(tmp_path, "--stage", "preference", "--without-sft", *places[:2])
    said = leaves_nothing(tmp_path, "--stage", "preference", "--from", toy_dataset)
    assert "is not a run folder (no recipe.yaml); give a folder made by catalign train" in said


def test_stages_and_what_belongs_to_them(toy_dataset: Path, toy_model: Path, tmp_path: Path) -> None:
    places = ("--dataset", toy_dataset, "--model", toy_model)
    assert "no such stage: preferences; did you mean preference? choose from sft, soft, preference" in leaves_nothing(
        tmp_path, *places, "--stage", "preferences"
    )
    assert "dmpo is no objective of the stage sft; pass --stage preference" in leaves_nothing(
        tmp_path, *places, "--objective", "dmpo"
    )
    assert "it belongs to --stage soft or preference" in leaves_nothing(tmp_path, *places, "--from", toy_model)
    for option in (("--negatives", 3), ("--beta", 0.1), ("--reference-cache", tmp_path)):
        assert "it belongs to --stage preference" in leaves_nothing(tmp_path, *places, *option)


def test_full_weights_keep_no_reference_to_refresh_with(sft: dict[str, Path], tmp_path: Path) -> None:
    options = ("--negatives-from", "hard", "--refresh-steps", 5)
    said = leaves_nothing(tmp_path, "--stage", "preference", "--from", sft["full"], *options)
    assert "all weights train, so there is no reference left for refreshed negatives: add --lora" in said


def test_a_run_that_has_not_finished(sft: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(sft["full"], tmp_path / "half")
    provenance = json.loads((tmp_path / "half" / "provenance.json").read_text())
    del provenance["training"]
    (tmp_path / "half" / "provenance.json").write_text(json.dumps(provenance))
    said = leaves_nothing(tmp_path, "--stage", "preference", "--from", tmp_path / "half")
    assert "half: this run has not finished; go on with it: catalign train --resume --output" in said


def test_a_dataset_with_another_catalogue(sft: dict[str, Path], tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", prefix="j")
    said = leaves_nothing(tmp_path, "--stage", "preference", "--from", sft["full"], "--dataset", other)
    assert "has another catalogue than the run to start from was trained on; pass the dataset of the run" in said


def test_a_reference_of_another_tokenizer(toy_dataset: Path, toy_model: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_model, tmp_path / "lm")
    places = ("--dataset", toy_dataset, "--model", tmp_path / "lm", "--output", tmp_path / "sft")
    works("train", *places, *QUICK, "--lora", "--no-validation")
    shutil.rmtree(tmp_path / "lm")
    other = make_dataset(tmp_path / "other", titles=[f"{number} thing" for number in range(24)])
    make_model(other, tmp_path / "lm")
    said = leaves_nothing(tmp_path, "--stage", "preference", "--from", tmp_path / "sft")
    assert "this run was trained with another tokenizer than its model has now; train it again on" in said


@pytest.mark.parametrize("options", [("--score", "full"), ("--train-examples", 20)])
def test_a_cache_of_another_reference(prefer: Prefer, sft: dict[str, Path], options: tuple[object, ...]) -> None:
    cache = prefer.folder / "cache"
    prefer("first", "--reference-cache", cache)
    before = (cache / "reference.parquet").read_bytes()
    source = sft["adapter"] if "--score" in options else sft["full"]
    said = leaves_nothing(
        prefer.folder / "first", "--stage", "preference", "--from", source, "--reference-cache", cache, *options,
        "--precision", "float32",
    )  # fmt: skip
    differs = "score" if "--score" in options else "adapter, model, score"
    assert f"cache: holds log-probabilities of another reference (other: {differs}); choose another folder" in said
    assert (cache / "reference.parquet").read_bytes() == before


def test_what_a_run_starts_from_is_not_replaced(prefer_full: Prefer) -> None:
    source = prefer_full.source
    said = mistake("train", "--stage", "preference", "--from", source, "--output", source, "--overwrite")
    assert "is the model to start from, so it is not replaced" in said
    run = prefer_full("run", "--lora")
    said = mistake("train", "--stage", "preference", "--from", run, "--output", source, "--overwrite")
    assert "is the model to start from, so it is not replaced" in said
    prefer_full("run", "--overwrite", "--score", "valid")  # its own old cache goes with it

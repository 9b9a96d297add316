"""Settings that mean the same must train the same, seen through the command line and the log it leaves.

Each run is a handful of steps in float32 on the toy world; what is compared is the loss of every step in `log.jsonl`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    set_seed,
)

from catalign.data.dataset import load_dataset
from catalign.evaluation.predictions import draw_windows
from catalign.prompting.positions import Positions, Scores, scored_positions
from catalign.recommender import Recommender
from catalign.training import batches
from toy import TITLES, evaluated, log_lines, make_dataset, make_model, series, works

SAME = {"rtol": 2e-4, "atol": 0}
"""Float32 sums in another order; a wrong setting differs by percents."""


class Runner:
    """Trains in a folder of its own with the same few options, one run per name."""

    def __init__(self, folder: Path, dataset: Path, model: Path) -> None:
        self.folder, self.dataset, self.model = folder, dataset, model

    def __call__(self, name: str, *arguments: object) -> Path:
        run = self.folder / name
        options = {"batch-size": 8, "epochs": 2, "train-examples": 48, "learning-rate": 3e-3, "valid-windows": 12}
        usual = [text for option, value in options.items() for text in (f"--{option}", value)]
        places = ["--dataset", self.dataset, "--model", self.model, "--output", run]
        works("train", *places, *usual, "--precision", "float32", "--logging-steps", 1, *arguments)
        return run

    def losses(self, name: str, *arguments: object) -> Any:
        return np.array(series(self(name, *arguments)))


@pytest.fixture
def train(tmp_path: Path, toy_dataset: Path, toy_model: Path) -> Runner:
    return Runner(tmp_path, toy_dataset, toy_model)


def test_every_step_is_logged_and_the_loss_falls(train: Runner) -> None:
    losses = train.losses("a", "--epochs", 5)
    assert [line["step"] for line in log_lines(train.folder / "a") if "loss" in line] == list(range(1, 31))
    assert losses[-6:].mean() < 0.8 * losses[:6].mean()


@pytest.mark.parametrize("objective", ["lml", "msl", "msl+ats"])
@pytest.mark.parametrize("template", ["plain", "instruction"])
def test_a_prefix_forest_trains_as_padded_rows_do(train: Runner, objective: str, template: str) -> None:
    options = ("--objective", objective, "--template", template, "--epochs", 9, "--valid-windows", 1, "--patience", 9)
    forest = train.losses("forest", *options)
    rows = train.losses("rows", *options, "--no-share-prefixes")
    assert len(forest) == 54
    np.testing.assert_allclose(forest, rows, **SAME)
    assert abs((forest / rows - 1).mean()) < 2e-5  # and drifts to neither side


def test_the_length_of_a_row_changes_nothing(train: Runner) -> None:
    np.testing.assert_allclose(train.losses("short", "--row-tokens", 32), train.losses("long"), **SAME)


@pytest.mark.parametrize(
    ("objective", "batching"), [("lml", "by-user"), ("msl", "by-user"), ("msl", "shuffled"), ("msl+ats", "by-user")]
)
def test_eight_micro_batches_of_one_are_one_of_eight(train: Runner, objective: str, batching: str) -> None:
    options = ("--objective", objective, "--batching", batching, "--epochs", 1)
    eight = train.losses("eight", *options, "--micro-batch-size", 8)
    np.testing.assert_allclose(train.losses("one", *options, "--micro-batch-size", 1), eight, **SAME)


def test_a_micro_batch_is_by_default_the_batch(train: Runner) -> None:
    np.testing.assert_allclose(train.losses("said", "--micro-batch-size", 8), train.losses("unsaid"), rtol=1e-6)


def test_the_adaptive_temperature_is_logged_and_does_not_see_micro_batches(train: Runner) -> None:
    # Eight words begin a title: eta just above an eighth makes the temperature follow the margin, off its bounds.
    recipe = train.folder / "ats.yaml"
    recipe.write_text("objective: {name: msl, temperature: adaptive, first_temperature: 2, eta: 0.135, momentum: 0.5}")
    whole = series(train("whole", recipe, "--epochs", 8), "temperature")
    assert len(set(whole)) > 20
    assert min(whole) < 1.9 and max(whole) > 2.1
    one = series(train("one", recipe, "--epochs", 8, "--micro-batch-size", 1), "temperature")
    np.testing.assert_allclose(one, whole, rtol=1e-3)


def test_a_seed_gives_one_series_and_one_set_of_predictions(train: Runner) -> None:
    first, again, other = (train(name, "--seed", seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert series(first) == series(again)
    assert not np.allclose(series(first), series(other), rtol=1e-3)
    assert predictions(first).equals(predictions(again))
    assert not predictions(first)["scores"].equals(predictions(other)["scores"])


def predictions(run: Path) -> pl.DataFrame:
    works("evaluate", run)
    return pl.read_parquet(next((run / "evaluations").iterdir()) / "part-*.parquet")


def test_a_run_is_repeated_by_its_own_recipe(train: Runner) -> None:
    first = train("a", "--objective", "msl+ats", "--lora", "--batching", "shuffled")
    works("train", first / "recipe.yaml", "--output", train.folder / "again")
    assert series(first) == series(train.folder / "again")


def test_few_examples_are_drawn_by_the_seed(train: Runner) -> None:
    def first_step(name: str, seed: int) -> float:
        # One step over all examples, from the same weights, without dropout: only the draw can differ.
        return float(train.losses(name, "--batch-size", 48, "--epochs", 1, "--seed", seed)[0])

    assert first_step("a", 0) == pytest.approx(first_step("b", 0), rel=1e-6)
    assert first_step("c", 1) != pytest.approx(first_step("a2", 0), rel=1e-4)


def test_the_denominators_differ_by_the_counts(train: Runner) -> None:
    one_step = ("--batch-size", 48, "--epochs", 1)
    run = train("branching", *one_step)
    targets = batches_of(run, train.dataset)
    branching, everything = len(targets.window_P), targets.all_positions
    assert branching < everything
    ratio = series(run)[0] / train.losses("all", *one_step, "--denominator", "all")[0]
    assert ratio == pytest.approx(everything / branching, rel=1e-5)


def batches_of(run: Path, dataset: Path) -> Positions:
    """The scored positions of all training examples of a run."""
    drawn = draw_windows(load_dataset(dataset).windows("train"), 48, 0)
    targets = drawn["target"].to_numpy().astype(np.int64)
    return scored_positions(Recommender.load(run).run.prompter.trie, targets, "valid")


def test_lml_is_never_below_msl(train: Runner) -> None:
    one_step = ("--batch-size", 48, "--epochs", 1)
    masked = train.losses("msl", *one_step, "--denominator", "all")[0]
    assert train.losses("lml", *one_step, "--objective", "lml")[0] > masked


def test_a_temperature_flattens_the_softmax(train: Runner) -> None:
    one_step = ("--batch-size", 48, "--epochs", 1)
    hot = train.losses("hot", *one_step, "--temperature", 1e6)[0]
    targets = batches_of(train.folder / "hot", train.dataset)
    assert hot == pytest.approx(np.log(np.bincount(targets.position_E)).mean(), rel=1e-3)


def test_lml_is_msl_where_every_token_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(tmp_path, titles=TITLES)
    model = word_model(tmp_path / "lm")
    train = Runner(tmp_path, dataset, model)
    with monkeypatch.context() as patch:
        patch.setattr(batches, "scored_positions", everything_valid)
        masked = train.losses("msl", "--objective", "msl")
    np.testing.assert_allclose(masked, train.losses("lml", "--objective", "lml"), **SAME)
    assert not np.allclose(masked, train.losses("really-msl", "--denominator", "all"), rtol=0.05)


def word_model(folder: Path) -> Path:
    """A model whose vocabulary is the words of the toy world and the end token: the alphabet of its trie."""
    words = ["<end>", *sorted({word for title in TITLES for word in title.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    set_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=None,
        )
    ).save_pretrained(folder)
    return folder


def everything_valid(trie: Any, target_S: Any, scores: Scores) -> Positions:
    """As if after every token any other could follow: all positions scored, against the whole alphabet."""
    found = scored_positions(trie, target_S, "vocabulary")
    positions, letters = len(found.gold_P), len(trie.alphabet)
    if scores == "vocabulary":
        return found
    return Positions(
        window_P=found.window_P,
        depth_P=found.depth_P,
        gold_P=np.arange(positions) * letters + np.searchsorted(trie.alphabet, found.gold_P),
        position_E=np.repeat(np.arange(positions), letters),
        symbol_E=np.tile(np.arange(letters), positions),
        first_P=found.first_P,
        all_positions=found.all_positions,
    )


def test_an_adapter_is_saved_alone_and_loads_without_us(train: Runner) -> None:
    run = train("lora", "--lora", "--target-modules", "q_proj,v_proj,up_proj", "--learning-rate", 1e-2)
    assert (run / "adapter_model.safetensors").is_file()
    assert not (run / "model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(train.model)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(train.model), run)
    tokens = {"input_ids": torch.tensor([[5, 6, 7]])}
    ours = Recommender.load(run).run.model.causal
    assert not np.allclose(base(**tokens).logits.detach(), adapted(**tokens).logits.detach(), atol=1e-3)
    np.testing.assert_allclose(ours(**tokens).logits.detach(), adapted(**tokens).logits.detach(), atol=1e-6)
    scores = pl.read_parquet(evaluate_parts(run))["scores"].explode()
    full = train("full", "--lora", "--epochs", 1, "--learning-rate", 1e-12)
    assert not np.allclose(scores, pl.read_parquet(evaluate_parts(full))["scores"].explode(), atol=1e-3)


def evaluate_parts(run: Path) -> Path:
    evaluated(run)
    return next((run / "evaluations").iterdir()) / "part-*.parquet"


def test_full_weights_load_without_us(train: Runner) -> None:
    run = train("full")
    alone = AutoModelForCausalLM.from_pretrained(run)
    tokens = AutoTokenizer.from_pretrained(run)(TITLES[0], return_tensors="pt").input_ids
    with torch.no_grad():
        np.testing.assert_allclose(
            alone(tokens).logits, Recommender.load(run).run.model.causal(tokens).logits, atol=1e-6
        )
    assert not list(run.rglob("*.bin")) and not list(run.rglob("*.pt")), "nothing is pickled"
    assert json.loads((run / "provenance.json").read_text())["training"]["chosen_on"] == "valid"


@pytest.fixture(scope="module", autouse=True)
def _models_are_deterministic(toy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The test's own models come out the same each time, or the comparisons above would compare nothing."""
    folder = tmp_path_factory.mktemp("twice")
    one, two = make_model(toy_dataset, folder / "one"), make_model(toy_dataset, folder / "two")
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()

"""The exported folder: the same model for other programs and for us, a card that the hub can read, no path."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from catalign.export.card import fenced
from catalign.recommender import Recommender
from catalign.training.run import load_run
from toy import mistake, works

QUICK = ("--epochs", 1, "--train-examples", 32, "--batch-size", 16, "--learning-rate", 0.02, "--no-validation")
HISTORY = ["red lamp", "green lamp", "blue lamp"]


@pytest.fixture(scope="module")
def run(toy_dataset: Path, toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an adapter, evaluated."""
    folder = tmp_path_factory.mktemp("runs") / "adapted"
    works("train", "--dataset", toy_dataset, "--model", toy_model, "--output", folder, *QUICK, "--lora")
    works("evaluate", folder, "--split", "test", "--windows", 20)
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "exported"
    said = works("model", "export", run, "--output", folder)
    assert said.startswith(f"{folder}: adapted of ") and "24 items" in said
    return folder


def test_a_plain_causal_model_with_the_same_logits(run: Path, exported: Path) -> None:
    assert {path.suffix for path in exported.glob("*adapter*")} == set()
    plain, before = AutoModelForCausalLM.from_pretrained(exported), load_run(run).model
    token_RN = torch.arange(12).view(2, 6)
    with torch.no_grad():
        expected = before.causal(input_ids=token_RN).logits
        torch.testing.assert_close(plain(input_ids=token_RN).logits, expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(load_run(run).recipe.model)(input_ids=token_RN).logits
    assert (base - expected).abs().max() > 1e-2  # the adapter does something
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert tokenizer("red lamp")["input_ids"] == before.tokenizer("red lamp")["input_ids"]
    generation = GenerationConfig.from_pretrained(exported)
    assert generation.eos_token_id == before.end_token and not generation.do_sample
    assert generation.max_new_tokens == load_run(run).prompter.trie.depth.max()


def test_it_is_a_run_that_answers_the_same(run: Path, exported: Path) -> None:
    ours, theirs = (Recommender.load(folder).recommend(HISTORY, 5) for folder in (run, exported))
    assert [item.item_id for item in ours] == [item.item_id for item in theirs]
    np.testing.assert_allclose([item.probability for item in ours], [item.probability for item in theirs], rtol=1e-4)


def test_the_card_is_one_for_the_hub(run: Path, exported: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    assert card.data.library_name == "transformers" and card.data.model_name == "adapted"
    assert card.data.base_model is None  # a folder is no name on the hub
    (evaluation,) = (run / "evaluations").iterdir()
    metrics = json.loads((evaluation / "metrics.json").read_text())
    results = {result.metric_type: result for result in card.data.eval_results or []}
    assert results["ndcg@10"].metric_value == pytest.approx(metrics["ndcg@10"])
    assert results["ndcg@10"].metric_args["ci95"] == pytest.approx(metrics["ci95"]["ndcg@10"])
    assert results["ndcg@10"].dataset_split == "test"
    assert f"| {evaluation.name} | 20 | NDCG@10 |" in card.text
    prompt = load_run(run).prompter.prompt([0, 1])
    assert load_run(run).model.tokenizer.decode(prompt) in card.text and f"are {len(prompt)} tokens" in card.text
    assert "LoRA of rank 8, merged" in card.text


def test_no_path_of_this_machine_leaves(run: Path, exported: Path, toy_dataset: Path) -> None:
    homes = {str(path.resolve().parent) for path in (run, toy_dataset, Path(load_run(run).recipe.model))}
    for path in exported.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".yaml", ".md"):
            text = path.read_text(encoding="utf-8")
            assert not [home for home in homes if home in text], path
    assert "command" not in json.loads((exported / "provenance.json").read_text())


def test_all_weights_without_an_evaluation(toy_run: Path, tmp_path: Path) -> None:
    works("model", "export", toy_run, "--output", tmp_path / "e")
    text = (tmp_path / "e" / "README.md").read_text()
    assert "was not run before the export" in text and "with all weights" in text
    assert (
        Recommender.load(tmp_path / "e").recommend(HISTORY, 1)[0].title
        == Recommender.load(toy_run).recommend(HISTORY, 1)[0].title
    )


def test_refusals(run: Path, exported: Path, tmp_path: Path) -> None:
    assert "already exists" in mistake("model", "export", run, "--output", exported)
    works("model", "export", run, "--output", exported, "--overwrite")
    assert "is not a run folder" in mistake("model", "export", tmp_path, "--output", tmp_path / "a")
    copied = tmp_path / "llara"
    shutil.copytree(run, copied)
    (copied / "item_embeddings.parquet").write_bytes(b"")
    assert "no other program could read them" in mistake("model", "export", copied, "--output", tmp_path / "b")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_a_title_cannot_leave_its_code_block() -> None:
    block = fenced("a ```` b\n```\n# not a heading").splitlines()
    assert block[0] == "`````text" and block[-1] == "`````" and "`````" not in block[1:-1]
    assert fenced("plain").startswith("```text\n")

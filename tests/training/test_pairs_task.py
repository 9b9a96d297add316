"""The published pair prompt as a task: right order over swapped, each negative in a prompt of its own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

import toy
from catalign.catalogue.catalogue import Catalogue
from catalign.data.dataset import load_dataset
from catalign.model.embedded import build_model, build_tokenizer
from catalign.model.loading import load_language_model
from catalign.prompting.choices import PAIRS, ChoicePrompter
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN
from catalign.training.batches import BatchMaker, Windows
from catalign.training.module import Objective, TrainingModule
from catalign.training.pairs_task import PairBatches, PairPreferenceBatches, first_pairs, target_places
from catalign.training.preference_module import PreferenceModule, PreferenceObjective
from fewshot_files import instruction, ordered, write_fewshot

TITLES = ["Red Lamp", "Red Kettle", "Blue Lamp", "Old Scarf", "New Scarf", "Golden Fork", "Silver Spoon", "Black Cup"]
TRAIN = [
    (TITLES[:2], TITLES[2], TITLES[3:6], [True, False, True]),
    (TITLES[4:6], TITLES[1], [TITLES[0], TITLES[7], TITLES[2]], [False, False, True]),
    (TITLES[1:4], TITLES[7], [TITLES[6], TITLES[0], TITLES[5]], [True, True, False]),
]
TEST = [(TITLES[2:4], TITLES[0], [TITLES[5]], [False]), (TITLES[5:7], TITLES[3], [TITLES[1]], [True])]
SIDES = [False, True, True]  # of the SFT file, other than in the preference file


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A few-shot dataset, a model of random weights, and a run of fine-tuning on pairs; only read them."""
    folder = tmp_path_factory.mktemp("pairs")
    write_fewshot(folder, TRAIN, TEST, sft_first=SIDES)
    toy.works("data", "prepare", folder, "--layout", "dmpo", "--domain", "games", "--output", folder / "ds")
    published = [instruction("games", TITLES[:2], TITLES[2], TITLES[3]), ordered(TITLES[0], TITLES[1])]
    tokenizer = build_tokenizer([*TITLES, *published, *published], 400, 256)
    build_model("tiny", len(tokenizer), 0, 256).save_pretrained(folder / "lm")
    tokenizer.save_pretrained(folder / "lm")
    toy.works("train", "--dataset", folder / "ds", "--model", folder / "lm", "--output", folder / "sft", *SFT)
    return {name: folder / name for name in ("ds", "lm", "sft")}


USUAL = ("--task", "pairs", "--no-validation", "--precision", "float32", "--batch-size", 3, "--batching", "shuffled")
SFT = (*USUAL, "--objective", "lml", "--epochs", 2)


def prefer(world: dict[str, Path], output: Path, *options: object) -> Path:
    usual = ("--stage", "preference", "--from", world["sft"], *USUAL, "--learning-rate", 1e-3)
    toy.works("train", *usual, "--negatives-from", "given", "--output", output, *options)
    return output


def whole(model: Any, prompt: np.ndarray, answer: np.ndarray) -> torch.Tensor:
    """The log-probability of an answer, from the whole model's logits."""
    token_T = torch.from_numpy(np.concatenate([prompt, answer]).astype(np.int64))
    logits_TV = model(token_T[None]).logits[0]
    loss = F.cross_entropy(logits_TV[len(prompt) - 1 : -1].float(), token_T[len(prompt) :], reduction="sum")
    return -loss


def pieces(world: dict[str, Path], template: str = "games") -> tuple[Any, Prompter, ChoicePrompter, pl.DataFrame]:
    dataset = load_dataset(world["ds"])
    catalogue = Catalogue.from_frame(dataset.items, dataset.training_counts())
    model = load_language_model(str(world["lm"])).eval()
    prompter = Prompter(catalogue, model.tokenizer, PLAIN, context=256)
    chooser = ChoicePrompter(catalogue, model.tokenizer, PAIRS[template], context=256)
    return model, prompter, chooser, dataset.windows("train")


def test_places_and_negatives_are_the_published_ones(world: dict[str, Path]) -> None:
    dataset = load_dataset(world["ds"])
    frame, titles = dataset.windows("train"), dataset.items["title"].to_list()
    negative_S, first_S = first_pairs(frame, dataset, 0)
    assert [titles[item] for item in negative_S] == [window[2][0] for window in TRAIN]
    assert first_S.tolist() == SIDES
    assert target_places(frame, 2, 0, given=True).tolist() == [window[3][:2] for window in TRAIN]


def test_without_published_pairs_a_coin_decides(toy_dataset: Path) -> None:
    dataset = load_dataset(toy_dataset)
    frame = dataset.windows("train")
    negative_S, first_S = first_pairs(frame, dataset, 3)
    assert (negative_S != frame["target"].to_numpy()).all()
    assert 0.3 < first_S.mean() < 0.7
    assert 0.3 < target_places(frame, 3, 3, given=False).mean() < 0.7
    again = first_pairs(frame, dataset, 3)
    assert (again[0] == negative_S).all() and (again[1] == first_S).all()
    assert (first_pairs(frame, dataset, 4)[1] != first_S).any()


def test_fine_tuning_learns_the_right_order_after_the_published_prompt(world: dict[str, Path]) -> None:
    model, prompter, chooser, frame = pieces(world)
    dataset = load_dataset(world["ds"])
    maker = BatchMaker(Windows.from_frame(frame), prompter, scores="vocabulary", row_tokens=512)
    batches = PairBatches(maker, chooser, *first_pairs(frame, dataset, 0))
    module = TrainingModule(model, Objective(name="lml"), prompter.trie)
    with torch.no_grad():
        found = float(module(**batches([0, 1, 2]))["loss"])
        total, tokens = 0.0, 0
        for (history, target, negatives, _), shown_first in zip(TRAIN, SIDES, strict=True):
            item = {title: number for number, title in enumerate(dataset.items["title"].to_list())}
            pair = [item[target], item[negatives[0]]]
            prompt = chooser.prompt([item[title] for title in history], pair if shown_first else pair[::-1])
            shown = (target, negatives[0]) if shown_first else (negatives[0], target)
            text = model.tokenizer.decode(prompt, skip_special_tokens=True).strip()
            assert text.split() == instruction("games", history, *shown).split()
            answer = chooser.answer(pair)
            total, tokens = total - float(whole(model.causal, prompt, answer)), tokens + len(answer)
    assert found == pytest.approx(total / tokens, rel=1e-4)


@pytest.mark.parametrize("name", ["dmpo", "sdpo", "pairs"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_preference_is_for_the_right_order(world: dict[str, Path], name: str, count: int) -> None:
    model, prompter, chooser, frame = pieces(world)
    windows = Windows.from_frame(frame)
    batches = PairPreferenceBatches(windows, prompter, chooser, target_places(frame, count, 0, given=True))
    negative_SK = np.array([row[:count] for row in frame["negatives"].to_list()], dtype=np.int64)
    batches.change(negative_SK)
    reference_SC = np.random.default_rng(0).normal(-30, 2, batches.item_SC.shape).astype(np.float32)
    batches.reference_SC = reference_SC
    beta = 0.3
    module = PreferenceModule(model, PreferenceObjective(name=name, beta=beta), prompter.trie).train()
    with torch.no_grad():
        found = float(module(**batches([0, 1, 2]))["loss"])
        losses = []
        for row, window in enumerate(frame.to_dicts()):
            margins = []
            for place, (negative, first) in enumerate(zip(negative_SK[row], TRAIN[row][3], strict=False)):
                pair = [window["target"], int(negative)]
                prompt = chooser.prompt(window["history"], pair if first else pair[::-1])
                right, wrong = (whole(model.causal, prompt, chooser.answer(order)) for order in (pair, pair[::-1]))
                right_reference, wrong_reference = reference_SC[row, 2 * place : 2 * place + 2]
                margins.append(beta * ((right - right_reference) - (wrong - wrong_reference)))
            margin_K = torch.stack(margins)
            losses.append({
                "dmpo": F.softplus(-margin_K.mean()),
                "pairs": F.softplus(-margin_K).mean(),
                "sdpo": torch.log1p(torch.exp(-margin_K).sum()),
            }[name])  # fmt: skip
    assert found == pytest.approx(float(torch.stack(losses).mean()), rel=1e-3)


def test_one_negative_makes_all_objectives_dpo(world: dict[str, Path], tmp_path: Path) -> None:
    runs = [prefer(world, tmp_path / name, "--objective", name, "--negatives", 1) for name in ("dpo", "dmpo", "sdpo")]
    for run in runs[1:]:
        np.testing.assert_allclose(toy.series(run), toy.series(runs[0]), rtol=1e-4)


def test_the_stage_starts_at_the_reference_and_opens_margins(world: dict[str, Path], tmp_path: Path) -> None:
    run = prefer(world, tmp_path / "run", "--negatives", 3, "--epochs", 12)
    loss, margin = toy.series(run), toy.series(run, "rewards/margins")
    assert loss[0] == pytest.approx(np.log(2), abs=1e-4) and margin[0] == pytest.approx(0, abs=1e-4)
    assert loss[-1] < 0.95 * loss[0] and margin[-1] > 0.05
    (row,) = json.loads(toy.works("evaluate", run, "--protocol", "pairs", "--prompt", "choices", "--json"))[-1:]
    assert row["n"] == 2 and row["produced_by"]["prompt"] == "pair, games"


def test_a_shared_reference_is_found_again(world: dict[str, Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = prefer(world, tmp_path / "a", "--negatives", 2, "--reference-cache", cache)
    before = pl.read_parquet(cache / "reference.parquet")
    assert before.height == 3 * 2 * 2  # windows, negatives, orders
    second = prefer(world, tmp_path / "b", "--negatives", 2, "--reference-cache", cache)
    assert pl.read_parquet(cache / "reference.parquet").equals(before)
    np.testing.assert_allclose(toy.series(second), toy.series(first), rtol=1e-5)


def test_a_preference_run_takes_over_the_task(world: dict[str, Path], tmp_path: Path) -> None:
    start = ("train", "--stage", "preference", "--from", world["sft"], "--no-validation", "--negatives-from", "given")
    toy.works(*start, "--output", tmp_path / "run", "--epochs", 1, "--negatives", 1)
    assert "task: pairs" in (tmp_path / "run" / "recipe.yaml").read_text()
    said = toy.mistake(*start, "--output", tmp_path / "other", "--task", "titles")
    assert "task: the run" in said and "has another" in said


def test_it_teaches_no_titles(world: dict[str, Path], tmp_path: Path) -> None:
    said = toy.mistake("train", "--stage", "soft", "--from", world["sft"], "--output", tmp_path / "soft")
    assert "names no titles" in said and not (tmp_path / "soft").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--objective", "msl", "--no-validation"), "scored over the whole vocabulary: pass --objective lml"),
        (("--objective", "lml"), "the task of pairs answers with two: pass --no-validation"),
        (
            ("--objective", "lml", "--no-validation", "--task", "trios"),
            "no such choice: trios; choose from titles, pairs",
        ),
        (("--stage", "preference", "--without-sft", "--no-validation", "--score", "valid"), "pass --score full"),
        (
            ("--stage", "preference", "--without-sft", "--no-validation", "--negatives-from", "hard"),
            "hard negatives are found by search",
        ),
    ],
)
def test_what_does_not_go_with_pairs(
    world: dict[str, Path], tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    places = ("--dataset", world["ds"], "--model", world["lm"], "--output", tmp_path / "run")
    task = () if "--task" in options else ("--task", "pairs")
    assert said in toy.mistake("train", *places, *task, *options)
    assert not (tmp_path / "run").exists()

"""The experiment of DMPO with its few-shot files: `python -m benchmarks.fewshot DATA --output runs/fewshot`.

DATA holds the published files (`src/catalign/data/fewshot.py`). For every seed one embedded model is made that knows
the titles of all domains and the training histories, nothing else; from it every row of `fewshot_rows.ROWS` is trained
in every domain. Each run is asked for the pairs of all domains, and for 1 of 20 candidates of a catalogue that it never
saw: `--unseen`, a dataset folder or published files, by default a generated shop.

There is no validation split, so epochs and learning rates are fixed and the same for all rows. What is done is kept in
OUTPUT, so a killed grid goes on. It prints the tables of `docs/results/fewshot.md`; all numbers are in
`OUTPUT/results.json`.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from transformers import PreTrainedTokenizerBase, set_seed

from benchmarks.fewshot_rows import BASE, ROWS, SFT, SFT_PAIRS, TRAINING_PAIRS, UNSEEN, Scores, tables
from catalign.catalogue.catalogue import Catalogue
from catalign.cli.main import quieten_libraries
from catalign.data.dataset import CARD, Dataset, load_dataset
from catalign.data.fewshot import DOMAINS
from catalign.data.layouts import WINDOW_LAYOUTS, recognise, table_source
from catalign.data.options import FewshotOptions, TableOptions, WindowOptions
from catalign.data.prepare import prepare_fewshot, prepare_tables, prepare_windows
from catalign.data.store import write_store
from catalign.data.writing import write_parquet
from catalign.decoding.candidates import score_candidates
from catalign.decoding.choices import score_orders
from catalign.errors import UserError
from catalign.evaluation.draws import draw_negatives
from catalign.evaluation.evaluate import ask_windows
from catalign.evaluation.floor_candidates import floor_scores
from catalign.evaluation.pairs_protocol import pairs_of_windows
from catalign.files import read_json, sha256_of, whole_file, whole_folder, write_json
from catalign.model.embedded import build_model, build_tokenizer, find_preset
from catalign.model.language_model import LanguageModel
from catalign.model.loading import load_language_model
from catalign.model.precision import Precision
from catalign.progress import console
from catalign.prompting.choices import ChoicePrompter, template_of
from catalign.prompting.histories import LAST_TEN
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN
from catalign.training.batches import Windows
from catalign.training.module import Objective
from catalign.training.preference_stage import continued, train_preference
from catalign.training.recipe import PreferenceRecipe, Recipe, make_recipe
from catalign.training.run import read_recipe
from catalign.training.train import train
from catalign.training.warmup import add_titles, warm_up

CONTEXT = 1_024
CANDIDATES = 20
AT_ONCE = 64  # windows scored at once
PRECISION: Precision = "float32"  # of training and scoring
DRAW = 0  # seed of windows, candidates and coins of the evaluation, the same for all runs
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Questions:
    """What a run is asked: to score some items after a history, the target first.

    Attributes:
        users: user ids.
        histories: item indices, oldest first.
        item_QC: the target, then the others.
        target_first_Q: of pairs: whether the published prompt shows the target first.
        floor: what the floor rows say of the same items.
    """

    users: npt.NDArray[Any]
    histories: list[list[int]]
    item_QC: Ints
    target_first_Q: npt.NDArray[np.bool_]
    floor: dict[str, Ints]


class Prompters:
    """The prompts of every catalogue, made when they are first needed."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, datasets: dict[str, Dataset]) -> None:
        self._tokenizer, self._datasets = tokenizer, datasets
        self.history, self.pairs = cache(self._history), cache(self._pairs)

    def _history(self, name: str) -> Prompter:
        """Of the history alone."""
        return Prompter(catalogue_of(self._datasets[name]), self._tokenizer, PLAIN, context=CONTEXT)

    def _pairs(self, name: str) -> ChoicePrompter:
        """Of the history and two titles, as published."""
        dataset = self._datasets[name]
        template = template_of(dataset.card.options)
        return ChoicePrompter(catalogue_of(dataset), self._tokenizer, template, context=CONTEXT)


def main() -> None:
    """Run the steps that are not done yet and print the tables."""
    options = parse_options()
    quieten_libraries()
    datasets = {domain: fewshot_dataset(options, domain) for domain in options.domains}
    asked = {name: pairs_of(dataset, "test") for name, dataset in datasets.items()}
    asked |= {f"{TRAINING_PAIRS} {name}": pairs_of(dataset, "train") for name, dataset in datasets.items()}
    unseen = unseen_dataset(options)
    asked[UNSEEN] = candidates_of(unseen, options.windows)

    for seed in options.seeds:
        if not (base := base_of(options, seed)).exists():
            make_base(list(datasets.values()), base, options, seed)
    tokenizer = load_language_model(str(base_of(options, options.seeds[0]))).tokenizer  # that of all seeds
    prompters = Prompters(tokenizer, {**datasets, UNSEEN: unseen})
    found: dict[str, dict[str, dict[str, list[Floats]]]] = {}  # row, trained domain, questions, seeds
    floor = {name: questions.floor for name, questions in asked.items()}
    users = {name: questions.users for name, questions in asked.items()}
    for row in [BASE, SFT, *(row for row in options.rows if row != SFT)]:
        for domain, dataset in datasets.items():
            runs = [trained(row, dataset, domain, options, seed) for seed in options.seeds]
            names = [domain] if shows_pairs(row) else [*datasets, UNSEEN]
            own = {name: asked[name] for name in (*names, f"{TRAINING_PAIRS} {domain}")}
            scores = [run_scores(run, row, own, prompters, options) for run in runs]
            found.setdefault(row, {})[domain] = {name: [of_run[name] for of_run in scores] for name in own}
        result, text = result_of(Scores(found, floor, users), options) if SFT in found else ({}, "")
    print(json.dumps(result) if options.json else text)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS), choices=DOMAINS)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, help="in this order; default all")
    parser.add_argument("--unseen", type=Path, help="catalogue that no run saw; default a generated shop")
    parser.add_argument("--windows", type=int, default=1_000, help="windows drawn there")
    parser.add_argument("--preset", default="tiny", help="size of the embedded model")
    parser.add_argument("--warmup-epochs", type=int, default=1)
    parser.add_argument("--sft-epochs", type=int, default=5, help="as published")
    parser.add_argument("--sft-rate", type=float, default=5e-4, help="learning rate; all weights train")
    parser.add_argument("--preference-epochs", type=int, default=3, help="as published")
    parser.add_argument("--preference-rate", type=float, default=5e-4)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--score", default="full", choices=["full", "valid"], help="log-probability of a title")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    free = ("output", "json", "rows", "seeds")
    settings = {name: str(value) for name, value in vars(options).items() if name not in free}
    path = options.output / "settings.json"
    if path.exists() and read_json(path) != settings:
        raise UserError("was begun with other options", where=options.output, mend="choose another --output")
    write_json(path, settings)
    return options


def fewshot_dataset(options: argparse.Namespace, domain: str) -> Dataset:
    """The dataset folder of a domain, without training users who have fewer negatives than the largest k.

    One ML-1M user lost a negative to the repairs; no row trains on that user, so that all rows train on the same.
    """
    folder = options.output / "data" / domain
    if folder.exists():
        return load_dataset(folder)
    most = max(fields["negatives"]["count"] for fields in ROWS.values() if "negatives" in fields)
    with whole_folder(folder) as partial:
        made = prepare_fewshot(options.data, FewshotOptions.model_validate({"domain": domain}), partial / "made")
        train = made.windows("train")
        path = made.folder / "windows/train.parquet"
        write_parquet(train.filter(pl.col("negatives").list.len() >= most), path)
        files = {**made.card.files, "windows/train.parquet": sha256_of(path)}
        write_json(made.folder / CARD, made.card.model_copy(update={"files": files}).model_dump(mode="json"))
        for file in list(made.folder.iterdir()):
            file.rename(partial / file.name)
        made.folder.rmdir()
    return load_dataset(folder)


def unseen_dataset(options: argparse.Namespace) -> Dataset:
    """The dataset folder of the catalogue that no run saw."""
    source, folder = options.unseen, options.output / "data" / UNSEEN
    if source is not None and (source / "dataset.json").is_file():
        return load_dataset(source)
    if folder.exists():
        return load_dataset(folder)
    if source is None:
        source = options.output / "data" / "store"
        if not source.exists():
            write_store(source)
    layout = recognise(source)
    if layout in WINDOW_LAYOUTS:
        return prepare_windows(source, layout, WindowOptions(), folder)
    return prepare_tables(table_source(source, layout), TableOptions(), folder)


def pairs_of(dataset: Dataset, split: str) -> Questions:
    """The protocol of pairs; popularity also with the histories of the users asked for."""
    counts_I = dataset.training_counts()
    pairs = pairs_of_windows(dataset.windows(split), dataset, counts_I, DRAW)
    item_Q2 = pairs.select("target", "negative").to_numpy().astype(np.int64)
    floor = floor_scores(dataset.windows("train"), counts_I, pairs, item_Q2)
    shown = dataset.windows("test")["history"].explode(empty_as_null=False).to_numpy()
    floor["popularity, all histories"] = (counts_I + np.bincount(shown, minlength=len(counts_I)))[item_Q2]
    first_Q = pairs["target_first"].to_numpy()
    return Questions(pairs["user_id"].to_numpy(), pairs["history"].to_list(), item_Q2, first_Q, floor)


def candidates_of(dataset: Dataset, windows: int) -> Questions:
    """The protocol of 1 of 20."""
    counts_I, asked = dataset.training_counts(), ask_windows(dataset, "test", windows, DRAW)
    target_Q = asked["target"].to_numpy().astype(np.int64)
    negatives = draw_negatives(asked, dataset.items, counts_I, CANDIDATES - 1, DRAW)
    item_QC = np.concatenate([target_Q[:, None], negatives], axis=1)
    floor = floor_scores(dataset.windows("train"), counts_I, asked, item_QC)
    nothing = np.zeros(0, dtype=np.bool_)
    return Questions(asked["user_id"].to_numpy(), asked["history"].to_list(), item_QC, nothing, floor)


def catalogue_of(dataset: Dataset) -> Catalogue:
    """The catalogue of a dataset."""
    return Catalogue.from_frame(dataset.items, dataset.training_counts())


def make_base(datasets: list[Dataset], folder: Path, options: argparse.Namespace, seed: int) -> None:
    """Make the embedded model of several catalogues: LML on every title, and on how the training histories go on.

    Neither the target of a training window nor anything of an evaluation window is read, but for its title among all.
    """
    console.print(f"base model of seed {seed}")
    items = pl.concat(
        dataset.items.select(pl.format("{}/{}", pl.lit(str(number)), "item_id").alias("item_id"), "title")
        for number, dataset in enumerate(datasets)
    )
    catalogue = Catalogue.from_frame(items)
    set_seed(seed)
    with whole_folder(folder) as partial, tempfile.TemporaryDirectory() as scratch:
        tokenizer = build_tokenizer(catalogue.titles, find_preset(options.preset).vocabulary, CONTEXT)
        model = LanguageModel(build_model(options.preset, len(tokenizer), seed, CONTEXT), tokenizer)
        prompter = Prompter(catalogue, tokenizer, PLAIN, context=CONTEXT)
        windows = add_titles(Windows.from_frame(grown_histories(datasets)), len(catalogue))
        recipe = Recipe(
            dataset=datasets[0].folder, model=str(folder), objective=Objective(name="lml"),
            epochs=options.warmup_epochs, batch_size=32, precision=PRECISION, seed=seed,
        )  # fmt: skip
        summary = warm_up(model, prompter, windows, recipe, Path(scratch))
        model.causal.save_pretrained(str(partial))
        tokenizer.save_pretrained(partial)
        weights = sum(weight.numel() for weight in model.parameters())
        write_json(partial / "warmup.json", {"parameters": weights, "vocabulary": len(tokenizer), "warmup": summary})


def grown_histories(datasets: list[Dataset]) -> pl.DataFrame:
    """Each item of the training histories as a target after those before it, in the items of all datasets together."""
    frames, before = [], 0
    for number, dataset in enumerate(datasets):
        shifted = dataset.windows("train").select(
            pl.format("{}/{}", pl.lit(str(number)), "user_id").alias("user_id"), pl.col("history") + before
        )
        grown = shifted.with_columns(length=pl.int_ranges(1, pl.col("history").list.len())).explode("length")
        frames.append(
            grown.select(
                "user_id", history=pl.col("history").list.head("length"), target=pl.col("history").list.get("length")
            )
        )
        before += dataset.items.height
    return pl.concat(frames)


def base_of(options: argparse.Namespace, seed: int) -> Path:
    """Where the base model of a seed is."""
    return Path(options.output) / f"base-seed{seed}"


def trained(row: str, dataset: Dataset, domain: str, options: argparse.Namespace, seed: int) -> Path:
    """The folder of a run, trained if it is not there yet."""
    if row == BASE:
        return base_of(options, seed)
    place = Path(options.output) / f"{domain}-seed{seed}"
    folder = place / folder_name(row)
    if not is_finished(folder):
        train_row(ROWS[row], dataset, base_of(options, seed), place, folder, options, seed)
    return folder


def shows_pairs(row: str) -> bool:
    """Whether a row is trained and asked with the published pair prompt."""
    return row != BASE and ROWS[row].get("task") == "pairs"


def folder_name(row: str) -> str:
    """A row as a folder."""
    return row.replace(" ", "").replace(",", "-")


def is_finished(folder: Path) -> bool:
    """Whether a run is there and whole."""
    try:
        read_recipe(folder)
    except UserError:
        return False
    return True


def train_row(
    fields: dict[str, Any],
    dataset: Dataset,
    base: Path,
    place: Path,
    folder: Path,
    options: argparse.Namespace,
    seed: int,
) -> None:
    """Train one run. Batches of 8, a cosine and fixed epochs are as published; all weights train."""
    console.print(f"training {folder}")
    common = {
        "dataset": str(dataset.folder), "batch_size": 8, "batching": "shuffled", "schedule": "cosine",
        "validation": None, "logging_steps": 1, "precision": PRECISION,
        "history": LAST_TEN.model_dump(), "seed": seed,
    }  # fmt: skip
    if "stage" not in fields:
        changed = {"model": str(base), "epochs": options.sft_epochs, "learning_rate": options.sft_rate}
        train(Recipe.model_validate({**common, **changed, **fields}), folder, overwrite=folder.exists())
        return
    objective = {**fields["objective"], "beta": options.beta, "score": options.score}
    changed = {"epochs": options.preference_epochs, "learning_rate": options.preference_rate, "objective": objective}
    if fields.get("without_sft"):
        start = {"model": str(base)}
    else:
        source, kept = (SFT_PAIRS, "reference-pairs") if fields.get("task") == "pairs" else (SFT, "reference")
        start = {"from": str(place / folder_name(source)), "reference_cache": str(place / kept)}
    recipe = make_recipe(continued({**common, **fields, **changed, **start}, where=str(folder)), where=str(folder))
    assert isinstance(recipe, PreferenceRecipe)
    train_preference(recipe, folder, overwrite=folder.exists())


def run_scores(
    folder: Path, row: str, asked: dict[str, Questions], prompters: Prompters, options: argparse.Namespace
) -> dict[str, Floats]:
    """The log-probabilities of all that a run is asked, from its folder where they are there."""
    model, found = None, {}
    for name, questions in asked.items():
        path = folder / "scores" / f"{name.replace(' ', '-')}-{options.score}.npy"
        if not path.exists():
            model = model or load_language_model(str(folder)).eval()
            catalogue = name.removeprefix(TRAINING_PAIRS).strip()
            if shows_pairs(row):
                score_QC = score_pairs(model, prompters.pairs(catalogue), questions)
            else:
                score_QC = score_questions(model, prompters.history(catalogue), questions, options)
            with whole_file(path) as partial, partial.open("wb") as file:
                np.save(file, score_QC)
        found[name] = np.load(path)
    return found


@torch.no_grad()
def score_questions(
    model: LanguageModel, prompter: Prompter, questions: Questions, options: argparse.Namespace
) -> Floats:
    """Log-probabilities of the items after the histories, [Q, C].

    Questions of one length go together, each in a row of the forest: what a model as small as this reads fastest.
    """
    title_QC = np.diff(prompter.trie.paths(questions.item_QC.ravel())[1]).reshape(questions.item_QC.shape)
    tokens_Q = title_QC.sum(axis=1) + [len(prompter.prompt(history)) for history in questions.histories]
    order_Q = np.argsort(tokens_Q, kind="stable")
    score_QC = np.zeros(questions.item_QC.shape, dtype=np.float32)
    for start in range(0, len(order_Q), AT_ONCE):
        some = order_Q[start : start + AT_ONCE]
        histories, items = [questions.histories[number] for number in some], list(questions.item_QC[some])
        longest = int(tokens_Q[some].max())
        score_QC[some] = score_candidates(model, prompter, histories, items, score=options.score, row_tokens=longest)
    return score_QC


def score_pairs(model: LanguageModel, chooser: ChoicePrompter, questions: Questions) -> Floats:
    """Log-probabilities of both titles in the right order, and swapped, after the prompt that lists them; [Q, 2]."""
    rows = [slice(start, start + AT_ONCE) for start in range(0, len(questions.histories), AT_ONCE)]
    parts = [
        score_orders(model, chooser, questions.histories[some], questions.item_QC[some], questions.target_first_Q[some])
        for some in rows
    ]
    return np.concatenate(parts)


def result_of(scores: Scores, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """All numbers so far, which go into `results.json`, and the tables."""
    numbers, text = tables(scores)
    result = {
        "settings": read_json(options.output / "settings.json"),
        "seeds": options.seeds,
        "base": read_json(base_of(options, options.seeds[0]) / "warmup.json"),
        "rows": numbers,
    }
    write_json(options.output / "results.json", result)
    return result, text


if __name__ == "__main__":
    main()

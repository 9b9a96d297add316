"""What the benchmarks of the forest share: their options, the data, the model, and who is asked.

Without `--data` everything is generated: the sample store, a tokenizer of its titles, a model of random weights.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from catalign.catalogue.catalogue import Catalogue
from catalign.cli.main import quieten_libraries
from catalign.data.dataset import Dataset, load_dataset
from catalign.data.layouts import WINDOW_LAYOUTS, recognise, table_source
from catalign.data.options import TableOptions, WindowOptions
from catalign.data.prepare import prepare_tables, prepare_windows
from catalign.data.store import write_store
from catalign.model.embedded import build_model, build_tokenizer, find_preset
from catalign.model.language_model import LanguageModel
from catalign.model.loading import load_language_model
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import load_template
from catalign.training.batches import Windows

SEED = 0
LOGIT_SCALE = 5.0  # random weights alone give nearly equal logits; so many times larger, some titles stand out


@dataclass(frozen=True)
class Setting:
    """A model and what it is asked.

    Attributes:
        model: in evaluation mode, float32.
        prompter: writes the prompts and holds the trie.
        train: the training windows.
        test: the test windows.
    """

    model: LanguageModel
    prompter: Prompter
    train: Windows
    test: Windows

    def long_histories(self, users: int) -> list[npt.NDArray[np.uint32]]:
        """Histories of as many test windows, drawn among those that have the full ten titles, if there are enough."""
        length = np.fromiter(map(len, self.test.histories), dtype=np.int64)
        longest = np.argsort(-length, kind="stable")[: max(users, int((length == length.max()).sum()))]
        drawn = np.random.default_rng(SEED).choice(longest, users, replace=False)
        return [self.test.histories[number] for number in drawn]

    def describe(self) -> dict[str, Any]:
        """Sizes that the numbers depend on."""
        trie = self.prompter.trie
        return {
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "vocabulary": len(self.model.head_VH),
            "template": self.prompter.template.name,
            "titles": trie.titles,
            "mean_title_tokens": round(float(trie.depth[trie.title_leaf].mean()), 2),
            "threads": torch.get_num_threads(),
        }


def make_parser(description: str | None, own_data: bool = True) -> argparse.ArgumentParser:
    """The options that these benchmarks have in common; with `own_data` also those of data, model and template."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0] if description else None)
    if own_data:
        parser.add_argument("--data", type=Path, help="published layout or dataset folder (default: the sample store)")
        parser.add_argument("--model", help="a Hugging Face folder (default: random weights)")
        parser.add_argument("--vocabulary", choices=["embedded", "128256"], default="embedded", help="rows of the head")
        parser.add_argument("--template", default="instruction", help="instruction or plain")
    parser.add_argument("--preset", help="size of the random model (small; tiny with --quick)")
    parser.add_argument("--pairs", type=int, help="alternating pairs of runs (7; 5 with --quick)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a small model, 5 pairs; seconds")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def parse_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse, fill in what `--quick` decides, set the threads."""
    options = parser.parse_args()
    options.preset = options.preset or ("tiny" if options.quick else "small")
    options.pairs = options.pairs or (5 if options.quick else 7)
    torch.set_num_threads(options.threads)
    quieten_libraries()
    return options


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """One JSON object, or a line for each value."""
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:>25} {value}")


def make_setting(options: argparse.Namespace) -> Setting:
    """Prepare the data in a temporary folder and build or load the model."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = prepare(options.data, Path(folder))
        catalogue = Catalogue.from_frame(dataset.items, dataset.training_counts())
        train, test = (Windows.from_frame(dataset.windows(split)) for split in ("train", "test"))
    model = make_model(catalogue, options)
    if options.vocabulary != "embedded":
        widen(model, int(options.vocabulary))
    prompter = Prompter(catalogue, model.tokenizer, load_template(options.template), context=model.context)
    return Setting(model, prompter, train, test)


def prepare(data: Path | None, scratch: Path) -> Dataset:
    """Load a dataset folder, or make one of a published layout or of the sample store."""
    if data is None:
        data = scratch / "store"
        write_store(data, seed=SEED)
    if (data / "dataset.json").is_file():
        return load_dataset(data)
    layout = recognise(data)
    if layout in WINDOW_LAYOUTS:
        return prepare_windows(data, layout, WindowOptions(), scratch / "dataset")
    return prepare_tables(table_source(data, layout), TableOptions(), scratch / "dataset")


def make_model(catalogue: Catalogue, options: argparse.Namespace) -> LanguageModel:
    """The model asked for, or the embedded one with random weights whose logits are far enough apart."""
    if options.model is not None:
        return load_language_model(options.model)
    tokenizer = build_tokenizer(catalogue.titles, find_preset(options.preset).vocabulary)
    return random_model(options.preset, len(tokenizer), tokenizer)


def random_model(preset: str, vocabulary: int, tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
    """The embedded model with random weights, its logits `LOGIT_SCALE` times as large."""
    causal = build_model(preset, vocabulary, SEED)
    with torch.no_grad():
        causal.model.norm.weight.mul_(LOGIT_SCALE)
    model = LanguageModel(causal, tokenizer)
    model.eval()
    return model


def widen(model: LanguageModel, rows: int) -> None:
    """Give embedding and head rows of random weights behind those that the tokenizer uses."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model.base.resize_token_embeddings(rows, mean_resizing=False)

"""The run folder: everything needed to load a trained recommender and to repeat its training."""

import platform
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from transformers import BitsAndBytesConfig

import catalign
from catalign.catalogue.catalogue import Catalogue
from catalign.data.dataset import Dataset
from catalign.errors import UserError
from catalign.files import disk_error, read_json, to_disk, whole_file, write_json
from catalign.model.language_model import LanguageModel
from catalign.model.loading import load_language_model, load_trained, save_weights
from catalign.model.sharding import check_shardable
from catalign.processes import count, is_main, shards, wait_for_all
from catalign.prompting.histories import LAST_TEN, HistoryRule
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import Template, load_template
from catalign.training.recipe import AnyRecipe, Recipe, load_recipe, make_recipe
from catalign.version import source_state

RECIPE, PROVENANCE, TEMPLATE, CATALOGUE, CHECKPOINTS = (
    "recipe.yaml", "provenance.json", "template.json", "catalogue", "checkpoints",
)  # fmt: skip
PACKAGES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "safetensors", "numpy", "polars")


@dataclass(frozen=True)
class Run:
    """A trained recommender as it was saved.

    Attributes:
        folder: where it lies.
        recipe: the recipe as run.
        model: the language model with the best epoch's weights.
        catalogue: the items it recommends.
        prompter: its template and trie.
        training: the summary of the training, `training` in provenance.json; empty for a model that was not trained.
        started: when the training started, which tells it from one of the same name.
    """

    folder: Path
    recipe: AnyRecipe
    model: LanguageModel
    catalogue: Catalogue
    prompter: Prompter
    training: dict[str, Any]
    started: str

    @property
    def checkpoint(self) -> str:
        """What made a prediction, for the record."""
        if not self.training:
            return f"{self.folder.resolve().name}, untuned"
        name, epoch = self.folder.resolve().name, self.training["best_epoch"]
        chosen = "chosen on valid" if self.training["chosen_on"] == "valid" else "the last"
        return f"{name} of {self.started}, epoch {epoch:g}, {chosen}"


def load_run(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    quantize: BitsAndBytesConfig | None = None,
) -> Run:
    """Load a run folder.

    Args:
        folder: the run.
        dtype: of the weights.
        device: where to put them.
        quantize: how to load the weights below an adapter; None, as they are, also where they were quantised in
            training.

    Raises:
        UserError: it is not a run folder, or its training has not finished.
    """
    folder = Path(folder)
    recipe = read_recipe(folder)
    provenance = read_json(folder / PROVENANCE)
    model = load_trained(folder, recipe.model, dtype=dtype, quantize=quantize)
    if device is not None:
        model = model.to(device)
    model.eval()
    catalogue = Catalogue.load(folder / CATALOGUE)
    try:
        template = Template.model_validate(read_json(folder / TEMPLATE))
    except ValidationError as error:
        raise UserError("is not a template", where=folder / TEMPLATE, mend="train the run again") from error
    return Run(
        folder=folder,
        recipe=recipe,
        model=model,
        catalogue=catalogue,
        prompter=prompter_of(recipe, model, catalogue, template),
        training=provenance["training"],
        started=provenance["started"],
    )


def prompter_of(
    recipe: AnyRecipe,
    model: LanguageModel,
    catalogue: Catalogue,
    template: Template,
    known: dict[str, list[int]] | None = None,
) -> Prompter:
    """What writes the prompts of a run; `known` as in `Prompter`."""
    return Prompter(
        catalogue,
        model.tokenizer,
        template,
        context=model.context,
        rule=recipe.history or LAST_TEN,
        item_tokens=model.item_tokens(catalogue),
        known=known,
    )


def untuned_run(folder: Path, dataset: Dataset, template: str, *, device: torch.device | None = None) -> Run:
    """A model folder as a run that was not trained: what prompting alone can do with the catalogue of a dataset.

    Raises:
        UserError: model or template cannot be loaded, or they do not fit the titles.
    """
    model = load_language_model(str(folder))
    if device is not None:
        model = model.to(device)
    catalogue = Catalogue.from_frame(dataset.items, dataset.training_counts())
    rule = HistoryRule(items=dataset.card.options["history"])
    return Run(
        folder=folder,
        recipe=Recipe(dataset=dataset.folder.resolve(), model=str(folder), template=template, history=rule),
        model=model,
        catalogue=catalogue,
        prompter=Prompter(catalogue, model.tokenizer, load_template(template), context=model.context, rule=rule),
        training={},
        started="",
    )


def read_recipe(folder: Path) -> AnyRecipe:
    """The recipe of a finished run.

    Raises:
        UserError: it is not a run folder, or its training has not finished.
    """
    if not (folder / RECIPE).is_file():
        raise UserError(
            "is not a run folder (no recipe.yaml)", where=folder, mend="give a folder made by catalign train"
        )
    if not is_finished(folder):
        mend = f"go on with it: catalign train --resume --output {folder}"
        raise UserError("this run has not finished", where=folder, mend=mend)
    return make_recipe(load_recipe(folder / RECIPE), where=str(folder / RECIPE))


def start_run(
    folder: Path, recipe: AnyRecipe, catalogue: Catalogue, template: Template, model: LanguageModel, *,
    resume: bool = False,
) -> None:  # fmt: skip
    """Write what is known before training: recipe, template, catalogue, item embeddings and provenance.

    With `resume` all that is there already; only the time and the versions it goes on with are added. Of several
    processes the main one writes, when all have checked what they find and before any goes on.

    Raises:
        UserError: with `resume`, the file of the item embeddings holds others by now; the folder cannot be written; or
            the weights are to be cut into parts and cannot.
    """
    if shards():
        check_shardable(model)
    wait_for_all()
    if is_main():
        _write_start(folder, recipe, catalogue, template, model, resume)
    wait_for_all()


def _write_start(
    folder: Path, recipe: AnyRecipe, catalogue: Catalogue, template: Template, model: LanguageModel, resume: bool
) -> None:
    items = _told_items(model)
    if resume:
        facts = read_json(folder / PROVENANCE)
        if facts.get("item_embeddings") != items:
            mend = "put the file back, or train anew with --overwrite"
            raise UserError("holds other embeddings than when the run began", where=recipe.item_embeddings, mend=mend)
        again = {name: value for name, value in provenance(recipe).items() if name not in ("dataset", "seed")}
        write_json(folder / PROVENANCE, {**facts, "resumed": [*facts.get("resumed", []), again]})
        return
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise disk_error(error, folder) from error
    write_json(folder / TEMPLATE, template.model_dump())
    (folder / CATALOGUE).mkdir(exist_ok=True)
    catalogue.save(folder / CATALOGUE)
    facts = provenance(recipe)
    if model.item_embedding is not None:
        model.item_embedding.vectors.save(folder)
        facts["item_embeddings"] = items
    write_json(folder / PROVENANCE, facts)
    write_recipe(folder, recipe)  # last: it makes the folder a run


def _told_items(model: LanguageModel) -> dict[str, Any] | None:
    """What the provenance says of item embeddings."""
    if model.item_embedding is None:
        return None
    items, width = model.item_embedding.vector_IW.shape
    return {"items": items, "width": width, "sha256": model.item_embedding.vectors.digest}


def is_finished(folder: Path) -> bool:
    """Whether the training of a run folder is done."""
    return "training" in read_json(folder / PROVENANCE)


def write_recipe(folder: Path, recipe: AnyRecipe) -> None:
    """Write `recipe.yaml` into a run folder."""
    with whole_file(folder / RECIPE) as partial:
        partial.write_text(
            yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True), sort_keys=False), encoding="utf-8"
        )


def finish_run(folder: Path, model: LanguageModel, training: dict[str, Any]) -> None:
    """Write the best weights, then the summary whose presence marks a finished run.

    Of several processes the main one writes; all must call this.
    """
    try:
        save_weights(model, folder)
        if is_main():  # the checkpoints go when the summary is there
            for file in filter(Path.is_file, folder.iterdir()):
                to_disk(file)
    except OSError as error:
        raise disk_error(error, folder) from error
    if is_main():
        write_json(folder / PROVENANCE, {**read_json(folder / PROVENANCE), "training": training})


def provenance(recipe: AnyRecipe) -> dict[str, Any]:
    """What produced a run: command, versions, source state, machine, seed, dataset."""
    return {
        "command": " ".join(["catalign", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"catalign": catalign.__version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES},
        "source": source_state(),
        "machine": {
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "processes": count(),
            "device": str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu",
        },
        "seed": recipe.seed,
        "dataset": read_json(recipe.dataset / "dataset.json"),
    }

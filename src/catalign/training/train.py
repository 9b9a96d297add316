"""From a recipe to a finished run folder."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import torch
from transformers import BitsAndBytesConfig, TrainerCallback, set_seed

from catalign.catalogue.catalogue import Catalogue
from catalign.data.dataset import Dataset, load_dataset
from catalign.errors import UserError
from catalign.evaluation.predictions import draw_windows
from catalign.files import disk_error
from catalign.model.item_embedding import ItemVectors
from catalign.model.language_model import LanguageModel
from catalign.model.loading import add_item_embedding, add_lora, load_language_model
from catalign.model.precision import PrecisionChoice, choose_device, choose_precision
from catalign.model.quantized import quantization
from catalign.processes import is_main, join_processes, wait_for_all
from catalign.progress import console
from catalign.prompting.histories import HistoryRule
from catalign.prompting.templates import BUILT_IN, load_template
from catalign.training.batches import Batches, BatchMaker, Windows
from catalign.training.fit import fit
from catalign.training.memory import checkpoint_layers
from catalign.training.module import LossModule, TrainingModule
from catalign.training.output import check_output
from catalign.training.outside import import_named
from catalign.training.pairs_task import PairBatches, first_pairs, pair_prompter
from catalign.training.recipe import AnyRecipe, Recipe, StageRecipe
from catalign.training.rows import set_row_tokens
from catalign.training.run import CHECKPOINTS, finish_run, prompter_of, start_run
from catalign.training.trainer import WindowOrder
from catalign.training.validation import Validator, choose_validation, no_windows

StageRecipeT = TypeVar("StageRecipeT", bound=StageRecipe)


def train(recipe: Recipe, output: Path, *, overwrite: bool = False, resume: bool = False) -> dict[str, Any]:
    """Train by a recipe and leave a run folder.

    Everything a user can get wrong is checked before the folder is made.

    Args:
        recipe: what to train.
        output: the run folder.
        overwrite: replace a run that is there.
        resume: go on with a run of this recipe that was interrupted there.

    Returns:
        The summary of the training: best epoch, validation NDCG@10, seconds, peak memory, tokens.

    Raises:
        UserError: the output exists, or holds nothing to go on with; dataset, model, template or adapter do not fit.
    """
    join_processes()
    import_named(recipe)
    output = Path(output)
    dataset = load_dataset(recipe.dataset)
    recipe = resolved(recipe, dataset)
    check_output(output, recipe, [Path(recipe.model)], overwrite=overwrite, resume=resume)
    set_seed(recipe.seed)
    template = load_template(recipe.template)
    catalogue = Catalogue.from_frame(dataset.items, dataset.training_counts())
    model = start_model(recipe, catalogue)
    prompter = prompter_of(recipe, model, catalogue, template)
    frame = training_frame(dataset, recipe)
    windows = Windows.from_frame(frame)
    validate = choose_validation(dataset, model, prompter, recipe)

    start_run(output, recipe, catalogue, template, model, resume=resume)
    share = recipe.share_prefixes and model.shares_prefixes
    maker = BatchMaker(windows, prompter, scores=recipe.objective.scores, share=share)
    batches: Batches = maker
    if recipe.task == "pairs":
        pairs = first_pairs(frame, dataset, recipe.seed)
        batches = PairBatches(maker, pair_prompter(dataset, catalogue, model), *pairs)
    return complete_run(TrainingModule(model, recipe.objective, prompter.trie), batches, recipe, output, validate)


def start_model(recipe: StageRecipe, catalogue: Catalogue) -> LanguageModel:
    """The recipe's model as training finds it: with item embeddings and a fresh adapter, where it asks for them.

    Raises:
        UserError: model, item embeddings or adapter cannot be loaded or do not fit.
    """
    model = load_language_model(
        recipe.model, trust_remote_code=recipe.trust_remote_code, quantize=quantization_of(recipe)
    )
    if recipe.gradient_checkpointing:
        checkpoint_layers(model)
    if recipe.item_embeddings is not None:
        vectors = ItemVectors.read(recipe.item_embeddings).of(catalogue, recipe.item_embeddings)
        add_item_embedding(model, vectors, recipe.seed)
    return model if recipe.lora is None else add_lora(model, recipe.lora, recipe.seed)


def quantization_of(recipe: StageRecipe) -> BitsAndBytesConfig | None:
    """How the recipe has frozen weights loaded; None, as they are."""
    if recipe.quantize is None:
        return None
    return quantization(recipe.quantize, choose_precision(choose_device(), recipe.precision).dtype)


def resolved(recipe: StageRecipeT, dataset: Dataset) -> StageRecipeT:
    """The recipe with absolute paths, so that a run can be used from anywhere, and with the history rule spelt out."""
    changed: dict[str, Any] = {"dataset": recipe.dataset.resolve()}
    if recipe.history is None:
        changed["history"] = HistoryRule(items=dataset.card.options["history"])
    if Path(recipe.model).is_dir():
        changed["model"] = str(Path(recipe.model).resolve())
    if recipe.template not in BUILT_IN and Path(recipe.template).is_file():
        changed["template"] = str(Path(recipe.template).resolve())
    if recipe.item_embeddings is not None:
        changed["item_embeddings"] = recipe.item_embeddings.resolve()
    return recipe.model_copy(update=changed)


def training_frame(dataset: Dataset, recipe: StageRecipe) -> pl.DataFrame:
    """The training windows, or the few that `train_examples` draws; `window` holds their row numbers."""
    frame = dataset.windows("train")
    if frame.is_empty():
        raise no_windows("train", dataset)
    if recipe.train_examples is not None and recipe.train_examples > len(frame):
        raise UserError(
            f"{recipe.train_examples:,} training examples asked for, the dataset has {len(frame):,}",
            where="--train-examples",
            mend="ask for fewer or leave the option out",
        )
    return draw_windows(frame, recipe.train_examples, recipe.seed)


def complete_run(
    module: LossModule,
    batches: Batches,
    recipe: AnyRecipe,
    output: Path,
    validate: Validator | None,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, Any]:
    """Train in a run folder that was started, and finish it; the summary of the training."""
    precision = choose_precision(choose_device(), recipe.precision)
    set_row_tokens(batches, recipe, module.model)
    announce(recipe, batches, module, precision)
    try:
        summary = fit(
            module,
            batches,
            recipe,
            output,
            validate,
            use_bfloat16=precision.dtype == torch.bfloat16,
            description=recipe.objective.label,
            callbacks=callbacks,
        )
    except OSError as error:  # of a checkpoint or the log
        raise disk_error(error, output) from error
    wait_for_all()  # every process has read the best checkpoint
    finish_run(output, module.model, summary)
    if is_main():
        shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    wait_for_all()
    return summary


def announce(recipe: AnyRecipe, batches: Batches, module: LossModule, precision: PrecisionChoice) -> None:
    """Say what is about to happen, how much the shared prefixes save, and why in this number format."""
    trainable = sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
    console.print(
        f"{recipe.objective.label}: {len(batches.windows):,} windows, {trainable:,} trained weights, "
        f"{choose_device().type}, {str(precision.dtype).removeprefix('torch.')} ({precision.reason})"
    )
    if module.model.item_embedding is not None:
        items, width = module.model.item_embedding.vector_IW.shape
        console.print(f"embeddings of {items:,} items, {width} numbers each, beside their titles")
    plain, merged = tokens_per_window(batches, recipe)
    console.print(
        f"{plain:.1f} tokens a window, {merged:.1f} after merging common prefixes "
        f"({recipe.template}, {recipe.batching}, rows of at most {batches.row_tokens})"
    )


def tokens_per_window(batches: Batches, recipe: StageRecipe, sample: int = 8) -> tuple[float, float]:
    """Mean tokens of a window before and after merging, over the first few micro-batches of an epoch."""
    order = list(WindowOrder(batches.windows, by_user=recipe.batching == "by-user", seed=recipe.seed))
    size = recipe.windows_at_once
    starts = range(0, min(sample * size, len(order)), size)
    counts = torch.stack([batches(order[start : start + size])["token_counts"] for start in starts]).sum(0)
    windows = min(starts[-1] + size, len(order))
    return float(counts[0]) / windows, float(counts[1]) / windows

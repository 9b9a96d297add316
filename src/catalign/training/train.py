"""From a recipe to a finished run folder."""

import logging
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import EarlyStoppingCallback, TrainingArguments, set_seed
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback

from catalign.catalogue.catalogue import Catalogue
from catalign.data.dataset import Dataset, load_dataset
from catalign.decoding.recommend import CatalogueSearch
from catalign.errors import UserError
from catalign.evaluation.metrics import hit_rate, ndcg, ranks_of_targets
from catalign.evaluation.predictions import draw_windows
from catalign.files import disk_error
from catalign.model.language_model import LanguageModel
from catalign.model.loading import add_lora, load_language_model
from catalign.model.precision import choose_device, choose_precision
from catalign.progress import console, progress_bar
from catalign.prompting.histories import LAST_TEN, HistoryRule
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import BUILT_IN, load_template
from catalign.training.batches import BatchMaker, Windows
from catalign.training.callbacks import LOG_FILE, LiveLine, LogFile
from catalign.training.module import TrainingModule
from catalign.training.recipe import Recipe, Validation
from catalign.training.run import CHECKPOINTS, RECIPE, finish_run, start_run
from catalign.training.trainer import CatalogueTrainer, window_order

log = logging.getLogger(__name__)


def train(recipe: Recipe, output: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Train by a recipe and leave a run folder.

    Everything a user can get wrong is checked before the folder is made.

    Returns:
        The summary of the training: best epoch, validation NDCG@10, seconds, peak memory, tokens.

    Raises:
        UserError: the output exists, or dataset, model, template or adapter do not fit.
    """
    output = Path(output)
    check_output(output, recipe, overwrite=overwrite)
    dataset = load_dataset(recipe.dataset)
    recipe = resolved(recipe, dataset)
    set_seed(recipe.seed)
    template = load_template(recipe.template)
    catalogue = Catalogue.from_frame(dataset.items, dataset.training_counts())
    device = choose_device()
    model = load_language_model(recipe.model, trust_remote_code=recipe.trust_remote_code)
    if recipe.lora is not None:
        model = add_lora(model, recipe.lora, recipe.seed)
    prompter = Prompter(catalogue, model.tokenizer, template, context=model.context, rule=recipe.history or LAST_TEN)
    windows = training_windows(dataset, recipe)
    validate = validation(dataset, model, prompter, recipe.validation, recipe.seed)

    if output.exists():
        shutil.rmtree(output)
    start_run(output, recipe, catalogue, template)
    module = TrainingModule(model, recipe.objective, prompter.trie)
    batches = BatchMaker(
        windows,
        prompter,
        scores=recipe.objective.scores,
        row_tokens=recipe.row_tokens,
        share=recipe.share_prefixes and model.shares_prefixes,
    )
    precision = choose_precision(device, recipe.precision)
    announce(recipe, batches, module, device, precision.dtype, precision.reason)
    try:
        summary = fit(module, batches, recipe, output, validate, use_bfloat16=precision.dtype == torch.bfloat16)
    except OSError as error:  # of a checkpoint or the log
        raise disk_error(error, output) from error
    finish_run(output, model, summary)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    return summary


def check_output(output: Path, recipe: Recipe, *, overwrite: bool) -> None:
    """Refuse a place that holds something: without `overwrite` anything, with it anything but a run folder."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise UserError("already exists", where=output, mend="choose another folder or pass --overwrite")
    if not (output / RECIPE).is_file():
        raise UserError("is not a run folder, so it is not replaced", where=output, mend="choose another folder")
    if Path(recipe.model).resolve() == output.resolve():
        raise UserError("is the model to start from, so it is not replaced", where=output, mend="choose another folder")


def resolved(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with absolute paths, so that a run can be used from anywhere, and with the history rule spelt out."""
    changed: dict[str, Any] = {"dataset": recipe.dataset.resolve()}
    if recipe.history is None:
        changed["history"] = HistoryRule(items=dataset.card.options["history"])
    if Path(recipe.model).is_dir():
        changed["model"] = str(Path(recipe.model).resolve())
    if recipe.template not in BUILT_IN and Path(recipe.template).is_file():
        changed["template"] = str(Path(recipe.template).resolve())
    return recipe.model_copy(update=changed)


def training_windows(dataset: Dataset, recipe: Recipe) -> Windows:
    """All training windows, or the few that `train_examples` draws."""
    frame = dataset.windows("train")
    if recipe.train_examples is not None:
        if recipe.train_examples > len(frame):
            raise UserError(
                f"{recipe.train_examples:,} training examples asked for, the dataset has {len(frame):,}",
                where="--train-examples",
                mend="ask for fewer or leave the option out",
            )
        frame = draw_windows(frame, recipe.train_examples, recipe.seed).drop("window")
    return Windows.from_frame(_not_empty(frame, "train", dataset))


def _not_empty(windows: pl.DataFrame, split: str, dataset: Dataset) -> pl.DataFrame:
    """The windows, if there are any."""
    if windows.is_empty():
        raise UserError(
            f"the split {split} has no windows",
            where=dataset.folder,
            mend="prepare it again with more data, milder filters or another --split",
        )
    return windows


def validation(
    dataset: Dataset, model: LanguageModel, prompter: Prompter, settings: Validation, seed: int
) -> "Validator":
    """What the trainer calls after each epoch."""
    drawn = draw_windows(_not_empty(dataset.windows("valid"), "valid", dataset), settings.windows, seed)
    return Validator(Windows.from_frame(drawn), model, prompter, settings)


class Validator:
    """NDCG@10 and HR@10 by search over the full catalogue, on windows of the validation split."""

    def __init__(self, windows: Windows, model: LanguageModel, prompter: Prompter, settings: Validation) -> None:
        self.windows = windows
        self._search = CatalogueSearch(model, prompter, beams=settings.beams, score=settings.score)

    def __call__(self) -> dict[str, float]:
        """Return {"ndcg@10", "hr@10"}."""
        items_WK, _ = self._search.recommend_all(self.windows.histories, 10)
        rank_W = ranks_of_targets(items_WK, self.windows.target_S)
        return {"ndcg@10": float(np.mean(ndcg(rank_W, 10))), "hr@10": float(np.mean(hit_rate(rank_W, 10)))}


def announce(
    recipe: Recipe, batches: BatchMaker, module: TrainingModule, device: torch.device, dtype: torch.dtype, reason: str
) -> None:
    """Say what is about to happen, how much the shared prefixes save, and why in this number format."""
    trainable = sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
    console.print(
        f"{recipe.objective.label}: {len(batches.windows):,} windows, {trainable:,} trained weights, "
        f"{device.type}, {str(dtype).removeprefix('torch.')} ({reason})"
    )
    plain, merged = tokens_per_window(batches, recipe)
    console.print(
        f"{plain:.1f} tokens a window, {merged:.1f} after merging common prefixes "
        f"({recipe.template}, {recipe.batching}, rows of at most {recipe.row_tokens})"
    )


def tokens_per_window(batches: BatchMaker, recipe: Recipe, sample: int = 8) -> tuple[float, float]:
    """Mean tokens of a window before and after merging, over the first few micro-batches of an epoch."""
    order = list(window_order(batches.windows, by_user=recipe.batching == "by-user", seed=recipe.seed))
    size = recipe.batch_size // recipe.accumulation
    starts = range(0, min(sample * size, len(order)), size)
    counts = torch.stack([batches(order[start : start + size])["token_counts"] for start in starts]).sum(0)
    windows = min(starts[-1] + size, len(order))
    return float(counts[0]) / windows, float(counts[1]) / windows


def fit(
    module: TrainingModule,
    batches: BatchMaker,
    recipe: Recipe,
    output: Path,
    validate: "Validator | None",
    *,
    use_bfloat16: bool,
) -> dict[str, Any]:
    """Run the Trainer; afterwards the module holds the weights of the best epoch (without `validate`, of the last)."""
    steps = -(-len(batches.windows) // recipe.batch_size)
    args = TrainingArguments(
        output_dir=str(output / CHECKPOINTS),
        per_device_train_batch_size=recipe.batch_size // recipe.accumulation,
        gradient_accumulation_steps=recipe.accumulation,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(recipe.schedule, recipe.schedule),
        warmup_steps=min(recipe.warmup_steps, recipe.epochs * steps // 10),
        weight_decay=recipe.weight_decay,
        bf16=use_bfloat16,
        use_cpu=choose_device().type == "cpu",
        logging_steps=recipe.logging_steps or max(min(steps // 10, 50), 1),
        eval_strategy="no" if validate is None else "epoch",
        save_strategy="no" if validate is None else "epoch",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=validate is not None,
        metric_for_best_model="eval_ndcg@10",
        greater_is_better=True,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        seed=recipe.seed,
    )
    started = time.monotonic()
    stop_early = [] if validate is None else [EarlyStoppingCallback(recipe.validation.patience)]
    with progress_bar() as progress:
        trainer = CatalogueTrainer(
            module,
            args,
            batches,
            validate=validate,
            by_user=recipe.batching == "by-user",
            callbacks=[
                LogFile(output / LOG_FILE),
                LiveLine(progress, "warm-up" if validate is None else recipe.objective.label),
                TensorBoardCallback(SummaryWriter(str(output / "tensorboard"))),  # type: ignore[no-untyped-call]
                *stop_early,
            ],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    summary = {
        "epochs_run": round(trainer.state.epoch or 0.0, 3),
        "steps": trainer.state.global_step,
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_gb": peak_memory_gb(),
    }
    if validate is None:
        return summary
    best = max(
        (entry for entry in trainer.state.log_history if "eval_ndcg@10" in entry), key=lambda e: e["eval_ndcg@10"]
    )
    return {
        "best_epoch": round(best["epoch"], 3),
        "chosen_on": "valid",
        "valid_windows": len(validate.windows),
        "valid_ndcg@10": best["eval_ndcg@10"],
        **summary,
    }


def peak_memory_gb() -> float:
    """Largest memory of this process so far: of the accelerator if there is one, else resident (10^9 bytes)."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e9, 3)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 3)

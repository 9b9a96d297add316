"""One run of the Transformers Trainer: its arguments, what is logged, which epoch is kept."""

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback

from catalign.model.precision import choose_device
from catalign.progress import progress_bar
from catalign.training.batches import Batches
from catalign.training.callbacks import LOG_FILE, LiveLine, LogFile
from catalign.training.module import LossModule
from catalign.training.recipe import StageRecipe
from catalign.training.run import CHECKPOINTS
from catalign.training.trainer import CatalogueTrainer
from catalign.training.validation import Validator


def fit(
    module: LossModule,
    batches: Batches,
    recipe: StageRecipe,
    output: Path,
    validate: Validator | None,
    *,
    use_bfloat16: bool,
    description: str,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, Any]:
    """Run the Trainer; afterwards the module holds the weights of the best epoch (without `validate`, of the last).

    Args:
        module: the model and its loss; its weights change.
        batches: makes the batches and holds the windows.
        recipe: epochs, batch size, learning rate, ...
        output: where log, TensorBoard events and checkpoints go.
        validate: what is called after each epoch and chooses the best; without it the last epoch is kept.
        use_bfloat16: compute under autocast.
        description: what the progress bar says.
        callbacks: of the stage.

    Returns:
        The summary of the training.
    """
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
    stop_early = [] if recipe.validation is None else [EarlyStoppingCallback(recipe.validation.patience)]
    with progress_bar() as progress:
        trainer = CatalogueTrainer(
            module,
            args,
            batches,
            validate=validate,
            by_user=recipe.batching == "by-user",
            callbacks=[
                *callbacks,  # first: they may add to what is logged
                LogFile(output / LOG_FILE),
                LiveLine(progress, description),
                TensorBoardCallback(SummaryWriter(str(output / "tensorboard"))),  # type: ignore[no-untyped-call]
                *(stop_early if validate is not None else []),
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
        return {"best_epoch": summary["epochs_run"], "chosen_on": "last epoch", **summary}
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

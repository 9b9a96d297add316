"""One run of the Transformers Trainer: its arguments, what is logged, which epoch is kept."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback

from catalign.errors import UserError
from catalign.model.precision import choose_device
from catalign.processes import count, from_main, is_main, rank
from catalign.progress import console, progress_bar
from catalign.training.batches import Batches
from catalign.training.callbacks import LOG_FILE, LiveLine, LogFile, Patience, SaveOften, StopOnSignal
from catalign.training.checkpoints import newest_whole, step_of
from catalign.training.flops import StepCost, find_peak
from catalign.training.machine import make_trackers
from catalign.training.memory import MEND, Passes, is_out_of_memory
from catalign.training.module import LossModule
from catalign.training.observe import Meter, peak_memory_gb
from catalign.training.profile import StepProfile
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

    Where `output` holds checkpoints of this training, it goes on from the newest that is whole: the same losses and
    weights as without the interruption.

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

    Raises:
        Interrupted: SIGTERM asked for an end; a checkpoint is there.
    """
    steps = -(-len(batches.windows) // recipe.batch_size)
    args = _arguments(recipe, output / CHECKPOINTS, steps, validates=validate is not None, use_bfloat16=use_bfloat16)
    checkpoint = from_main(lambda: newest_whole(output / CHECKPOINTS))
    if checkpoint is None and is_main():  # killed before the first checkpoint: what it had logged happens again
        (output / LOG_FILE).unlink(missing_ok=True)
        shutil.rmtree(output / "tensorboard", ignore_errors=True)
    log_file = LogFile(output / LOG_FILE)
    passes = Passes(batches, windows=-(-recipe.windows_at_once // count()), tokens=recipe.max_tokens)
    computes_in = torch.bfloat16 if use_bfloat16 else torch.float32
    meter = Meter(StepCost.of(module.model), find_peak(choose_device(), computes_in, recipe.peak_flops))
    with progress_bar() as progress, StopOnSignal(steps) as stop:
        trainer = CatalogueTrainer(
            module,
            args,
            batches,
            passes,
            meter,
            validate=validate,
            by_user=recipe.batching == "by-user",
            callbacks=[
                *callbacks,  # first: they may add to what is logged
                meter,
                log_file,
                LiveLine(progress, description),
                *([tensorboard(output / "tensorboard", checkpoint), *make_trackers(recipe)] if is_main() else []),
                *([StepProfile(output)] if recipe.profile and is_main() else []),
                *([Patience(recipe.validation.patience)] if validate is not None and recipe.validation else []),
                *([SaveOften(recipe.checkpoint_steps, steps)] if recipe.checkpoint_steps else []),
                stop,
            ],
        )
        trainer.remove_callback(PrinterCallback)
        if not is_main():
            set_seed(recipe.seed + rank())  # so that dropout differs; what must not differ has seeds of its own
        try:
            if checkpoint is None:
                trainer.train()
            else:
                console.print(f"going on from step {step_of(checkpoint):,}", markup=False)
                trainer.take_up(checkpoint)
        except RuntimeError as error:  # of the passes of a step the trainer takes care
            if not is_out_of_memory(error):
                raise
            what = "out of memory beside the passes of a step (optimiser, validation)"
            raise UserError(what, where="catalign train", mend=f"{MEND}; then go on with --resume") from error
    summary = {
        "epochs_run": round(trainer.state.epoch or 0.0, 3),
        "steps": trainer.state.global_step,
        "seconds": round(log_file.seconds, 1),
        "peak_memory_gb": peak_memory_gb(),
        "observed": meter.summary(),
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


class Arguments(TrainingArguments):
    """The Trainer's arguments, which trackers are told at the beginning: here that is the recipe.

    Attributes:
        recipe: its fields.
    """

    recipe: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The recipe, one name for each value: `recipe/objective/name`."""
        return flat(self.recipe, "recipe")


def flat(value: Any, name: str) -> dict[str, Any]:
    """Nested mappings as one, with the names on the way to a value joined by strokes."""
    if not isinstance(value, dict):
        return {name: value}
    return {key: leaf for part, below in value.items() for key, leaf in flat(below, f"{name}/{part}").items()}


def _arguments(
    recipe: StageRecipe, folder: Path, steps: int, *, validates: bool, use_bfloat16: bool
) -> TrainingArguments:
    """What the Trainer is told; `steps` are those of an epoch."""
    args = Arguments(
        output_dir=str(folder),
        run_name=folder.parent.name,
        per_device_train_batch_size=recipe.batch_size,  # which the trainer cuts into passes
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(recipe.schedule, recipe.schedule),
        warmup_steps=min(recipe.warmup_steps, recipe.epochs * steps // 10),
        weight_decay=recipe.weight_decay,
        bf16=use_bfloat16,
        use_cpu=choose_device().type == "cpu",
        logging_steps=recipe.logging_steps or max(min(steps // 10, 50), 1),
        eval_strategy="epoch" if validates else "no",
        save_strategy="epoch",  # which stay is decided by `checkpoints.publish`
        load_best_model_at_end=validates,
        metric_for_best_model="eval_ndcg@10",
        greater_is_better=True,
        remove_unused_columns=False,
        report_to=[],  # nothing by itself: trackers are callbacks after ours, which add to what is logged
        disable_tqdm=True,
        seed=recipe.seed,
        ddp_broadcast_buffers=False,  # they are the same everywhere: what moves them is pooled
    )
    args.recipe = recipe.model_dump(mode="json", by_alias=True)
    args._n_gpu = min(args.n_gpu, 1)  # one GPU for each process; the Trainer would split batches among all it sees
    return args


def tensorboard(folder: Path, checkpoint: Path | None) -> TensorBoardCallback:
    """Writes the log for TensorBoard; what was written after the checkpoint that is gone on from is taken back."""
    purge = None if checkpoint is None else step_of(checkpoint) + 1
    return TensorBoardCallback(SummaryWriter(str(folder), purge_step=purge))  # type: ignore[no-untyped-call]

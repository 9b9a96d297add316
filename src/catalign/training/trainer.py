"""The Transformers Trainer, taught: our batches, their order, validation by search, saving, and going on."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from catalign.files import read_json, write_json
from catalign.model.loading import load_weights, save_weights
from catalign.model.sharding import cut_optimizer_state, gathered, is_sharded, shard, whole_weights
from catalign.processes import count, shards, share
from catalign.progress import console
from catalign.training.batches import Batches, Windows
from catalign.training.callbacks import Patience
from catalign.training.checkpoints import PARTIAL, STAGE, publish, remembered, restore
from catalign.training.memory import (
    NOTHING_FAILED,
    CountsSteps,
    Pass,
    Passes,
    RandomState,
    add_gradients,
    ends_all,
    free_memory,
    is_out_of_memory,
    same_number,
    smallest,
    too_large,
)
from catalign.training.module import LossModule
from catalign.training.observe import Meter

Validate = Callable[[], dict[str, float]]


class WindowNumbers(Dataset[int]):
    """The windows' numbers; the batch maker looks the windows up."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> int:
        return number


class WindowOrder(Sampler[int]):
    """The order of the training windows, drawn anew for each epoch from the seed and the epoch's number alone.

    An interrupted epoch can thus be taken up where it was left. With `by_user` users come in random order, each user's
    windows one after the other: they meet in one batch (a few users are cut by a batch's end) and share their
    prefixes. A batch of 128 windows then holds fewer different users than a shuffled one, so its gradient is noisier;
    `docs/lab-log.md` has the measured effect.

    Attributes:
        epoch: the epoch whose order is next, from 0.
    """

    def __init__(self, windows: Windows, *, by_user: bool, seed: int) -> None:
        self._user_S, self._by_user, self._seed = windows.user_S, by_user, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._user_S)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self._seed, self.epoch])
        if not self._by_user:
            return iter(generator.permutation(len(self._user_S)).tolist())
        place_U = generator.permutation(int(self._user_S.max()) + 1)
        return iter(np.argsort(place_U[self._user_S], kind="stable").tolist())


class CatalogueTrainer(Trainer):
    """Trains a `LossModule` on windows.

    For the Transformers Trainer a step is one batch. Here it is cut into passes (`memory.Passes`), whose gradients are
    added. Several processes take a contiguous share of each step's windows and go through the same number of passes: a
    step is that of one process, whatever their number.

    Args:
        module: the model and its loss.
        args: arguments of the Trainer; its batch is that of a step, in all processes together.
        batches: what the windows are of.
        passes: cuts the share of a step that falls to this process.
        meter: counts and times what is done.
        validate: returns the metrics of the validation split, without prefix; None, nothing is validated.
        by_user: keep the windows of a user together.
        callbacks: further callbacks.
    """

    def __init__(
        self,
        module: LossModule,
        args: TrainingArguments,
        batches: Batches,
        passes: Passes,
        meter: Meter,
        *,
        validate: Validate | None,
        by_user: bool,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.module, self.passes, self.meter, self.validate = module, passes, meter, validate
        self.order = WindowOrder(batches.windows, by_user=by_user, seed=args.seed)
        self._resumed: dict[str, Any] = {}
        super().__init__(
            model=module,
            args=args,
            train_dataset=WindowNumbers(len(batches.windows)),
            eval_dataset=None if validate is None else WindowNumbers(0),  # asked for, never read: see `evaluate`
            callbacks=[*module.callbacks(), *callbacks],
        )
        self.add_callback(_TakeUp(self))

    def get_train_dataloader(self) -> DataLoader[int]:
        """The window numbers of each step; not divided among processes, see `get_batch_samples`."""
        size = self.args.per_device_train_batch_size
        return DataLoader(WindowNumbers(len(self.order)), size, sampler=self.order, collate_fn=np.array)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """Pack this process's share of a step when it begins, for negatives may change."""
        passes = self._packed(next(epoch_iterator))
        counted = torch.as_tensor(sum(self.module.count_items(each.batch) for each in passes), device=device)
        # What the whole step's loss is divided by: the items of all its passes, in all processes.
        return [passes], self.accelerator.gather(counted[None]).sum(0) if count() > 1 else counted

    def _packed(self, numbers: npt.NDArray[np.int64]) -> list[Pass]:
        """Neighbours in the order stay together, and so do the prefixes that they share."""
        self._step_numbers = numbers
        with self.meter.clock.phase("packing"):
            # With fewer windows than processes some have none; they run along, for the gradients of all are added.
            idle = partial(self.passes.idle, int(numbers[0]))
            return same_number(self.passes(share(numbers)), idle, self.args.device)

    def training_step(  # type: ignore[override]  # the batch is a list of passes
        self, model: nn.Module, inputs: list[Pass], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Add up the gradients of a step's passes; where memory runs out, begin the step anew with smaller ones."""
        random = RandomState(self.args.device)
        while True:
            loss, failed = self._through(model, inputs, num_items_in_batch)
            most = smallest(NOTHING_FAILED if failed is None else self.passes.smaller(failed), self.args.device)
            if most == NOTHING_FAILED:
                break
            if most == 0:
                raise too_large(failed)
            inputs = self._anew(model, random, int(most))
        if isinstance(model, DistributedDataParallel):
            with self.meter.clock.phase("backward"):
                add_gradients(model)
        self.meter.add(inputs)
        self.meter.clock.enter("optimiser")
        return loss

    def _through(
        self, model: nn.Module, passes: list[Pass], count_items: torch.Tensor | int | None
    ) -> tuple[torch.Tensor, Pass | None]:
        """The loss of the passes, whose gradients are added; and the pass, if any, that was too large for memory."""
        loss = torch.zeros((), device=self.args.device)
        for each in passes:
            # Gradients of copies (DDP) are added when all processes are through; those of shards (FSDP) on the way.
            alone = each is not passes[-1] or isinstance(model, DistributedDataParallel)
            try:
                with self.accelerator.no_sync(model) if alone else nullcontext(), self.meter.clock.phase("backward"):
                    loss += super().training_step(model, each.batch, count_items)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if is_sharded(self.module):  # the others wait for its part; the launcher ends them
                    raise ends_all(each) from error
                failed = each  # the error holds what fills the memory; beyond this block it is gone
            else:
                continue
            return loss, failed
        return loss, None

    def _anew(self, model: nn.Module, random: RandomState, most: int) -> list[Pass]:
        """The passes of the same step with a smaller limit, as if nothing of it had been computed."""
        limit = self.passes.shrink(most)
        console.print(
            f"out of memory in step {self.state.global_step + 1:,}: it begins anew, and a pass now has at most {limit}",
            markup=False,
            soft_wrap=True,
        )
        model.zero_grad()
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, CountsSteps):
                callback.forget_step()
        free_memory()
        random.restore()
        return self._packed(self._step_numbers)

    def compute_loss(self, *arguments: Any, **named: Any) -> Any:
        """The forward pass, timed."""
        with self.meter.clock.phase("forward"):
            return super().compute_loss(*arguments, **named)

    def floating_point_ops(self, inputs: Any) -> int:
        """Counted by the meter."""
        return 0

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Validate by search over the catalogue; the metrics steer early stopping and the choice of the best epoch."""
        if self.validate is None:
            raise ValueError("this trainer was made without a validation")
        started = time.monotonic()
        with whole_weights(self.module), self.meter.clock.phase("validation"):
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.validate().items()}
        metrics[f"{metric_key_prefix}_seconds"] = time.monotonic() - started
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimiser; where the launcher asked for it, of weights that are cut into parts before."""
        if shards() and not is_sharded(self.module):
            shard(self.module, set(self.module.model.base._no_split_modules or ()))
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: Any = None) -> nn.Module:
        """Cut weights add up their gradients themselves; accelerate brings the number format only."""
        if is_sharded(self.module):
            prepared: nn.Module = self.accelerator.prepare_model(model, evaluation_mode=True)
            return prepared
        return super()._wrap_model(model, training, dataloader)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save both whole, as one process does, so that any number of processes can go on."""
        if not is_sharded(self.module):
            super()._save_optimizer_and_scheduler(output_dir)
            return
        assert self.optimizer is not None and self.lr_scheduler is not None
        state = gathered(self.optimizer.state_dict())
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load both; where the weights are cut, each process takes its part of the optimiser's state."""
        if checkpoint is None or not is_sharded(self.module):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        assert self.optimizer is not None and self.lr_scheduler is not None
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(cut_optimizer_state(state, self.optimizer))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the Hugging Face model alone: no wrapper's prefix in the names, nothing pickled."""
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.module.model, folder)

    @property
    def _checkpoints(self) -> Path:
        return Path(str(self.args.output_dir))

    def _get_output_dir(self, trial: Any = None) -> str:
        """Checkpoints are written beside the finished ones."""
        return str(self._checkpoints / PARTIAL)

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        with self.meter.clock.phase("checkpoint"):
            self._write_checkpoint(model, trial)

    def _write_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint under a temporary name, seal and rename it; what was there stays until then."""
        partial = self._checkpoints / PARTIAL
        if self.args.should_save:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        unlogged = float(self.accelerator.gather(self._tr_loss.detach()[None]).mean())
        kept = remembered(self.callback_handler.callbacks)  # in all processes: some pool their sums
        if self.args.should_save:
            checkpoint = partial / f"checkpoint-{self.state.global_step}"
            logged = {"unlogged_loss": unlogged, "last_logged": self._globalstep_last_logged}
            write_json(checkpoint / STAGE, {"logged": logged, "callbacks": kept})
            self._name_best()
            self.state.save_to_json(str(checkpoint / TRAINER_STATE_NAME))
            publish(checkpoint, self._checkpoints, best_step=self.state.best_global_step)
        self.accelerator.wait_for_everyone()

    def _name_best(self) -> None:
        """The best checkpoint by its place now: it has been renamed, and the run may have been moved."""
        if self.state.best_global_step:
            self.state.best_model_checkpoint = str(self._checkpoints / f"checkpoint-{self.state.best_global_step}")

    def take_up(self, checkpoint: Path) -> None:
        """Train on from a whole checkpoint; without it `train` starts anew."""
        self._resumed = read_json(checkpoint / STAGE)
        self.train(resume_from_checkpoint=str(checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(self.module.model, Path(resume_from_checkpoint))

    def _load_callback_state(self) -> None:
        restore(self.callback_handler.callbacks, self._resumed["callbacks"])
        self._name_best()

    def _run_epoch(self, **arguments: Any) -> None:  # type: ignore[override]  # which are the Trainer's own
        """Run an epoch, unless the training had been stopped early before it was interrupted."""
        if any(isinstance(callback, Patience) and callback.exhausted for callback in self.callback_handler.callbacks):
            self.control.should_training_stop = True
        else:
            self.order.set_epoch(arguments["epoch"])
            super()._run_epoch(**arguments)  # type: ignore[no-untyped-call]

    def take_up_log(self) -> None:
        """The losses since the last line of the log belong to its next line."""
        if self._resumed:
            self._tr_loss += self._resumed["logged"]["unlogged_loss"]
            self._globalstep_last_logged = self._resumed["logged"]["last_logged"]

    def _load_best_model(self) -> None:
        load_weights(self.module.model, self._checkpoints / f"checkpoint-{self.state.best_global_step}")


class _TakeUp(TrainerCallback):
    """Tells the trainer when its own counters may be set."""

    def __init__(self, trainer: CatalogueTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._trainer.take_up_log()

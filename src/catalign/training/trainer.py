"""The Transformers Trainer, taught: our batches, their order, validation by search, saving, and going on."""

import shutil
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from catalign.files import read_json, write_json
from catalign.model.loading import load_weights, save_weights
from catalign.processes import share
from catalign.training.batches import Batches, Windows, without_windows
from catalign.training.callbacks import Patience
from catalign.training.checkpoints import PARTIAL, STAGE, publish, remembered, restore
from catalign.training.module import LossModule

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

    Several processes go through the same micro-batches in the same order, and each computes its share of every one: a
    step is that of one process, whatever their number.

    Args:
        module: the model and its loss.
        args: arguments of the Trainer.
        batches: makes a batch of window numbers.
        validate: returns the metrics of the validation split, without prefix; None, nothing is validated.
        by_user: keep the windows of a user together.
        callbacks: further callbacks.
    """

    def __init__(
        self,
        module: LossModule,
        args: TrainingArguments,
        batches: Batches,
        *,
        validate: Validate | None,
        by_user: bool,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.module, self.batches, self.validate = module, batches, validate
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
        """The numbers of each micro-batch; not divided among processes, see `get_batch_samples`."""
        size = self.args.per_device_train_batch_size
        return DataLoader(WindowNumbers(len(self.order)), size, sampler=self.order, collate_fn=np.array)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """Pack this process's share of the micro-batches of a step when it begins, for negatives may change."""
        packed = [self._packed_share(numbers) for numbers in islice(epoch_iterator, num_batches)]
        return packed, self._get_num_items_in_batch(packed, device)

    def _packed_share(self, numbers: npt.NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """Neighbours in the order stay together, and so do the prefixes that they share."""
        mine = share(numbers)
        # With fewer windows than processes some have none; they run along, for the gradients of all are added.
        return self.batches(mine.tolist()) if len(mine) else without_windows(self.batches(numbers[:1].tolist()))

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor:
        """What the whole step's loss is divided by: the items of all its micro-batches, in all processes."""
        count = torch.as_tensor(sum(self.module.count_items(batch) for batch in batch_samples), device=device)
        if self.args.world_size > 1:
            count = self.accelerator.gather(count[None]).sum(0)
        return count

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Validate by search over the catalogue; the metrics steer early stopping and the choice of the best epoch."""
        if self.validate is None:
            raise ValueError("this trainer was made without a validation")
        started = time.monotonic()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.validate().items()}
        metrics[f"{metric_key_prefix}_seconds"] = time.monotonic() - started
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

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

"""The Transformers Trainer, taught four things: our batches, their order, validation by search, and saving."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from catalign.model.loading import load_weights, save_weights
from catalign.training.batches import Batches, Windows
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


class UserOrder(Sampler[int]):
    """Users in a new random order each epoch, each user's windows one after the other.

    The windows of a user then meet in one batch (a few users are cut by a batch's end) and share their prefixes. A
    batch of 128 windows holds fewer different users than a shuffled one, so its gradient is noisier;
    `docs/lab-log.md` has the measured effect.
    """

    def __init__(self, windows: Windows, generator: torch.Generator) -> None:
        self._user_S = windows.user_S
        self._generator = generator

    def __len__(self) -> int:
        return len(self._user_S)

    def __iter__(self) -> Iterator[int]:
        place_U = torch.randperm(int(self._user_S.max()) + 1, generator=self._generator).numpy()
        return iter(np.argsort(place_U[self._user_S], kind="stable").tolist())


def window_order(windows: Windows, *, by_user: bool, seed: int) -> Sampler[int]:
    """The order of the training windows, new in each epoch."""
    generator = torch.Generator()
    generator.manual_seed(seed)
    if by_user:
        return UserOrder(windows, generator)
    return torch.utils.data.RandomSampler(WindowNumbers(len(windows)), generator=generator)


class CatalogueTrainer(Trainer):
    """Trains a `LossModule` on windows.

    Args:
        module: the model and its loss.
        args: arguments of the Trainer.
        batches: makes a batch of window numbers; the data collator.
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
        self.module, self.batches, self.validate, self.by_user = module, batches, validate, by_user
        super().__init__(
            model=module,
            args=args,
            train_dataset=WindowNumbers(len(batches.windows)),
            eval_dataset=None if validate is None else WindowNumbers(0),  # asked for, never read: see `evaluate`
            data_collator=batches,
            callbacks=[*module.callbacks(), *callbacks],
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        return window_order(self.batches.windows, by_user=self.by_user, seed=self.args.seed)

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

    def _load_best_model(self) -> None:
        load_weights(self.module.model, Path(str(self.state.best_model_checkpoint)))

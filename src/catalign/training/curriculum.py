"""From easy to real: which share of the teacher's answers an epoch of the SOFT stage takes.

lambda is the weight of the teacher's answers in the loss, 1 - lambda that of the real titles.
"""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from catalign.model.sharding import whole_weights
from catalign.objectives import self_distilled_weight
from catalign.training.soft_module import SoftModule
from catalign.training.soft_settings import Curriculum


class CurriculumStep(TrainerCallback):
    """Moves lambda at the end of each epoch, or every so many steps, and logs it.

    Args:
        module: the loss whose `weight` moves.
        curriculum: the schedule.
        distance: measures d, the mean distance of the model's answers from the truth, now; None unless self-adaptive.
        first_distance: d_0, of the untuned model.
    """

    def __init__(
        self,
        module: SoftModule,
        curriculum: Curriculum,
        distance: Callable[[], float] | None = None,
        first_distance: float = 0.0,
    ) -> None:
        self.module, self.curriculum = module, curriculum
        self._measure, self.first_distance = distance, first_distance
        self.distance = first_distance
        module.weight = curriculum.first_weight()
        if distance is not None:  # epoch 1 is pure, unless the untuned model is always right
            module.weight = self_distilled_weight(first_distance, first_distance, curriculum.alpha)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move lambda, where it moves by epochs."""
        if self.curriculum.every_steps is None:
            self._move(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move lambda, where it moves by steps."""
        if self.curriculum.every_steps is not None and state.global_step % self.curriculum.every_steps == 0:
            self._move(state)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Lambda and the last measured distance stand beside the losses."""
        if "loss" in kwargs["logs"]:
            kwargs["logs"]["lambda"] = self.module.weight
            if self._measure is not None:
                kwargs["logs"]["distance"] = self.distance

    def kept(self) -> dict[str, Any]:
        """Lambda, d and d_0."""
        return {"lambda": self.module.weight, "distance": self.distance, "first_distance": self.first_distance}

    def restore(self, kept: dict[str, Any]) -> None:
        """Take them back."""
        self.module.weight = kept["lambda"]
        self.distance, self.first_distance = kept["distance"], kept["first_distance"]

    def _move(self, state: TrainerState) -> None:
        if self._measure is not None:
            with whole_weights(self.module):
                self.distance = self._measure()
            self.module.weight = self_distilled_weight(self.distance, self.first_distance, self.curriculum.alpha)
        elif self.curriculum.schedule == "linear":
            self.module.weight = 1 - state.global_step / state.max_steps

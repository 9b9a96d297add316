"""What the SOFT stage is asked to do: how the teacher answers, and how the real titles take over."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Distillation(BaseModel):
    """How a teacher answers the training prompts.

    Attributes:
        mode: `constrained`, the search over the catalogue, so that every answer is a real item; or `free`, the
            teacher's own text by unconstrained beam search, kept as it is (published).
        beams: width of the search; 4 is published.
        best: answers kept for each prompt, their probabilities as a soft target; 1 is published.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["constrained", "free"] = "constrained"
    beams: int = Field(default=4, ge=1)
    best: int = Field(default=1, ge=1)


class Curriculum(BaseModel):
    """How lambda moves.

    Attributes:
        schedule: `self-adaptive`, by the distance of the model's answers from the truth (published); `linear`, 1 less
            the share of the steps that are done; `constant`, `weight` throughout; `distilled`, the teacher's answers
            alone (published as w/o SA); `real`, the real titles alone, which is plain fine-tuning.
        alpha: self-adaptive: how soon the real titles take over; published grid 0.1, 1, 10, 100.
        weight: constant: lambda.
        prompts: self-adaptive: training prompts whose answers are measured.
        every_steps: move lambda every so many optimiser steps; absent, at the end of each epoch (published).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule: Literal["self-adaptive", "linear", "constant", "distilled", "real"] = "self-adaptive"
    alpha: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    weight: float = Field(default=0.5, ge=0, le=1)
    prompts: int = Field(default=256, ge=1)
    every_steps: int | None = Field(default=None, ge=1)

    @property
    def label(self) -> str:
        """Short name for tables."""
        if self.schedule == "self-adaptive":
            return f"alpha {self.alpha:g}"
        return f"constant {self.weight:g}" if self.schedule == "constant" else self.schedule

    def first_weight(self) -> float:
        """Lambda of the first epoch."""
        return {"constant": self.weight, "real": 0.0}.get(self.schedule, 1.0)

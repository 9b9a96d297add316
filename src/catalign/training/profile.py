"""A trace of a few steps: what the processor and the GPU do, operator by operator."""

from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from catalign.progress import console

FOLDER, TRACE, TABLE = "profile", "trace.json.gz", "operators.txt"
SKIPPED, STEPS = 3, 3  # the first steps also allocate and choose kernels
ROWS = 15


class StepProfile(TrainerCallback):
    """Writes `profile/trace.json.gz` (Chrome trace, for Perfetto) and `profile/operators.txt` into the run.

    Steps 4 to 6 since the training began or went on are traced; of a shorter training the last step. With their
    passes that is all: shapes, stacks and allocations are left out, so that the file stays small.
    """

    def __init__(self, output: Path) -> None:
        self._folder = output / FOLDER
        self._begun = self._traced = 0
        self._profile: profile | None = None

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin to trace."""
        self._begun += 1
        last = state.global_step + 1 == state.max_steps
        if self._profile is None and self._traced == 0 and (self._begun > SKIPPED or last):
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
            self._profile = profile(activities=activities, acc_events=True)
            self._profile.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End the trace after its steps, or with the last of all."""
        if self._profile is None:
            return
        self._traced += 1
        if self._traced == STEPS or state.global_step == state.max_steps:
            self._write(self._profile)
            self._profile = None

    def _write(self, traced: profile) -> None:
        traced.stop()
        self._folder.mkdir(exist_ok=True)
        traced.export_chrome_trace(str(self._folder / TRACE))
        by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = traced.key_averages().table(sort_by=by, row_limit=ROWS, max_name_column_width=40)
        (self._folder / TABLE).write_text(
            f"{self._traced} steps, operators by their own time\n{table}", encoding="utf-8"
        )
        console.print(f"trace of {self._traced} steps and its operators: {self._folder}", markup=False, soft_wrap=True)

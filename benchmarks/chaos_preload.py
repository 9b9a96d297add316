"""Imports what commands need, and computes nothing: processes are forked from the one that holds this."""

import catalign.batch.local_engine
import catalign.batch.run
import catalign.cli.main
import catalign.evaluate_run
import catalign.training.preference_stage
import catalign.training.soft_stage
import catalign.training.warmup  # noqa: F401

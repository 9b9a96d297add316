"""What this machine and installation must bring for a recipe, asked before anything is written."""

from transformers import TrainerCallback
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from catalign.errors import UserError
from catalign.model.quantized import check_quantize
from catalign.training.recipe import StageRecipe, choose_from

ALWAYS = "tensorboard"  # written into the run folder, whatever is asked for


def check_machine(recipe: StageRecipe) -> None:
    """Refuse a recipe that asks for what is not installed here, or for an accelerator that is not there.

    Raises:
        UserError: an unknown tracker (with the nearest), one whose package is missing; bits that cannot be loaded here.
    """
    trackers = sorted(set(INTEGRATION_TO_CALLBACK) - {ALWAYS})
    for name in recipe.report_to:
        where = f"--report-to {name}"
        if name == ALWAYS:
            raise UserError("its events are always written into the run", where=where, mend="leave it out")
        if name not in trackers:
            raise UserError("no such tracker", where=where, mend=choose_from(name, trackers))
        if name not in get_available_reporting_integrations():  # type: ignore[no-untyped-call]
            raise UserError("its package is not installed", where=where, mend=f"pip install {name.replace('_', '-')}")
    if recipe.quantize is not None:
        check_quantize(recipe.quantize)


def make_trackers(recipe: StageRecipe) -> list[TrainerCallback]:
    """What sends the log to the trackers of a recipe; where they send it is said by their environment variables."""
    return [INTEGRATION_TO_CALLBACK[name]() for name in recipe.report_to]

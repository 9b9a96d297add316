"""Where a run may be written: nothing is replaced, and nothing taken up, that is not what was meant."""

from collections.abc import Sequence
from pathlib import Path

from catalign.data.dataset import CARD
from catalign.errors import UserError
from catalign.files import read_json
from catalign.training.machine import check_machine
from catalign.training.recipe import AnyRecipe, load_recipe, make_recipe
from catalign.training.run import PROVENANCE, RECIPE, is_finished


def check_output(
    output: Path, recipe: AnyRecipe, starts: Sequence[Path], *, overwrite: bool, resume: bool = False
) -> None:
    """Refuse a place that holds something.

    Args:
        output: the run folder to make.
        recipe: what is to be trained, with absolute paths.
        starts: models, runs and folders that the training starts from, which are not replaced.
        overwrite: replace a run.
        resume: go on with an unfinished run of this very recipe; nothing else may be there.

    Raises:
        UserError: without `overwrite` and `resume` anything is there, with `overwrite` something that is no run
            folder; with `resume` no run, a finished one, one of another recipe, or the dataset has changed. Or this
            machine cannot do what the recipe asks for (`check_machine`).
    """
    check_machine(recipe)
    if resume:
        check_resumable(output, recipe)
        return
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        unfinished = (output / RECIPE).is_file() and not is_finished(output)
        mend = "pass --resume to go on with it, or --overwrite" if unfinished else "pass --overwrite"
        raise UserError("already exists", where=output, mend=f"choose another folder or {mend}")
    if not (output / RECIPE).is_file():
        raise UserError("is not a run folder, so it is not replaced", where=output, mend="choose another folder")
    for start in (start.resolve() for start in starts):
        if output.resolve() == start:
            what = "is the model to start from, so it is not replaced"
            raise UserError(what, where=output, mend="choose another folder")
        if output.resolve() in start.parents:
            raise UserError(f"holds {start}, so it is not replaced", where=output, mend="choose another folder")


def check_resumable(output: Path, recipe: AnyRecipe) -> None:
    """Refuse to go on with what is no unfinished run of this very recipe."""
    if not (output / RECIPE).is_file():
        raise UserError("holds no run to go on with", where=output, mend="leave --resume out")
    if is_finished(output):
        raise UserError("this run has finished", where=output, mend="pass --overwrite to train it anew")
    before = make_recipe(load_recipe(output / RECIPE), where=str(output / RECIPE))
    old, new = before.model_dump(mode="json", by_alias=True), recipe.model_dump(mode="json", by_alias=True)
    changed = [name for name in old | new if old.get(name) != new.get(name)]
    if changed:
        raise UserError(
            f"was trained with another {', '.join(changed)}", where=output,
            mend="pass --resume and --output alone, or --overwrite to train it anew",
        )  # fmt: skip
    if read_json(output / PROVENANCE)["dataset"] != read_json(recipe.dataset / CARD):
        raise UserError(
            "the dataset has changed since this run began", where=recipe.dataset, mend="train it anew: --overwrite"
        )


def run_recipe(output: Path) -> AnyRecipe:
    """The recipe of an interrupted run, to go on with it.

    Raises:
        UserError: there is none, or the run has finished.
    """
    if not (output / RECIPE).is_file():
        raise UserError("holds no run to go on with", where=output, mend="leave --resume out")
    return make_recipe(load_recipe(output / RECIPE), where=str(output / RECIPE))

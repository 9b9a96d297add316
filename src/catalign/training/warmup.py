"""The warm-up of the embedded model: it learns the catalogue's titles and the training histories, nothing else."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from catalign.catalogue.catalogue import Catalogue
from catalign.data.dataset import CARD, load_dataset
from catalign.errors import UserError
from catalign.files import disk_error, read_json, whole_folder, write_json
from catalign.model.embedded import build_model, build_tokenizer, check_title_lengths, find_preset
from catalign.model.language_model import LanguageModel
from catalign.model.precision import choose_device, choose_precision
from catalign.processes import refuse_processes
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import PLAIN
from catalign.training.batches import BatchMaker, Windows
from catalign.training.fit import fit
from catalign.training.module import Objective, TrainingModule
from catalign.training.recipe import Recipe
from catalign.training.rows import set_row_tokens

SETTINGS = "settings.json"  # of an interrupted warm-up, beside its checkpoints


def init_model(
    dataset_folder: Path,
    output: Path,
    *,
    preset: str,
    phrases: bool = False,
    epochs: int = 1,
    titles_only: bool = False,
    context: int = 1_024,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Make the embedded model of a dataset: tokenizer from the titles, a small Llama, warm-up with LML.

    In each epoch the warm-up reads every title of the catalogue (new items have titles too) and the training windows;
    windows of validation and test are never read. Checkpoints lie in a hidden folder beside `output`: where a warm-up
    of the same settings was interrupted, it is gone on with, to the same weights as without the interruption.

    Args:
        dataset_folder: from `catalign data prepare`.
        output: the Hugging Face folder to make.
        preset: size, a name in `model.embedded.PRESETS`.
        phrases: see `build_tokenizer`.
        epochs: passes over titles and training windows; 0 leaves the weights random.
        titles_only: read no windows, so that the model knows how titles are written and nothing of who likes what.
        context: longest sequence in tokens.
        seed: of weights and order.
        overwrite: replace a folder that is there, forget an interrupted warm-up of other settings.

    Returns:
        The summary that is also written to `warmup.json`.

    Raises:
        UserError: no dataset folder, a title longer than the context, `output` exists (with `overwrite`: and is no
            model folder), or a warm-up of other settings was interrupted there.
        Interrupted: SIGTERM asked for an end; a checkpoint is there.
    """
    refuse_processes("catalign model init")
    settings = {
        "preset": preset, "phrases": phrases, "epochs": epochs, "titles_only": titles_only, "context": context,
        "seed": seed,
    }  # fmt: skip
    _check_place(output, overwrite=overwrite)
    dataset = load_dataset(dataset_folder)
    catalogue = Catalogue.from_frame(dataset.items, dataset.training_counts())
    set_seed(seed)
    tokenizer = build_tokenizer(catalogue.titles, find_preset(preset).vocabulary, context, phrases=phrases)
    check_title_lengths(tokenizer, catalogue.titles, context)
    model = LanguageModel(build_model(preset, len(tokenizer), seed, context), tokenizer)
    summary: dict[str, Any] = {
        "preset": preset,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "vocabulary": len(tokenizer),
        "seed": seed,
    }
    work = output.with_name(f".{output.name}.warming-up")
    if epochs:
        _begin(work, {**settings, "dataset": read_json(dataset.folder / CARD)}, overwrite=overwrite)
        prompter = Prompter(catalogue, tokenizer, PLAIN, context=context)
        frame = dataset.windows("train")
        windows = add_titles(Windows.from_frame(frame.clear() if titles_only else frame), len(catalogue))
        recipe = Recipe(
            dataset=dataset_folder, model=str(output), objective=Objective(name="lml"), epochs=epochs, seed=seed
        )
        try:
            summary["warmup"] = warm_up(model, prompter, windows, recipe, work)
        except OSError as error:  # of a checkpoint or the log
            raise disk_error(error, output) from error
    with whole_folder(output, overwrite=overwrite) as folder:
        model.causal.save_pretrained(str(folder))
        tokenizer.save_pretrained(folder)
        write_json(folder / "warmup.json", summary)
    shutil.rmtree(work, ignore_errors=True)
    return summary


def _check_place(output: Path, *, overwrite: bool) -> None:
    """Refuse to replace what is there, unless it is a model and that was asked for."""
    if not output.exists():
        return
    if not overwrite:
        raise UserError("already exists", where=output, mend="choose another folder or pass --overwrite")
    if not (output / "config.json").is_file():
        raise UserError("is not a model folder, so it is not replaced", where=output, mend="choose another folder")


def _begin(work: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
    """Make the folder of a warm-up's checkpoints, or find it as an interrupted one of the same settings left it.

    Raises:
        UserError: it is of other settings (without `overwrite`), or cannot be made.
    """
    try:
        if (work / SETTINGS).is_file():
            before = read_json(work / SETTINGS)
            changed = [name for name in settings if before.get(name) != settings[name]]
            if changed and not overwrite:
                what = f"holds an interrupted warm-up with another {', '.join(changed)}"
                raise UserError(what, where=work, mend="go on with its options, or begin anew with --overwrite")
            if not changed:
                return
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_json(work / SETTINGS, settings)
    except OSError as error:
        raise disk_error(error, work) from error


def add_titles(windows: Windows, items: int) -> Windows:
    """Put one window with an empty history before the others for each item: its title alone, as if each were a user."""
    empty = np.zeros(0, dtype=np.uint32)
    return Windows(
        user_S=np.concatenate([np.arange(items), windows.user_S + items]),
        histories=[empty] * items + list(windows.histories),
        target_S=np.concatenate([np.arange(items), windows.target_S]),
        seen_S=np.concatenate([np.zeros(items, dtype=np.int64), windows.seen_S]),
    )


def warm_up(model: LanguageModel, prompter: Prompter, windows: Windows, recipe: Recipe, work: Path) -> dict[str, Any]:
    """Train on the windows with LML, without validation; the weights of the last step stay."""
    module = TrainingModule(model, recipe.objective, prompter.trie)
    batches = BatchMaker(windows, prompter, scores=recipe.objective.scores)
    set_row_tokens(batches, recipe, model)
    precision = choose_precision(choose_device(), recipe.precision)
    return fit(
        module, batches, recipe, work, None,
        use_bfloat16=precision.dtype == torch.bfloat16, description="warm-up",
    )  # fmt: skip

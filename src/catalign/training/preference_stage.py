"""The preference stage: from a finished run to one that ranks a title above k others.

Legend: S windows, C titles behind each prompt: the target, then its K negatives.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from peft import PeftModel
from rich.progress import Progress
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from catalign.catalogue.catalogue import Catalogue
from catalign.data.dataset import Dataset, load_dataset
from catalign.errors import UserError
from catalign.model.language_model import LanguageModel
from catalign.model.loading import add_lora
from catalign.model.precision import choose_device, choose_precision
from catalign.model.reference import (
    adapter_digest,
    check_tokenizer,
    items_digest,
    model_digest,
    reference_weights,
    tokenizer_digest,
    train_on,
)
from catalign.model.sharding import whole_weights
from catalign.plugins import is_outside
from catalign.processes import from_main, in_shares, is_main, join_processes
from catalign.progress import progress_bar
from catalign.prompting.choices import ChoicePrompter
from catalign.prompting.prompter import Prompter
from catalign.prompting.templates import Template, load_template
from catalign.training.batches import Windows
from catalign.training.memory import checkpoint_layers
from catalign.training.negatives import (
    check_allowed,
    count_allowed,
    drawn_negatives,
    given_negatives,
    hard_negatives,
    proposed_negatives,
)
from catalign.training.output import check_output
from catalign.training.outside import import_named
from catalign.training.pairs_task import PairPreferenceBatches, pair_prompter, target_places
from catalign.training.preference_module import PreferenceBatches, PreferenceModule
from catalign.training.recipe import PreferenceRecipe
from catalign.training.reference_cache import ReferenceCache
from catalign.training.run import load_run, prompter_of, read_recipe, start_run
from catalign.training.train import complete_run, quantization_of, resolved, start_model, training_frame
from catalign.training.validation import choose_validation

CACHE = "reference"
WINDOWS_AT_ONCE = 64  # of a reference pass


def continued(fields: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The fields of a preference recipe, with what they leave out taken over from the run they start from.

    Dataset, task, template, history rule, adapter and item embeddings are those of the run; `model` is its base model
    or, where it holds full weights, the run itself; the score mode is what it was trained with.

    Raises:
        UserError: no run is named, it has not finished or is none, or a field contradicts it.
    """
    if fields.get("stage") != "preference" or (fields.get("without_sft") and fields.get("from") is None):
        return fields
    if not isinstance(fields.get("from"), str | Path):
        mend = "name one with --from, or pass --without-sft and a --model"
        raise UserError("no run to start from", where=where, mend=mend)
    folder = Path(fields["from"]).resolve()
    source = read_recipe(folder)
    adapter = (folder / "adapter_config.json").is_file()
    plain = source.model_dump(mode="json")
    names = ("template", "history", "item_embeddings", *(["lora"] if adapter else []))
    taken = {name: plain[name] for name in names}
    taken["task"] = plain.get("task", "titles")
    taken["model"] = source.model if adapter else str(folder)
    for name, value in taken.items():
        given = fields.get(name, value)
        same = given.items() <= value.items() if isinstance(given, dict) and isinstance(value, dict) else given == value
        if not same:
            raise UserError(f"{name}: the run {folder} has another", where=where, mend="leave it out")
    objective = source.objective
    score = "full" if objective.scores == "vocabulary" else "valid"
    return {
        "dataset": plain["dataset"],
        "trust_remote_code": source.trust_remote_code,
        "quantize": source.quantize,
        **fields,
        **taken,
        "from": str(folder),
        "objective": {"score": score, **(fields.get("objective") or {})},
    }


def train_preference(
    recipe: PreferenceRecipe, output: Path, *, overwrite: bool = False, resume: bool = False
) -> dict[str, Any]:
    """Train by a recipe (made from `continued` fields) and leave a run folder.

    Everything a user can get wrong is checked before the folder is made.

    Returns:
        The summary of the training.

    Raises:
        UserError: the output exists; run, dataset, negatives or reference cache do not fit.
    """
    join_processes()
    import_named(recipe)
    output = Path(output)
    dataset = load_dataset(recipe.dataset)
    recipe = _resolved(recipe, dataset)
    starts = [Path(recipe.model), *(path for path in (recipe.source, recipe.reference_cache) if path is not None)]
    check_output(output, recipe, starts, overwrite=overwrite, resume=resume)
    set_seed(recipe.seed)
    catalogue = Catalogue.from_frame(dataset.items, dataset.training_counts())
    model, template = _start(recipe, catalogue)
    model.to(choose_device())
    prompter = prompter_of(recipe, model, catalogue, template)
    validate = choose_validation(dataset, model, prompter, recipe)
    chooser = pair_prompter(dataset, catalogue, model) if recipe.task == "pairs" else None
    stage = PreferenceStage(recipe, model, prompter, training_frame(dataset, recipe), chooser)
    shared, compares = recipe.reference_cache, recipe.objective.has_reference
    cache = stage.open_cache(shared, catalogue) if compares and shared is not None else None  # may be refused
    stage.choose_negatives(dataset)

    start_run(output, recipe, catalogue, template, model, resume=resume)
    if compares and cache is None:
        cache = stage.open_cache(output / CACHE, catalogue)
    if cache is not None:
        with progress_bar() as progress:
            stage.take_reference(cache, progress)
    refresh = [] if recipe.negatives.refresh_steps is None else [RefreshNegatives(stage, cache)]
    return complete_run(stage.module, stage.batches, recipe, output, validate, refresh)


class PreferenceStage:
    """Windows, negatives and reference of one run.

    Attributes:
        module: the model and its loss.
        batches: windows, negatives and their reference.
    """

    def __init__(
        self,
        recipe: PreferenceRecipe,
        model: LanguageModel,
        prompter: Prompter,
        frame: pl.DataFrame,
        chooser: ChoicePrompter | None = None,
    ) -> None:
        """Take the training windows; `chooser` writes the prompts of the task of pairs."""
        self.recipe, self.prompter, self._frame = recipe, prompter, frame
        self._template = (chooser or prompter).template
        if model.item_embedding is not None:
            model.item_embedding.keep_reference()
        self.module = PreferenceModule(model, recipe.objective, prompter.trie).to(model.device).train()
        self._precision = choose_precision(choose_device(), recipe.precision).dtype
        windows = Windows.from_frame(frame)
        share = recipe.share_prefixes and model.shares_prefixes
        if chooser is None:
            self.batches = PreferenceBatches(windows, prompter, scores=recipe.objective.scores, share=share)
        else:
            count, seed, given = recipe.negatives.count, self._seed, recipe.negatives.kind == "given"
            places_SK = target_places(frame, count, seed, given=given)
            self.batches = PairPreferenceBatches(windows, prompter, chooser, places_SK, share=share)

    def open_cache(self, folder: Path, catalogue: Catalogue) -> ReferenceCache:
        """The cache of the reference's log-probabilities in a folder.

        Raises:
            UserError: the folder is of another reference.
        """
        header = {
            "model": model_digest(self.module.model),
            "adapter": adapter_digest(self.module.model),
            "items": items_digest(self.module.model),
            "tokenizer": tokenizer_digest(self.module.model.tokenizer),
            "catalogue": catalogue.digest,
            "template": self._template.model_dump(),
            "score": self.recipe.objective.score,
            "precision": str(self._precision).removeprefix("torch."),
        }
        return ReferenceCache(folder, header)

    def choose_negatives(self, dataset: Dataset) -> None:
        """Take the negatives of all windows, before the first step.

        Raises:
            UserError: the catalogue does not allow so many, or those given do not fit.
        """
        settings, trie, windows = self.recipe.negatives, self.prompter.trie, self.batches.windows
        if settings.kind == "hard":
            check_allowed(count_allowed(trie, windows.histories, windows.target_S), settings)
            with progress_bar() as progress:
                self.search_negatives(progress)
        elif settings.kind == "given":
            where = dataset.folder / "windows/train.parquet"
            self.batches.change(given_negatives(self._frame, trie, settings.count, where))
        elif is_outside(settings.kind):
            proposed = proposed_negatives(
                settings.kind, trie, self._frame, dataset.items, windows.histories, settings.count, self._seed
            )
            self.batches.change(proposed)
        else:
            counts = dataset.training_counts()
            drawn = drawn_negatives(
                settings, trie, dataset.items, counts, windows.histories, windows.target_S, self._seed
            )
            self.batches.change(drawn)

    @property
    def _seed(self) -> int:
        """Of drawn negatives, and of the places where prompts of pairs show them."""
        seed = self.recipe.negatives.seed
        return self.recipe.seed if seed is None else seed

    def search_negatives(self, progress: Progress | None = None) -> None:
        """Take as negatives what the model recommends now, but for target and history."""
        windows = self.batches.windows

        def search(numbers_S: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            start, stop = int(numbers_S[0]), int(numbers_S[-1]) + 1
            return hard_negatives(
                self.module.model, self.prompter.trie, self.batches.prompts[start:stop], windows.histories[start:stop],
                windows.target_S[start:stop], self.recipe.negatives.count, self.recipe.objective.score, progress,
            )  # fmt: skip

        self.batches.change(in_shares(np.arange(len(windows)), search))

    def take_reference(self, cache: ReferenceCache | None, progress: Progress | None = None) -> None:
        """Give the batches the reference log-probabilities: from the cache, and what it lacks computed.

        Of several processes the main one reads and writes the cache; all compute.
        """
        if cache is None:
            return
        item_SC, prompt_SC = self.batches.item_SC, self.batches.prompt_hashes()
        known = from_main(lambda: cache.find(prompt_SC.ravel(), item_SC.reshape(-1, 1)))
        score_SC = known.reshape(item_SC.shape)
        unknown_S = np.flatnonzero(np.isnan(score_SC).any(axis=1))
        unknown_S = unknown_S[np.argsort(self.batches.windows.user_S[unknown_S], kind="stable")]
        if len(unknown_S):
            score_SC[unknown_S] = in_shares(unknown_S, lambda numbers_S: self._computed(numbers_S, progress))
            if is_main():
                found = (prompt_SC[unknown_S], item_SC[unknown_S], score_SC[unknown_S])
                cache.add(found[0].ravel(), found[1].reshape(-1, 1), found[2].reshape(-1, 1))
        self.batches.reference_SC = score_SC

    def _computed(self, numbers_S: npt.NDArray[np.int64], progress: Progress | None) -> npt.NDArray[np.float32]:
        """The reference's log-probabilities of the titles of some windows, a few windows at a time; [S, C]."""
        task = progress.add_task("reference log-probabilities", total=len(numbers_S), note="") if progress else None
        parts = []
        for start in range(0, len(numbers_S), WINDOWS_AT_ONCE):
            numbers = numbers_S[start : start + WINDOWS_AT_ONCE]
            parts.append(self.reference_scores(numbers.tolist()))
            if progress and task is not None:
                progress.advance(task, len(numbers))
        return np.concatenate(parts)

    @torch.no_grad()
    def reference_scores(self, numbers: list[int]) -> npt.NDArray[np.float32]:
        """The reference's log-probabilities of the titles of some windows, computed now; [windows, C]."""
        model = self.module.model
        batch = {name: value.to(model.device) for name, value in self.batches(numbers).items()}
        half = torch.autocast(model.device.type, torch.bfloat16, enabled=self._precision == torch.bfloat16)
        with half, reference_weights(model):
            score_S = self.module.log_probabilities(**batch)
        scores: npt.NDArray[np.float32] = score_S.view(len(numbers), -1).cpu().numpy()
        return scores


class RefreshNegatives(TrainerCallback):
    """Searches hard negatives anew every so many steps."""

    def __init__(self, stage: PreferenceStage, cache: ReferenceCache | None) -> None:
        self.stage, self.cache = stage, cache

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Search after every so many steps, but not after the last."""
        every = self.stage.recipe.negatives.refresh_steps
        if every is not None and state.global_step % every == 0 and state.global_step < state.max_steps:
            with whole_weights(self.stage.module):
                self.stage.search_negatives()
                self.stage.take_reference(self.cache)

    def kept(self) -> dict[str, Any]:
        """The negatives of now."""
        return {"negatives": self.stage.batches.item_SC[:, 1:].tolist()}

    def restore(self, kept: dict[str, Any]) -> None:
        """Take them again."""
        self.stage.batches.change(np.array(kept["negatives"], dtype=np.int64))
        self.stage.take_reference(self.cache)


def _resolved(recipe: PreferenceRecipe, dataset: Dataset) -> PreferenceRecipe:
    """The recipe with absolute paths and with the seed of the negatives spelt out."""
    recipe = resolved(recipe, dataset)
    changed: dict[str, Any] = {}
    if recipe.negatives.seed is None:
        changed["negatives"] = recipe.negatives.model_copy(update={"seed": recipe.seed})
    if recipe.reference_cache is not None:
        changed["reference_cache"] = recipe.reference_cache.resolve()
    return recipe.model_copy(update=changed)


def _start(recipe: PreferenceRecipe, catalogue: Catalogue) -> tuple[LanguageModel, Template]:
    """The model that trains, its reference beside or below it, and the template.

    Raises:
        UserError: the run is none, of another catalogue, or of another tokenizer than its model has now.
    """
    if recipe.source is None:
        return start_model(recipe, catalogue), load_template(recipe.template)
    run = load_run(recipe.source, quantize=quantization_of(recipe))
    if run.catalogue.digest != catalogue.digest:
        raise UserError(
            "has another catalogue than the run to start from was trained on",
            where=recipe.dataset,
            mend="pass the dataset of the run with --dataset, or give it these items (catalign model recatalogue)",
        )
    check_tokenizer(run.model, recipe.source)
    model, template = run.model, run.prompter.template
    if recipe.gradient_checkpointing:
        checkpoint_layers(model)
    if isinstance(model.causal, PeftModel):
        train_on(model, recipe.source)
        return model, template
    return add_lora(model, recipe.lora, recipe.seed) if recipe.lora is not None else model, template

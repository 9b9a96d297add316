"""The SOFT stage (arXiv 2505.20771): a finished run teaches a new one, by its own answers first, then by the truth."""

from pathlib import Path
from typing import Any

import polars as pl
from transformers import set_seed

from catalign.catalogue.catalogue import Catalogue
from catalign.data.dataset import Dataset, load_dataset
from catalign.errors import UserError
from catalign.files import read_json
from catalign.model.item_embedding import VECTORS
from catalign.model.language_model import LanguageModel
from catalign.model.precision import choose_device
from catalign.model.reference import tokenizer_digest
from catalign.processes import join_processes
from catalign.progress import console
from catalign.prompting.prompter import Prompter, TokenArray, encode_answers
from catalign.prompting.templates import load_template
from catalign.training.batches import BatchMaker, Windows
from catalign.training.curriculum import CurriculumStep
from catalign.training.distance import AnswerDistance
from catalign.training.distillation import check_distilled, distil
from catalign.training.output import check_output
from catalign.training.outside import import_named
from catalign.training.recipe import AnyRecipe, PreferenceRecipe, SoftRecipe
from catalign.training.run import Run, load_run, prompter_of, read_recipe, start_run
from catalign.training.soft_module import SoftBatches, SoftModule, answer_tokens
from catalign.training.train import complete_run, quantization_of, resolved, start_model, training_frame
from catalign.training.validation import choose_validation

DISTILLED = "distilled"


def taught(fields: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The fields of a SOFT recipe, with what they leave out taken over from the teacher.

    Dataset, template, history rule, adapter, item embeddings and objective are the teacher's; `model` is the model that
    it was itself trained from, since the stage starts again from there.

    Raises:
        UserError: no teacher is named, it has not finished, or is no run.
    """
    if fields.get("stage") != "soft":
        return fields
    if not isinstance(fields.get("from"), str | Path):
        raise UserError("no teacher", where=where, mend="name a finished run with --from")
    folder = Path(fields["from"]).resolve()
    teacher = read_recipe(folder)
    first = untuned(teacher)
    if not isinstance(first, SoftRecipe) and first.task == "pairs":
        mend = "name a run that was trained on titles"
        raise UserError("the teacher puts pairs in order, it names no titles", where=str(folder), mend=mend)
    plain = first.model_dump(mode="json")
    kept = ("dataset", "model", "template", "history", "lora", "quantize", "trust_remote_code")
    taken = {name: plain[name] for name in kept}
    if (folder / VECTORS).is_file():
        taken["item_embeddings"] = str(folder)
    objective = fields.get("objective") or {}
    if "name" not in objective:
        objective = {**plain["objective"], **objective}
    return {**taken, **fields, "from": str(folder), "objective": objective}


def untuned(recipe: AnyRecipe) -> AnyRecipe:
    """The recipe that a chain of preference stages began with."""
    while isinstance(recipe, PreferenceRecipe) and recipe.source is not None:
        recipe = read_recipe(recipe.source)
    return recipe


def train_soft(recipe: SoftRecipe, output: Path, *, overwrite: bool = False, resume: bool = False) -> dict[str, Any]:
    """Train by a recipe (made from `taught` fields) and leave a run folder; `distilled/` in it holds the answers.

    Everything a user can get wrong is checked before the folder is made. With `resume` a run that was killed while the
    teacher answered goes on with the answers it has.

    Returns:
        The summary of the training, with the statistics of the answers under `distillation`.

    Raises:
        UserError: the output exists; teacher and dataset or model do not fit; an objective that free answers cannot
            have.
    """
    join_processes()
    import_named(recipe)
    output = Path(output)
    dataset = load_dataset(recipe.dataset)
    recipe = _resolved(recipe, dataset)
    starts = [Path(recipe.model), recipe.source, *([recipe.distilled] if recipe.distilled else [])]
    check_output(output, recipe, starts, overwrite=overwrite, resume=resume)
    set_seed(recipe.seed)
    catalogue = Catalogue.from_frame(dataset.items, dataset.training_counts())
    teacher = load_run(recipe.source, device=choose_device(), quantize=quantization_of(recipe))
    model = start_model(recipe, catalogue)
    check_teacher(teacher, catalogue, model, recipe)
    template = load_template(recipe.template)
    prompter = prompter_of(recipe, model, catalogue, template)
    windows = Windows.from_frame(training_frame(dataset, recipe))
    validate = choose_validation(dataset, model, prompter, recipe)

    if recipe.distilled is not None:
        check_distilled(teacher, windows, recipe.distillation, recipe.distilled)
    start_run(output, recipe, catalogue, template, model, resume=resume)
    folder = recipe.distilled or output / DISTILLED
    answers = distil(teacher, windows, recipe.distillation, folder)
    statistics = read_json(folder / "statistics.json")
    console.print(
        f"the teacher's answers: {statistics['share_real']:.1%} real titles, {statistics['share_true']:.1%} true"
    )
    del teacher
    maker = BatchMaker(
        windows, prompter, scores=recipe.objective.scores,
        share=recipe.share_prefixes and model.shares_prefixes,
    )  # fmt: skip
    texts = free_texts(answers, prompter, windows, model) if recipe.distillation.mode == "free" else None
    denominator = "branching" if recipe.objective.name == "lml" else recipe.objective.denominator
    batches = SoftBatches(maker, answers, texts, denominator)
    model.to(choose_device())
    module = SoftModule(model, recipe.objective, prompter.trie)
    step = curriculum_step(recipe, module, prompter, catalogue, windows)
    summary = complete_run(module, batches, recipe, output, validate, [step])
    return {**summary, "distillation": statistics}


def check_teacher(teacher: Run, catalogue: Catalogue, model: LanguageModel, recipe: SoftRecipe) -> None:
    """Refuse a teacher whose answers the model could not learn from.

    Raises:
        UserError: another catalogue or tokenizer.
    """
    if teacher.catalogue.digest != catalogue.digest:
        raise UserError(
            "has another catalogue than the teacher was trained on",
            where=recipe.dataset,
            mend="pass the dataset of the teacher with --dataset, or give it these items (catalign model recatalogue)",
        )
    if tokenizer_digest(teacher.model.tokenizer) != tokenizer_digest(model.tokenizer):
        raise UserError(
            f"the teacher {recipe.source} has another tokenizer", where=recipe.model, mend="leave --model out"
        )


def free_texts(
    answers: pl.DataFrame, prompter: Prompter, windows: Windows, model: LanguageModel
) -> list[list[TokenArray]]:
    """The tokens of the real title and of the teacher's texts, for each window."""
    flat = encode_answers(model.tokenizer, prompter.template, answers["texts"].explode().to_list())
    stops = answers["texts"].list.len().cum_sum().to_list()
    texts = [flat[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
    return answer_tokens(prompter, windows, texts)


def curriculum_step(
    recipe: SoftRecipe, module: SoftModule, prompter: Prompter, catalogue: Catalogue, windows: Windows
) -> CurriculumStep:
    """What moves lambda; for the self-adaptive curriculum d_0 is measured here, with the untuned model."""
    if recipe.curriculum.schedule != "self-adaptive":
        return CurriculumStep(module, recipe.curriculum)
    distance = AnswerDistance(
        module.model, prompter, catalogue, windows, recipe.distillation,
        prompts=recipe.curriculum.prompts, seed=recipe.seed,
    )  # fmt: skip
    return CurriculumStep(module, recipe.curriculum, distance, first_distance=distance())


def _resolved(recipe: SoftRecipe, dataset: Dataset) -> SoftRecipe:
    """The recipe with absolute paths."""
    recipe = resolved(recipe, dataset)
    folder = recipe.distilled
    return recipe if folder is None else recipe.model_copy(update={"distilled": folder.resolve()})

"""The exported folder: a plain Hugging Face model that is still a run of ours.

Weights with the adapter merged, tokenizer and generation settings are all that other programs read. Beside them lie
template, catalogue, recipe and provenance, so that `Recommender.load` and `catalign serve` take the folder as they take
a run. Paths of this machine and the command that trained stay behind.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel

from catalign.errors import UserError
from catalign.export.card import METRICS, write_card
from catalign.files import read_json, whole_folder, write_json
from catalign.model.item_embedding import PROJECTOR, VECTORS
from catalign.model.language_model import LanguageModel
from catalign.training.recipe import AnyRecipe
from catalign.training.run import CATALOGUE, PROVENANCE, TEMPLATE, Run, load_run, write_recipe

STAYS = ("command", "machine", "resumed")  # of the provenance: commands, paths, the computer
PROBE = 16  # tokens that the merged weights are compared on
MERGED_LIKE = 1e-4  # largest difference of a logit, relative to the largest logit


def export_run(folder: Path, output: Path, *, overwrite: bool = False) -> Run:
    """Write the exported folder of a run.

    Args:
        folder: a finished run.
        output: the folder to make.
        overwrite: replace it if it is there.

    Returns:
        The run, its adapter merged.

    Raises:
        UserError: not a run, a run with item embeddings, an adapter that cannot be merged exactly, or `output` exists.
    """
    folder = Path(folder)
    if (folder / VECTORS).is_file() or (folder / PROJECTOR).is_file():
        raise UserError(
            "its prompts hold item embeddings, which are no tokens: no other program could read them", where=folder,
            mend="serve it with catalign serve, or train without --item-embeddings",
        )  # fmt: skip
    run = load_run(folder)
    with whole_folder(output, overwrite=overwrite) as partial:
        causal = merged(run.model, folder)
        causal.config.use_cache = True
        causal.generation_config = _generation(run)
        causal.save_pretrained(partial)
        run.model.tokenizer.save_pretrained(partial)
        write_json(partial / TEMPLATE, run.prompter.template.model_dump())
        (partial / CATALOGUE).mkdir()
        run.catalogue.save(partial / CATALOGUE)
        facts = {name: value for name, value in read_json(folder / PROVENANCE).items() if name not in STAYS}
        write_json(partial / PROVENANCE, facts)
        measured = _copy_metrics(folder, partial)
        write_recipe(partial, _without_paths(run.recipe))
        write_card(partial, run, folder.resolve().name, facts, measured)
    return run


@torch.no_grad()
def merged(model: LanguageModel, where: Path) -> PreTrainedModel:
    """The Hugging Face model with its adapter, if it has one, in the weights.

    Raises:
        UserError: the merged model computes something else.
    """
    if not isinstance(model.causal, PeftModel):
        return model.causal
    token_1N = torch.arange(1, PROBE + 1)[None] % len(model.head_VH)
    before = model.causal(input_ids=token_1N).logits
    plain: PreTrainedModel = model.causal.merge_and_unload()
    difference = float((plain(input_ids=token_1N).logits - before).abs().max() / before.abs().max())
    if difference > MERGED_LIKE:
        raise UserError("the adapter cannot be merged without changing the results", where=where,
                        mend="use the run as it is, with PEFT or catalign serve")  # fmt: skip
    return plain


def _generation(run: Run) -> GenerationConfig:
    """Greedy up to the longest title."""
    tokenizer = run.model.tokenizer
    return GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        max_new_tokens=int(run.prompter.trie.depth.max()),
        do_sample=False,
    )


def _without_paths(recipe: AnyRecipe) -> AnyRecipe:
    """The recipe with names in place of folders and files of this machine."""
    names: dict[str, Any] = {name: Path(value.name) for name, value in recipe if isinstance(value, Path)}
    for name in ("model", "template"):
        value = str(getattr(recipe, name))
        if Path(value).exists() or Path(value).is_absolute():
            names[name] = Path(value).name
    return recipe.model_copy(update=names)


def _copy_metrics(folder: Path, output: Path) -> dict[str, dict[str, Any]]:
    """Copy the metrics of every evaluation; returns them by the name of the evaluation."""
    found = {}
    for path in sorted((folder / "evaluations").glob(f"*/{METRICS}")):
        name = path.parent.name
        (output / "evaluations" / name).mkdir(parents=True)
        shutil.copyfile(path, output / "evaluations" / name / METRICS)
        found[name] = json.loads(path.read_text(encoding="utf-8"))
    return found

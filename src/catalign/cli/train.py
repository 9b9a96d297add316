"""`catalign train`."""

import json as json_module
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from catalign.errors import UserError
from catalign.progress import console

What, How, Adapter, Validation = "What", "How", "Adapter", "Choice of the best epoch"
Soft, Preference = "SOFT stage", "Preference stage"


def train(
    recipe: Annotated[
        Path | None,
        typer.Argument(help="A recipe (YAML), such as those in recipes/ or the recipe.yaml of a run."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The run folder to make.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another value in the recipe, for every name in it: --set lora.rank=16 --set validation=null. Values "
            "of --set go before the recipe's, options before both.",
        ),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset folder, from catalign data prepare.", rich_help_panel=What)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Any causal language model: a folder (catalign model init makes one) or a name on the hub.",
            rich_help_panel=What,
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="lml: softmax over the vocabulary. msl: over the tokens that continue a title of the catalogue. "
            "msl+ats: msl with a temperature that adapts. Default msl. In the preference stage: dmpo, pairs, sdpo, "
            "pair-sum, dpo or dmpo-released; default dmpo. MODULE:NAME: a function of your own.",
            rich_help_panel=What,
        ),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            help="sft: the next title is the answer. soft: again, from what an sft run answers to the truth. "
            "preference: after either, the target against other titles. Default sft.",
            rich_help_panel=What,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="titles: the answer is the next title. pairs: the prompt lists the next title and another, the answer "
            "names both in order (lml, --score full). Default titles.",
            rich_help_panel=What,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Of the softmax of lml or msl; above 1 it is flatter. Default 1.", rich_help_panel=What),
    ] = None,
    bear_weight: Annotated[
        float | None,
        typer.Option(
            help="msl: BEAR, by how much more a token weighs that a beam search keeps. Default 0.", rich_help_panel=What
        ),
    ] = None,
    denominator: Annotated[
        str | None, typer.Option(help="msl: average over 'branching' or 'all' positions.", rich_help_panel=What)
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="plain, instruction, or a YAML file. Default plain.", rich_help_panel=What)
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(help="last-n, or anchored (shares more prefixes). Default last-n.", rich_help_panel=What),
    ] = None,
    item_embeddings: Annotated[
        Path | None,
        typer.Option(
            help="Embeddings of a trained sequential model (Parquet with item_id and embedding, or the run folder that "
            "holds it), projected into the prompt beside each title of a history (LLaRA).",
            rich_help_panel=What,
        ),
    ] = None,
    train_examples: Annotated[
        int | None, typer.Option(help="Few-shot: train on this many windows, drawn.", rich_help_panel=What)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Most epochs. Default 10; preference stage 3.", rich_help_panel=How)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="At its peak. Default 0.001; preference stage 0.0001.", rich_help_panel=How)
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="Of the learning rate: linear, constant or cosine. Default linear.", rich_help_panel=How),
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Default 0.01.", rich_help_panel=How)] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Windows of an optimiser step. Default 128.", rich_help_panel=How)
    ] = None,
    micro_batch_size: Annotated[
        int | None,
        typer.Option(help="Windows of a forward pass; fewer take less memory. Default all.", rich_help_panel=How),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens of a forward pass, common prefixes merged; a step is cut to fit. Default any number.",
            rich_help_panel=How,
        ),
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option("--gradient-checkpointing", help="Less memory, about a third more time.", rich_help_panel=How),
    ] = None,
    batching: Annotated[
        str | None,
        typer.Option(help="by-user (shares prefixes: faster) or shuffled. Default by-user.", rich_help_panel=How),
    ] = None,
    row_tokens: Annotated[
        int | None,
        typer.Option(
            help="Longest row of the prefix forest. Default the length with the least work.", rich_help_panel=How
        ),
    ] = None,
    share_prefixes: Annotated[
        bool | None,
        typer.Option(
            "--share-prefixes/--no-share-prefixes", help="Same result, faster. Default on.", rich_help_panel=How
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, float32 or bfloat16. Default auto.", rich_help_panel=How)
    ] = None,
    report_to: Annotated[
        str | None,
        typer.Option(help="Trackers for the log, comma-separated: mlflow, wandb, trackio, ...", rich_help_panel=How),
    ] = None,
    profile: Annotated[
        bool | None, typer.Option("--profile", help="Write a trace of three steps.", rich_help_panel=How)
    ] = None,
    peak_flops: Annotated[
        float | None,
        typer.Option(
            help="Operations a second of the device, for its utilisation. Default known or measured.",
            rich_help_panel=How,
        ),
    ] = None,
    logging_steps: Annotated[
        int | None, typer.Option(help="Steps between log lines. Default ten lines an epoch.", rich_help_panel=How)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything that is drawn. Default 0.", rich_help_panel=How)
    ] = None,
    lora: Annotated[
        bool | None,
        typer.Option("--lora/--full", help="Train an adapter, or all weights. Default all.", rich_help_panel=Adapter),
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option(help="Width of the adapter. Default 8.", rich_help_panel=Adapter)
    ] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="Its output is scaled by alpha / rank. Default 16.", rich_help_panel=Adapter)
    ] = None,
    lora_dropout: Annotated[
        float | None,
        typer.Option(help="On its input; off in the preference stage. Default 0.05.", rich_help_panel=Adapter),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            help="Frozen weights in 8bit or 4bit (needs a GPU). Default as they are.", rich_help_panel=Adapter
        ),
    ] = None,
    target_modules: Annotated[
        str | None,
        typer.Option(help="Layers to adapt, comma-separated. Default q_proj,v_proj.", rich_help_panel=Adapter),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="A finished run: the teacher (soft), or what to start from and to compare with (preference). Dataset, "
            "model, template and adapter are taken from it.",
            rich_help_panel=What,
        ),
    ] = None,
    answers: Annotated[
        str | None,
        typer.Option(
            help="How the teacher answers. constrained: real titles. free: its own text (with lml). Default "
            "constrained.",
            rich_help_panel=Soft,
        ),
    ] = None,
    answer_beams: Annotated[
        int | None, typer.Option(help="Width of the teacher's search. Default 4.", rich_help_panel=Soft)
    ] = None,
    answers_kept: Annotated[
        int | None,
        typer.Option(
            help="Best answers to a prompt, a soft target by their probabilities. Default 1.", rich_help_panel=Soft
        ),
    ] = None,
    distilled: Annotated[
        Path | None,
        typer.Option(help="Folder of answers that several runs share. Default inside the run.", rich_help_panel=Soft),
    ] = None,
    curriculum: Annotated[
        str | None,
        typer.Option(
            help="How the real titles take over: self-adaptive, linear, constant, distilled (never) or real (at once). "
            "Default self-adaptive.",
            rich_help_panel=Soft,
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="self-adaptive: how soon; 100 is at once, 0.1 hardly. Default 1.", rich_help_panel=Soft),
    ] = None,
    distilled_weight: Annotated[
        float | None,
        typer.Option(help="constant: weight of the teacher's answers. Default 0.5.", rich_help_panel=Soft),
    ] = None,
    curriculum_steps: Annotated[
        int | None,
        typer.Option(help="Move the weights every so many steps. Default each epoch.", rich_help_panel=Soft),
    ] = None,
    without_sft: Annotated[
        bool | None,
        typer.Option("--without-sft", help="Start from --model itself instead.", rich_help_panel=Preference),
    ] = None,
    negatives: Annotated[
        int | None, typer.Option(help="Titles that a target is preferred to. Default 3.", rich_help_panel=Preference)
    ] = None,
    negatives_from: Annotated[
        str | None,
        typer.Option(
            help="uniform: the catalogue. popular: by training counts. category: like the target's. hard: what the "
            "model would recommend. given: the dataset's column negatives. MODULE:NAME: a function of your own. "
            "Default uniform.",
            rich_help_panel=Preference,
        ),
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="Column of the items that names their category.", rich_help_panel=Preference)
    ] = None,
    refresh_steps: Annotated[
        int | None,
        typer.Option(help="Search hard negatives anew every so many steps. Default once.", rich_help_panel=Preference),
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Strength of the preference. Default 0.1.", rich_help_panel=Preference)
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="Probability of a title: valid (as msl trains) or full (as lml). Default as the run was trained.",
            rich_help_panel=Preference,
        ),
    ] = None,
    sft_weight: Annotated[
        float | None,
        typer.Option(help="Of the target's own loss beside the preference. Default 0.", rich_help_panel=Preference),
    ] = None,
    reference_cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder of reference log-probabilities that several runs share. Default inside the run.",
            rich_help_panel=Preference,
        ),
    ] = None,
    validation: Annotated[
        bool | None,
        typer.Option(
            "--validation/--no-validation", help="Without it the last epoch is kept.", rich_help_panel=Validation
        ),
    ] = None,
    valid_windows: Annotated[
        int | None, typer.Option(help="Validation windows drawn. Default 1000.", rich_help_panel=Validation)
    ] = None,
    valid_beams: Annotated[
        int | None, typer.Option(help="Width of the search. Default 10.", rich_help_panel=Validation)
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after this many epochs without a gain. Default 3.", rich_help_panel=Validation),
    ] = None,
    trust_remote_code: Annotated[
        bool | None, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = None,
    checkpoint_steps: Annotated[
        int | None, typer.Option(help="Steps between two checkpoints within an epoch. Default 500.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run in --output; needs no other option.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run folder if it is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Fine-tune a language model, stage by stage; the epoch with the best NDCG@10 on the validation split is kept.

    catalign train --dataset ds --model lm --objective msl --output runs/msl

    catalign train recipes/msl/books-llama-3.2-3b.yaml --dataset ds --set seed=1 --output runs/books

    catalign train --stage soft --from runs/msl --output runs/soft

    catalign train --stage preference --objective dmpo --negatives 3 --from runs/msl --output runs/dmpo

    catalign train --resume --output runs/msl
    """
    from catalign.training.callbacks import Interrupted
    from catalign.training.output import run_recipe
    from catalign.training.overrides import override
    from catalign.training.preference_stage import continued, train_preference
    from catalign.training.recipe import PreferenceRecipe, SoftRecipe, load_recipe, make_recipe
    from catalign.training.soft_stage import taught, train_soft
    from catalign.training.train import train as run_training

    if output is None:
        raise UserError("no output given", where="--output", mend="name the run folder to make")
    fields: dict[str, Any] = {} if recipe is None else load_recipe(recipe)
    where = str(recipe) if recipe is not None else "catalign train"
    fields = override(fields, assignments or [], stage)
    if stage is not None:
        fields["stage"] = stage
    if objective is not None:
        _choose_objective(fields, objective)
    if temperature is not None and (fields.get("objective") or {}).get("temperature") == "adaptive":
        raise UserError(
            "msl+ats finds its temperature itself", where="--temperature", mend="leave it out or choose msl"
        )
    _put(
        fields, "objective",
        temperature=temperature, denominator=denominator, bear_weight=bear_weight,
        beta=beta, score=score, sft_weight=sft_weight,
    )  # fmt: skip
    _put(fields, "negatives", count=negatives, kind=negatives_from, category=category, refresh_steps=refresh_steps)
    _put(fields, "distillation", mode=answers, beams=answer_beams, best=answers_kept)
    _put(fields, "curriculum", schedule=curriculum, alpha=alpha, weight=distilled_weight, every_steps=curriculum_steps)
    _put(fields, "history", kind=history)
    if validation is not None:
        fields["validation"] = (fields.get("validation") or {}) if validation else None
    _put(fields, "validation", windows=valid_windows, beams=valid_beams, patience=patience)
    modules = None if target_modules is None else target_modules.split(",")
    adapter = {"rank": lora_rank, "alpha": lora_alpha, "dropout": lora_dropout, "target_modules": modules}
    if lora is not None:
        fields["lora"] = (fields.get("lora") or {}) if lora else None
    if any(value is not None for value in adapter.values()) and fields.get("lora") is None:
        raise UserError("adapter options without an adapter", where="--lora-..., --target-modules", mend="add --lora")
    _put(fields, "lora", **adapter)
    general = {
        "dataset": dataset, "model": model, "template": template, "train_examples": train_examples, "epochs": epochs,
        "learning_rate": learning_rate, "schedule": schedule, "weight_decay": weight_decay, "batch_size": batch_size,
        "micro_batch_size": micro_batch_size, "max_tokens": max_tokens, "quantize": quantize, "profile": profile,
        "gradient_checkpointing": gradient_checkpointing, "peak_flops": peak_flops,
        "report_to": None if report_to is None else report_to.split(","), "batching": batching,
        "row_tokens": row_tokens, "share_prefixes": share_prefixes, "precision": precision, "seed": seed,
        "logging_steps": logging_steps, "checkpoint_steps": checkpoint_steps, "task": task,
        "item_embeddings": item_embeddings, "trust_remote_code": trust_remote_code, "from": source,
        "without_sft": without_sft, "reference_cache": reference_cache, "distilled": distilled,
    }  # fmt: skip
    fields |= {name: value for name, value in general.items() if value is not None}
    if resume and overwrite:
        raise UserError("either go on with a run or replace it", where="--resume, --overwrite")
    if resume and not fields:
        checked = run_recipe(output)
    else:
        checked = make_recipe(taught(continued(fields, where=where), where=where), where=where)
    how = {"overwrite": overwrite, "resume": resume}
    try:
        if isinstance(checked, PreferenceRecipe):
            summary = train_preference(checked, output, **how)
        elif isinstance(checked, SoftRecipe):
            summary = train_soft(checked, output, **how)
        else:
            summary = run_training(checked, output, **how)
    except Interrupted as interruption:
        console.print(f"{interruption}; go on with: catalign train --resume --output {output}", markup=False)
        raise typer.Exit(128 + signal.SIGTERM) from interruption
    typer.echo(json_module.dumps(summary) if json else f"{output}: {_told(summary)}")


def _told(summary: dict[str, Any]) -> str:
    """The summary of a training in one line."""
    if summary["chosen_on"] != "valid":
        return f"{summary['epochs_run']:g} epochs, the last is kept, {summary['seconds']:.0f} s"
    return (
        f"best epoch {summary['best_epoch']:g} of {summary['epochs_run']:g}, NDCG@10 "
        f"{summary['valid_ndcg@10']:.4f} on {summary['valid_windows']:,} validation windows, {summary['seconds']:.0f} s"
    )


def _choose_objective(fields: dict[str, Any], name: str) -> None:
    """Change a recipe's objective; a temperature set by hand stays, an adaptive one belongs to msl+ats."""
    from catalign.training.recipe import find_objective

    before = dict(fields.get("objective") or {})
    if before.get("temperature") == "adaptive":
        del before["temperature"]
    fields["objective"] = {**before, **find_objective(name, fields.get("stage", "sft"), where="--objective")}


def _put(fields: dict[str, Any], part: str, **values: Any) -> None:
    """Set the given values in a part of the recipe; nothing happens where none is given."""
    given = {name: value for name, value in values.items() if value is not None}
    if given:
        fields[part] = {**(fields.get(part) or {}), **given}

"""The model card: README.md with the metadata that the Hugging Face hub reads."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from catalign.training.run import Run

METRICS = "metrics.json"
CARD = "README.md"
SHOWN = ("hr@10", "ndcg@10", "mrr@10")
EXAMPLE_ITEMS = 2

BODY = """# {name}

A language model that recommends from a catalogue of {items:,} items: it reads the titles that a person interacted with,
oldest first, and answers with the title of the next item. Fine-tuned with
[catalign](https://github.com/catalign/catalign) {version}.

{base}

## Use

With catalign, which only ever answers with items of the catalogue (it is in this folder), ranks them and takes filters:

```python
from catalign import Recommender

recommender = Recommender.load("path/to/this/folder")
recommender.recommend([{first_id}], k=10)
```

Or `catalign serve path/to/this/folder`. Without catalign it is an ordinary causal language model
(`AutoModelForCausalLM`): it writes a title and the end token, and nothing keeps it from writing one that the catalogue
does not have.

**The prompt.** Template `{template}` (`template.json`). Each piece is tokenised on its own, so give token ids rather
than text where you can: `recommender.run.prompter.prompt([item numbers])`. For a history of {examples} items it is

{prompt}

which are {tokens} tokens; a title has at most {longest}, the end token among them.

## Data

{data}

## Results

{results}

## Training

{training}

## Limits

- Only the catalogue keeps answers valid. Free generation, also in vLLM or SGLang, may write titles that do not exist.
- Scores are log-probabilities of titles under this catalogue; another catalogue gives others.
- It has learnt from what people chose among what they were shown: the popular items, gaps and biases of those data are
  its own.
- `catalogue/catalogue.parquet` holds ids, titles, training counts and the metadata that was kept. No histories are in
  this folder.
"""


def write_card(folder: Path, run: Run, name: str, facts: dict[str, Any], measured: dict[str, dict[str, Any]]) -> None:
    """Write README.md of an exported run.

    Args:
        folder: where to.
        run: the run.
        name: of the run.
        facts: its provenance, as far as it is exported.
        measured: its metrics, by the name of the evaluation.
    """
    data = ModelCardData(
        base_model=None if Path(run.recipe.model).exists() else _hub_name(run.recipe.model),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["recommendation", "catalign", f"objective-{run.recipe.objective.name}"],
        model_name=name,
        eval_results=_results(measured, run.recipe.dataset.name) or None,
    )
    history = list(range(min(EXAMPLE_ITEMS, len(run.catalogue))))
    prompt = run.prompter.prompt(history)
    body = BODY.format(
        name=name,
        items=len(run.catalogue),
        version=facts["versions"]["catalign"],
        base=_base(run),
        first_id=repr(run.catalogue.item_ids[0]),
        template=run.prompter.template.name,
        examples=len(history),
        prompt=fenced(str(run.model.tokenizer.decode(prompt))),
        tokens=len(prompt),
        longest=int(run.prompter.trie.depth.max()),
        data=_data(facts["dataset"], run.recipe.dataset.name),
        results=_table(measured),
        training=_training(run, facts),
    )
    (folder / CARD).write_text(f"---\n{data.to_yaml()}\n---\n\n{body}", encoding="utf-8")


def fenced(text: str) -> str:
    """Text as a code block that nothing in it can close."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}text\n{text}\n{fence}"


def _hub_name(model: str) -> str | None:
    """The name of a base model on the hub; None for what was a folder."""
    return model if re.fullmatch(r"[\w.-]+/[\w.-]+", model) else None


def _base(run: Run) -> str:
    how = "with all weights" if run.recipe.lora is None else f"with LoRA of rank {run.recipe.lora.rank}, merged"
    return f"It began as `{Path(run.recipe.model).name}` and was trained {how}; stage `{run.recipe.stage}`."


def _results(measured: dict[str, dict[str, Any]], dataset: str) -> list[EvalResult]:
    """What the hub shows; intervals stand in the arguments of the metric."""
    return [
        EvalResult(
            task_type="recommendation",
            task_name="Next item",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=evaluation.split("-")[0],
            dataset_args={"evaluation": evaluation, "windows": metrics["n"]},
            metric_type=metric,
            metric_value=metrics[metric],
            metric_name=metric.upper(),
            metric_args={"ci95": metrics["ci95"][metric], "over": metrics.get("ci95_over", "windows")},
        )
        for evaluation, metrics in measured.items()
        for metric in _shown(metrics)
    ]


def _shown(metrics: dict[str, Any]) -> Sequence[str]:
    return [name for name in SHOWN if name in metrics and name in metrics.get("ci95", {})]


def _table(measured: dict[str, dict[str, Any]]) -> str:
    rows = [
        f"| {evaluation} | {metrics['n']:,} | {metric.upper()} | {metrics[metric]:.4f} | "
        f"{metrics['ci95'][metric][0]:.4f} – {metrics['ci95'][metric][1]:.4f} |"
        for evaluation, metrics in measured.items()
        for metric in _shown(metrics)
    ]
    if not rows:
        return "None: `catalign evaluate` was not run before the export."
    head = "| evaluation | windows | metric | value | 95 % interval |\n|---|---:|---|---:|---|"
    return "\n".join([head, *rows, "", "Further metrics: `evaluations/*/metrics.json`."])


def _data(dataset: dict[str, Any], name: str) -> str:
    splits = "; ".join(f"{split} {counts['windows']:,}" for split, counts in dataset["splits"].items())
    sources = "\n".join(
        f"- `{source['name']}`, SHA-256 `{source['sha256']}`" for source in dataset["sources"] if "sha256" in source
    )
    told = (
        f"`{name}`: {dataset['users']:,} users, {dataset['items']:,} items, {dataset['interactions']:,} interactions; "
        f"windows: {splits}. Split: {dataset['split_rule']}."
    )
    return f"{told}\n\n{sources}" if sources else told


def _training(run: Run, facts: dict[str, Any]) -> str:
    """What produced the weights."""
    training, versions = facts["training"], facts["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Objective `{run.recipe.objective.name}`, seed {facts['seed']}, epoch {training['best_epoch']:g} of "
        f"{training['epochs_run']:g} (chosen on: {training['chosen_on']}), {training['steps']:,} steps. Started "
        f"{facts['started']}, source {facts.get('source') or 'an installed package'}. Versions: {packages}. "
        "Everything: `recipe.yaml`, `provenance.json`."
    )

"""One step of DMPO, published flow against ours: `python -m benchmarks.preference_step --quick --json`.

A step is what lies between a list of window numbers and the gradient of the adapter: collation, reference, forward,
backward; no optimiser. The policy is the model with a LoRA adapter, the reference the same model without it.

Published flow: for every example its k + 1 titles as rows of prompt and title, examples sorted by length and padded
in buckets of whole examples (32 rows, more where one example has more), logits of every position over the vocabulary,
their log-softmax at the titles' tokens summed; the same rows once more without gradient for the reference. Ours:
`PreferenceBatches` and `PreferenceModule`, all examples in one pass; first with the reference taken in the same step,
as after a refresh of the negatives (`ratio`), then with the reference of the cache, as in any other step
(`ratio_cached`).

Memory is compared with all examples in one pass on both sides, as far as the published flow then stays within
`--memory`; what it takes in buckets of 32 rows stands beside it.
"""

import argparse
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch.nn.functional import logsigmoid

from benchmarks import published
from benchmarks.setting import SEED, Setting, make_parser, make_setting, parse_options, print_result
from benchmarks.timing import Pairs, alternating_runs, peak_growth
from benchmarks.training_step import (
    BUCKET,
    TOLERANCE,
    Step,
    backward,
    batch_shape,
    differences,
    first_batch,
    gradients,
    moved,
    rows_within,
)
from catalign.model.loading import Lora, add_lora
from catalign.model.reference import reference_weights
from catalign.training.negatives import Negatives, drawn_negatives
from catalign.training.preference_module import PreferenceBatches, PreferenceModule, PreferenceObjective

Ints = npt.NDArray[np.int64]
Side = Literal["published", "published in buckets", "ours", "ours cached"]
ADAPTER_SCALE = 0.05  # of the adapter's second factor, which starts at 0: policy and reference shall differ


def make_policy(options: argparse.Namespace) -> Setting:
    """What is measured."""
    return with_adapter(make_setting(options))


def with_adapter(setting: Setting) -> Setting:
    """The setting with an adapter on the model that makes it answer otherwise than the reference."""
    model = add_lora(setting.model, Lora(), SEED).eval()
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * ADAPTER_SCALE)
    return replace(setting, model=model)


def draw_negatives(setting: Setting, count: int) -> Ints:
    """Uniform negatives of all training windows."""
    train, trie = setting.train, setting.prompter.trie
    settings = Negatives(kind="uniform", count=count)
    # Neither items nor training counts bear on a uniform draw.
    return drawn_negatives(
        settings, trie, pl.DataFrame(), np.zeros(trie.items, dtype=np.int64), train.histories, train.target_S, SEED
    )


def make_batches(setting: Setting, options: argparse.Namespace) -> PreferenceBatches:
    """Our batches, with negatives and without a reference yet."""
    objective = PreferenceObjective(score=options.score)
    batches = PreferenceBatches(setting.train, setting.prompter, scores=objective.scores, row_tokens=options.row_tokens)
    batches.change(draw_negatives(setting, options.negatives))
    return batches


def our_step(setting: Setting, options: argparse.Namespace, *, cached: bool) -> Step:
    """The step as `catalign train --stage preference` does it."""
    numbers, batches = first_batch(setting, options.examples, options.batching), make_batches(setting, options)
    objective = PreferenceObjective(score=options.score)
    module = PreferenceModule(setting.model, objective, setting.prompter.trie).to(setting.model.device).train()

    def take_reference() -> None:
        with torch.no_grad(), reference_weights(setting.model):
            score_S = module.log_probabilities(**moved(batches(numbers), setting))
        batches.reference_SC[numbers] = score_S.view(len(numbers), -1).cpu().numpy()

    def step() -> tuple[float, list[torch.Tensor]]:
        if not cached:
            take_reference()
        loss = module(**moved(batches(numbers), setting))["loss"]
        backward(loss)
        return float(loss.detach()), gradients(setting)

    take_reference()
    return step


def published_step(setting: Setting, options: argparse.Namespace, bucket: int) -> Step:
    """Buckets of whole examples, at most so many rows (or one example), padded; gradients are accumulated."""
    numbers, batches = first_batch(setting, options.examples, options.batching), make_batches(setting, options)
    model, trie, prompter = setting.model, setting.prompter.trie, setting.prompter
    objective = PreferenceObjective()
    padding = int(model.tokenizer.pad_token_id)
    collate = published.Collator(published.AllowedTokens(trie, padding), len(model.head_VH), padding)
    titles = [published.title_tokens(trie, trie.item_title[items]) for items in batches.item_SC[numbers]]
    longest = np.array([max(map(len, some)) for some in titles])

    def bucket_loss(prompts: list[published.TokenArray], chosen: npt.NDArray[np.intp]) -> torch.Tensor:
        """The loss of some examples, summed."""
        row_titles = [title for example in chosen for title in titles[example]]
        row_prompts = [prompts[example] for example in chosen for _ in titles[example]]
        rows: published.PaddedRows
        if options.score == "valid":
            rows = masked = collate(row_prompts, row_titles).to(model.device)
            valid_BTV = masked.valid_BTV
        else:
            rows, valid_BTV = published.pad_right(row_prompts, row_titles, padding).to(model.device), None
        with torch.no_grad(), reference_weights(model):
            reference_B = published.row_scores(model, rows, valid_BTV)
        ratio_BC = (published.row_scores(model, rows, valid_BTV) - reference_B).view(len(chosen), -1)
        return -logsigmoid(objective.beta * (ratio_BC[:, 0] - ratio_BC[:, 1:].mean(dim=1))).sum()

    def step() -> tuple[float, list[torch.Tensor]]:
        prompts = [prompter.prompt(setting.train.histories[number]) for number in numbers]
        length = longest + [len(prompt) for prompt in prompts]
        order, total = np.argsort(-length, kind="stable"), 0.0
        while len(order):
            rows = min(bucket, rows_within(setting, length[order[0]], options.memory * 1e9))
            count = max(rows // (options.negatives + 1), 1)
            chosen, order = order[:count], order[count:]
            loss = bucket_loss(prompts, chosen) / len(numbers)
            backward(loss)
            total += float(loss.detach())
        return total, gradients(setting)

    return step


def make_step(setting: Setting, side: Side, options: argparse.Namespace) -> Step:
    """One of the ways of doing the step."""
    if side.startswith("ours"):
        return our_step(setting, options, cached=side == "ours cached")
    rows = options.examples * (options.negatives + 1)
    return published_step(setting, options, BUCKET if side == "published in buckets" else rows)


def prepare_step(side: Side, options: argparse.Namespace) -> Step:
    """A step for a process of its own."""
    torch.set_num_threads(options.threads)
    return make_step(make_policy(options), side, options)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Compare results, time and memory."""
    weighed: tuple[Side, ...] = ("published", "published in buckets", "ours")
    timed: tuple[Side, ...] = ("published in buckets", "ours", "ours cached")
    peaks = {side: peak_growth(prepare_step, side, options) for side in weighed}
    setting = make_policy(options)
    theirs, mine, cached = (make_step(setting, side, options) for side in timed)
    result = theirs()
    difference = {"ours": differences(result, mine()), "ours cached": differences(result, cached())}
    their_runs, our_runs, cached_runs = alternating_runs([theirs, mine, cached], options.pairs)
    summary = Pairs(their_runs[0], our_runs[0], their_runs[1], our_runs[1]).summary()
    summary_cached = Pairs(their_runs[0], cached_runs[0], their_runs[1], cached_runs[1]).summary()
    batch = make_batches(setting, options)(first_batch(setting, options.examples, options.batching))
    return {
        **summary,
        "ratio_cached": summary_cached["ratio"],
        "ratio_cached_range": summary_cached["ratio_range"],
        "cached": {name: summary_cached[name] for name in ("our_seconds", "our_cpu_seconds", "cpu_ratio")},
        "cached_runs": summary_cached["runs"]["ours"],
        "same": max(max(found.values()) for found in difference.values()) <= TOLERANCE,
        "loss": result[0],
        "difference": difference,
        "memory_ratio": round(peaks["published"] / peaks["ours"], 2),
        "peak_megabytes": {side: round(peak / 1e6, 1) for side, peak in peaks.items()},
        "shape": {
            "examples": options.examples,
            "negatives": options.negatives,
            "score": options.score,
            "batching": options.batching,
            **batch_shape(batch),
            **setting.describe(),
        },
    }


def main() -> None:
    """Parse the options, measure, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--examples", type=int, help="windows of the step (8; 4 with --quick)")
    parser.add_argument("--negatives", type=int, default=3, help="k")
    parser.add_argument("--score", choices=["valid", "full"], default="full")
    parser.add_argument("--batching", choices=["by-user", "shuffled"], default="by-user")
    parser.add_argument("--row-tokens", type=int, default=768, help="longest row of the forest")
    parser.add_argument("--memory", type=float, default=6.0, help="GB that a pass of the published flow may take")
    options = parse_options(parser)
    options.examples = options.examples or (4 if options.quick else 8)
    print_result(measure(options), options.json)


if __name__ == "__main__":
    main()

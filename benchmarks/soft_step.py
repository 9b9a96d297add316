"""One step of SOFT, published flow against ours: `python -m benchmarks.soft_step --quick --json`.

A step is what lies between a list of window numbers and the gradient of all weights: collation, forward, backward; no
optimiser. Its loss is (1 - lambda) L(real titles) + lambda L(teacher's answers), each L a mean over all its target
positions; the answers are titles drawn by training counts, which cost what the answers of a teacher cost.

Published flow: two passes, one over rows of prompt and real title and one over rows of prompt and answer, each sorted
by length and padded in buckets of 32 rows, logits of every position over the vocabulary (`msl`: with a dense mask).
Ours: `SoftBatches` and `SoftModule`, both answers behind one prompt, all windows in one pass.

Memory is compared with all windows in one pass on both sides, as far as the published flow then stays within
`--memory`; what it takes in buckets of 32 rows stands beside it.
"""

import argparse
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from benchmarks import published
from benchmarks.setting import SEED, Setting, make_parser, make_setting, parse_options, print_result
from benchmarks.timing import alternating_pairs, peak_growth
from benchmarks.training_step import (
    BUCKET,
    TOLERANCE,
    Step,
    batch_shape,
    differences,
    first_batch,
    gradients,
    rows_within,
)
from catalign.training.batches import BatchMaker
from catalign.training.module import Objective
from catalign.training.soft_module import SoftBatches, SoftModule

Side = Literal["published", "published in buckets", "ours"]
LAMBDA = 0.5


def answer_items(setting: Setting) -> npt.NDArray[np.int64]:
    """What stands for the teacher's answer to every training window: an item drawn by training counts."""
    return np.random.default_rng(SEED).permutation(setting.train.target_S)


def make_batches(setting: Setting, options: argparse.Namespace) -> SoftBatches:
    """Our batches."""
    answers = pl.DataFrame({"items": answer_items(setting)[:, None].tolist(), "scores": [[0.0]] * len(setting.train)})
    scores = Objective(name=options.objective).scores
    maker = BatchMaker(setting.train, setting.prompter, scores=scores, row_tokens=options.row_tokens)
    return SoftBatches(maker, answers, None, "all")


def our_step(setting: Setting, options: argparse.Namespace) -> Step:
    """The step as `catalign train --stage soft` does it."""
    numbers, batches = first_batch(setting, options.windows, options.batching), make_batches(setting, options)
    objective = Objective(name=options.objective, denominator="all")
    module = SoftModule(setting.model, objective, setting.prompter.trie)
    module.weight = LAMBDA

    def step() -> tuple[float, list[torch.Tensor]]:
        loss = module(**batches(numbers))["loss"]
        torch.autograd.backward(loss)
        return float(loss.detach()), gradients(setting)

    return step


def published_step(setting: Setting, options: argparse.Namespace, bucket: int) -> Step:
    """Two passes, each in buckets of at most so many rows of similar length, padded; gradients are accumulated."""
    numbers, model, trie = first_batch(setting, options.windows, options.batching), setting.model, setting.prompter.trie
    answer_S, padding = answer_items(setting), int(model.tokenizer.pad_token_id)
    collate = published.Collator(published.AllowedTokens(trie, padding), len(model.head_VH), padding)

    def one_pass(prompts: list[published.TokenArray], items: npt.NDArray[np.int64], weight: float) -> float:
        titles = published.title_tokens(trie, trie.item_title[items])
        length = np.array([len(prompt) + len(title) for prompt, title in zip(prompts, titles, strict=True)])
        order, positions, total = np.argsort(-length, kind="stable"), sum(map(len, titles)), 0.0
        while len(order):
            count = min(bucket, rows_within(setting, length[order[0]], options.memory * 1e9))
            chosen, order = order[:count], order[count:]
            row_prompts, row_titles = [prompts[row] for row in chosen], [titles[row] for row in chosen]
            if options.objective == "msl":
                loss = published.masked_loss(model, collate(row_prompts, row_titles))
            else:
                loss = published.language_loss(model, published.pad_right(row_prompts, row_titles, padding))
            loss = weight * loss / positions
            torch.autograd.backward(loss)
            total += float(loss.detach())
        return total

    def step() -> tuple[float, list[torch.Tensor]]:
        total = 0.0
        for item_S, weight in ((setting.train.target_S, 1 - LAMBDA), (answer_S, LAMBDA)):
            prompts = [setting.prompter.prompt(setting.train.histories[number]) for number in numbers]
            total += one_pass(prompts, item_S[numbers], weight)
        return total, gradients(setting)

    return step


def make_step(setting: Setting, side: Side, options: argparse.Namespace) -> Step:
    """One of the ways of doing the step."""
    if side == "ours":
        return our_step(setting, options)
    return published_step(setting, options, BUCKET if side == "published in buckets" else options.windows)


def prepare_step(side: Side, options: argparse.Namespace) -> Step:
    """A step for a process of its own."""
    torch.set_num_threads(options.threads)
    return make_step(make_setting(options), side, options)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Compare results, time and memory."""
    sides: tuple[Side, ...] = ("published", "published in buckets", "ours")
    peaks = {side: peak_growth(prepare_step, side, options) for side in sides}
    setting = make_setting(options)
    theirs, mine = (make_step(setting, side, options) for side in sides[1:])
    result = theirs()
    difference = differences(result, mine())
    numbers = first_batch(setting, options.windows, options.batching)
    batch = make_batches(setting, options)(numbers)
    return {
        **alternating_pairs(theirs, mine, options.pairs).summary(),
        "same": max(difference.values()) <= TOLERANCE,
        "loss": result[0],
        "difference": difference,
        "memory_ratio": round(peaks["published"] / peaks["ours"], 2),
        "peak_megabytes": {side: round(peak / 1e6, 1) for side, peak in peaks.items()},
        "shape": {
            "windows": options.windows,
            "objective": options.objective,
            "batching": options.batching,
            "users": len(np.unique(setting.train.user_S[numbers])),
            **batch_shape(batch),
            **setting.describe(),
        },
    }


def main() -> None:
    """Parse the options, measure, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--windows", type=int, help="windows of the step (64; 16 with --quick)")
    parser.add_argument("--objective", choices=["lml", "msl"], default="lml", help="the inner objective; lml published")
    parser.add_argument("--batching", choices=["by-user", "shuffled"], default="by-user")
    parser.add_argument("--row-tokens", type=int, default=512, help="longest row of the forest")
    parser.add_argument("--memory", type=float, default=6.0, help="GB that a pass of the published flow may take")
    options = parse_options(parser)
    options.windows = options.windows or (16 if options.quick else 64)
    print_result(measure(options), options.json)


if __name__ == "__main__":
    main()

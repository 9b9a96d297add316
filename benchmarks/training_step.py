"""One training step of MSL, published flow against ours: `python -m benchmarks.training_step --quick --json`.

A step is what lies between a list of window numbers and the gradient of all weights: collation, forward, backward; no
optimiser. Published flow: rows of prompt and title sorted by length and padded bucket by bucket, logits of every
position over the vocabulary, a dense mask [batch, time, vocabulary]. Ours: `BatchMaker` and `TrainingModule`, all
windows in one pass. Both average over all target positions, at temperature 1.

Time is compared with buckets of 32 rows, which hold little padding and so suit the published flow best. Memory is
compared with all windows in one pass on both sides, as far as the published flow then stays within `--memory`; what it
takes in buckets of 32 stands beside it.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import published
from benchmarks.setting import SEED, Setting, make_parser, make_setting, parse_options, print_result
from benchmarks.timing import alternating_pairs, peak_growth
from catalign.training.batches import BatchMaker
from catalign.training.module import Objective, TrainingModule
from catalign.training.trainer import WindowOrder

Step = Callable[[], tuple[float, list[Tensor]]]
TOLERANCE = 1e-4  # of loss and gradient in float32, relative to the largest value
BUCKET = 32
VALUES_KEPT = 40  # float32 values of the model's width that a layer keeps for the backward pass, about


def first_batch(setting: Setting, windows: int, batching: str = "by-user") -> list[int]:
    """Window numbers of the first batch of an epoch."""
    return list(WindowOrder(setting.train, by_user=batching == "by-user", seed=SEED))[:windows]


def batch_shape(batch: dict[str, Tensor]) -> dict[str, Any]:
    """Sizes of a packed batch: tokens before and after merging, rows of the forest, positions that carry loss."""
    before, after = batch["token_counts"].tolist()
    rows = list(batch["token_RN"].shape)
    return {"tokens": before, "nodes": after, "rows": rows, "scored_positions": len(batch["node_P"])}


def moved(batch: dict[str, Tensor], setting: Setting) -> dict[str, Tensor]:
    """A packed batch on the model's device."""
    return {name: value.to(setting.model.device) for name, value in batch.items()}


def backward(loss: Tensor) -> None:
    """The backward pass, outside of autocast as in a trainer."""
    with torch.autocast(loss.device.type, enabled=False):
        torch.autograd.backward(loss)


def gradients(setting: Setting) -> list[Tensor]:
    """The gradients that a step left on the weights that train, taken away from the model."""
    kept = []
    for weight in setting.model.parameters():
        if not weight.requires_grad:
            continue
        assert weight.grad is not None
        kept.append(weight.grad)
        weight.grad = None
    return kept


def our_step(setting: Setting, numbers: list[int], row_tokens: int) -> Step:
    """The step as `catalign train` does it."""
    trie = setting.prompter.trie
    module = TrainingModule(setting.model, Objective(name="msl", denominator="all"), trie).to(setting.model.device)
    batches = BatchMaker(setting.train, setting.prompter, scores="valid", row_tokens=row_tokens)

    def step() -> tuple[float, list[Tensor]]:
        loss = module(**moved(batches(numbers), setting))["loss"]
        backward(loss)
        return float(loss.detach()), gradients(setting)

    return step


def rows_within(setting: Setting, tokens: int, memory: float) -> int:
    """Rows of so many tokens whose logits, their gradient, mask and activations fit into `memory` bytes."""
    config = setting.model.base.config.get_text_config()
    logits = (4 + 4 + 1) * len(setting.model.head_VH)
    activations = 4 * VALUES_KEPT * config.hidden_size * config.num_hidden_layers
    return max(int(memory / (tokens * (logits + activations))), 1)


def published_step(setting: Setting, numbers: list[int], bucket: int, memory: float) -> Step:
    """Buckets of at most so many rows of similar length, padded; gradients are accumulated."""
    model, trie = setting.model, setting.prompter.trie
    padding = int(model.tokenizer.pad_token_id)
    collate = published.Collator(published.AllowedTokens(trie, padding), len(model.head_VH), padding)
    titles = published.title_tokens(trie, trie.item_title[setting.train.target_S[numbers]])

    def step() -> tuple[float, list[Tensor]]:
        prompts = [setting.prompter.prompt(setting.train.histories[number]) for number in numbers]
        length = np.array([len(prompt) + len(title) for prompt, title in zip(prompts, titles, strict=True)])
        order, positions, total = np.argsort(-length, kind="stable"), sum(map(len, titles)), 0.0
        while len(order):
            count = min(bucket, rows_within(setting, length[order[0]], memory))
            chosen, order = order[:count], order[count:]
            rows = collate([prompts[row] for row in chosen], [titles[row] for row in chosen]).to(model.device)
            loss = published.masked_loss(model, rows) / positions
            backward(loss)
            total += float(loss.detach())
        return total, gradients(setting)

    return step


def prepare_step(bucket: int | None, options: argparse.Namespace) -> Step:
    """The published step in such buckets, or ours, for a process of its own."""
    torch.set_num_threads(options.threads)
    setting = make_setting(options)
    numbers = first_batch(setting, options.windows)
    if bucket is None:
        return our_step(setting, numbers, options.row_tokens)
    return published_step(setting, numbers, bucket, options.memory * 1e9)


def differences(theirs: tuple[float, list[Tensor]], mine: tuple[float, list[Tensor]]) -> dict[str, float]:
    """Relative difference of the losses, and the largest of any gradient, relative to that gradient's largest value."""
    pairs = zip(theirs[1], mine[1], strict=True)
    return {
        "loss": abs(theirs[0] - mine[0]) / abs(theirs[0]),
        "gradient": max(float((their - my).abs().max() / their.abs().max()) for their, my in pairs),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Compare results, time and memory."""
    whole_peak, bucket_peak, our_peak = (
        peak_growth(prepare_step, bucket, options) for bucket in (options.windows, BUCKET, None)
    )
    setting = make_setting(options)
    numbers = first_batch(setting, options.windows)
    theirs = published_step(setting, numbers, BUCKET, options.memory * 1e9)
    mine = our_step(setting, numbers, options.row_tokens)
    difference = differences(theirs(), mine())
    result = alternating_pairs(theirs, mine, options.pairs).summary()
    batch = BatchMaker(setting.train, setting.prompter, scores="valid", row_tokens=options.row_tokens)(numbers)
    return {
        **result,
        "same": max(difference.values()) <= TOLERANCE,
        "difference": difference,
        "memory_ratio": round(whole_peak / our_peak, 2),
        "published_peak_megabytes": round(whole_peak / 1e6, 1),
        "published_peak_megabytes_in_buckets": round(bucket_peak / 1e6, 1),
        "our_peak_megabytes": round(our_peak / 1e6, 1),
        "windows_per_second": {
            "published": round(options.windows / result["published_seconds"], 1),
            "ours": round(options.windows / result["our_seconds"], 1),
        },
        "shape": {
            "windows": options.windows,
            "users": len(np.unique(setting.train.user_S[numbers])),
            **batch_shape(batch),
            "pairs_of_position_and_token": len(batch["symbol_E"]),
            **setting.describe(),
        },
    }


def main() -> None:
    """Parse the options, measure, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--windows", type=int, help="windows of the step (128; 32 with --quick)")
    parser.add_argument("--row-tokens", type=int, help="longest row of the forest (512; 256 with template plain)")
    parser.add_argument("--memory", type=float, default=6.0, help="GB that a pass of the published flow may take")
    options = parse_options(parser)
    options.windows = options.windows or (32 if options.quick else 128)
    options.row_tokens = options.row_tokens or (256 if options.template == "plain" else 512)
    print_result(measure(options), options.json)


if __name__ == "__main__":
    main()

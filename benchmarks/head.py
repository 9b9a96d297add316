"""The head and the masked loss, published flow against ours: `python -m benchmarks.head --quick --json`.

Published flow: logits of every position over the whole vocabulary, a boolean mask of the same shape, a masked softmax
at the target positions, backward to hidden states and head. Ours: logits of the valid children at branching positions
only. Both get the same hidden states, head and titles of a generated catalogue, and yield the same loss and gradients.
The head is the vocabulary's, so both sides end in a gradient [vocabulary, width]; with a frozen head (LoRA) ours has
less to do.

Legend: B = prompts; T = positions of a prompt with its title; V = vocabulary; H = width; P = target positions;
E = (branching position, valid child) pairs.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import alternating_pairs, peak_growth
from benchmarks.trie import END_TOKEN, generate_titles
from catalign.catalogue import TitleTrie
from catalign.objectives import masked_softmax_losses, reduce_losses, valid_logits

VOCABULARY = 128_256  # Llama 3
PROMPT_TOKENS = 165  # the published prompts, about
TITLES = 10_000
SEED = 0


@dataclass(frozen=True)
class Batch:
    """One training batch as both sides see it.

    Attributes:
        hidden_NH: hidden states of all B * T positions, end to end.
        head_VH: the output head.
        target_P: the rows of `hidden_NH` that predict a title token.
        gold_P: the token that each predicts.
        pair_position: for every valid child of every target position, the position in [0, P).
        pair_token: its token.
        time: T.
    """

    hidden_NH: Tensor
    head_VH: Tensor
    target_P: Tensor
    gold_P: Tensor
    pair_position: Tensor
    pair_token: Tensor
    time: int


def make_batch(prompts: int, width: int) -> Batch:
    """Draw titles of a generated catalogue as targets of random hidden states."""
    generator = torch.Generator().manual_seed(SEED)
    tokens, offsets = generate_titles(TITLES, SEED)
    trie = TitleTrie.build(tokens, offsets, end_token=END_TOKEN)
    node, start = trie.paths(np.random.default_rng(SEED).integers(TITLES, size=prompts))
    length = np.diff(start)
    step = np.arange(len(node)) - np.repeat(start[:-1], length)  # of each target in its title
    time = PROMPT_TOKENS + int(length.max())
    target = np.repeat(np.arange(prompts), length) * time + PROMPT_TOKENS - 1 + step
    first_child, last_child = trie.child_start[trie.parent[node]], trie.child_start[trie.parent[node] + 1]
    children = last_child - first_child
    position = np.repeat(np.arange(len(node)), children)
    child = np.arange(children.sum()) - np.repeat(children.cumsum() - children, children) + first_child[position]
    spread = torch.randperm(VOCABULARY, generator=generator)  # the title tokens lie anywhere in the vocabulary
    return Batch(
        hidden_NH=torch.randn(prompts * time, width, generator=generator).requires_grad_(),
        head_VH=(torch.randn(VOCABULARY, width, generator=generator) * (2 / width**0.5)).requires_grad_(),
        target_P=torch.from_numpy(target),
        gold_P=spread[torch.from_numpy(trie.token[node].astype(np.int64))],
        pair_position=torch.from_numpy(position),
        pair_token=spread[torch.from_numpy(trie.token[child].astype(np.int64))],
        time=time,
    )


def published_flow(batch: Batch) -> Callable[[], tuple[Tensor, ...]]:
    """Return the dense computation; the mask is made here, as a collator would, and not timed."""
    mask_NV = torch.zeros(len(batch.hidden_NH), VOCABULARY, dtype=torch.bool)
    mask_NV[batch.target_P[batch.pair_position], batch.pair_token] = True
    hidden_BTH = batch.hidden_NH.detach().view(-1, batch.time, batch.hidden_NH.shape[1]).requires_grad_()
    mask_BTV = mask_NV.view(-1, batch.time, VOCABULARY)

    def run() -> tuple[Tensor, ...]:
        logits_BTV = hidden_BTH @ batch.head_VH.T
        prompt, step = batch.target_P // batch.time, batch.target_P % batch.time
        logits_PV = logits_BTV[prompt, step].masked_fill(~mask_BTV[prompt, step], -torch.inf)
        loss = torch.nn.functional.cross_entropy(logits_PV, batch.gold_P)
        gradient_BTH, gradient_VH = torch.autograd.grad(loss, (hidden_BTH, batch.head_VH))
        return loss.detach(), gradient_BTH.flatten(0, 1), gradient_VH

    return run


def our_flow(batch: Batch) -> Callable[[], tuple[Tensor, ...]]:
    """Return the gathered computation; the pairs of branching positions are made here, as a collator would."""
    valid_P = torch.bincount(batch.pair_position)
    branching_P = valid_P > 1
    kept = branching_P[batch.pair_position]
    position_E, token_E = (branching_P.cumsum(0) - 1)[batch.pair_position[kept]], batch.pair_token[kept]
    gold_P = torch.nonzero(token_E == batch.gold_P[branching_P][position_E]).squeeze(1)
    target_P = batch.target_P[branching_P]

    def run() -> tuple[Tensor, ...]:
        logits_E = valid_logits(batch.hidden_NH.index_select(0, target_P), batch.head_VH, position_E, token_E)
        losses_P = masked_softmax_losses(logits_E, position_E, gold_P)
        total, count = reduce_losses(losses_P, "all", len(batch.target_P))
        loss = total / count
        return loss.detach(), *torch.autograd.grad(loss, (batch.hidden_NH, batch.head_VH))

    return run


def whole_published_flow(prompts: int, width: int) -> Callable[[], object]:
    """Return mask and computation as one piece of work, for its memory."""
    batch = make_batch(prompts, width)
    return lambda: published_flow(batch)()


def our_whole_flow(prompts: int, width: int) -> Callable[[], object]:
    """Return pairs and computation as one piece of work, for its memory."""
    batch = make_batch(prompts, width)
    return lambda: our_flow(batch)()


def errors(published: tuple[Tensor, ...], ours: tuple[Tensor, ...]) -> dict[str, float]:
    """Return the largest differences, relative to the largest value of each result."""
    names = ("loss", "gradient_hidden", "gradient_head")
    return {
        name: float((theirs - mine).abs().max() / theirs.abs().max())
        for name, theirs, mine in zip(names, published, ours, strict=True)
    }


def measure(prompts: int, width: int, pairs: int) -> dict[str, object]:
    """Compare results, time and memory of both flows."""
    published_peak = peak_growth(whole_published_flow, prompts, width)
    our_peak = peak_growth(our_whole_flow, prompts, width)
    batch = make_batch(prompts, width)
    dense, gathered = published_flow(batch), our_flow(batch)
    difference = errors(dense(), gathered())
    valid_P = torch.bincount(batch.pair_position)
    return {
        **alternating_pairs(dense, gathered, pairs).summary(),
        "same": max(difference.values()) <= 1e-5,
        "difference": difference,
        "memory_ratio": round(published_peak / our_peak, 2),
        "published_peak_megabytes": round(published_peak / 1e6, 1),
        "our_peak_megabytes": round(our_peak / 1e6, 1),
        "shape": {
            "prompts": prompts,
            "positions": batch.time,
            "vocabulary": VOCABULARY,
            "width": width,
            "targets": len(batch.target_P),
            "branching": int((valid_P > 1).sum()),
            "pairs": int(valid_P[valid_P > 1].sum()),
        },
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--width", type=int, help="of the hidden states (256; 64 with --quick)")
    parser.add_argument("--pairs", type=int, help="alternating pairs of runs (7; 5 with --quick)")
    parser.add_argument("--quick", action="store_true", help="width 64, 5 pairs; about 4 GB and a minute all the same")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    width, pairs = (64, 5) if options.quick else (256, 7)
    result = measure(options.prompts, options.width or width, options.pairs or pairs)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:>25} {value}")


if __name__ == "__main__":
    main()

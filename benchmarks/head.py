"""The head and the masked loss, published flow against ours: `python -m benchmarks.head --quick --json`.

Published flow: logits of every position over the whole vocabulary, a boolean mask of the same shape, a masked softmax
at the target positions, backward to hidden states and head. Ours: logits of the valid children at branching positions
only. Both get the same hidden states, head and titles of a generated catalogue, and yield the same loss and gradients.
The head is the vocabulary's, so both sides end in a gradient [vocabulary, width], most of what is left of our time and
memory; `--frozen-head` is the published setting (LoRA on other layers). `--forms` compares the ways to compute the
valid logits instead, on a packed batch of a small model.

Legend: B = prompts; T = positions of a prompt with its title; V = vocabulary; H = width; P = target positions;
E = (branching position, valid child) pairs.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import alternating_pairs, peak_growth
from benchmarks.trie import END_TOKEN, generate_titles
from catalign.catalogue import TitleTrie
from catalign.objectives import masked, masked_softmax_losses, reduce_losses, valid_logits

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
        alphabet_A: the tokens of all titles, ascending.
        time_steps: T.
    """

    hidden_NH: Tensor
    head_VH: Tensor
    target_P: Tensor
    gold_P: Tensor
    pair_position: Tensor
    pair_token: Tensor
    alphabet_A: Tensor
    time_steps: int


def make_batch(prompts: int, width: int, frozen_head: bool) -> Batch:
    """Draw titles of a generated catalogue as targets of random hidden states."""
    generator = torch.Generator().manual_seed(SEED)
    tokens, offsets = generate_titles(TITLES, SEED)
    trie = TitleTrie.build(tokens, offsets, end_token=END_TOKEN)
    node, start = trie.paths(np.random.default_rng(SEED).integers(TITLES, size=prompts))
    length = np.diff(start)
    step = np.arange(len(node)) - np.repeat(start[:-1], length)  # of each target in its title
    time_steps = PROMPT_TOKENS + int(length.max())
    target = np.repeat(np.arange(prompts), length) * time_steps + PROMPT_TOKENS - 1 + step
    first_child, last_child = trie.child_start[trie.parent[node]], trie.child_start[trie.parent[node] + 1]
    children = last_child - first_child
    position = np.repeat(np.arange(len(node)), children)
    child = np.arange(children.sum()) - np.repeat(children.cumsum() - children, children) + first_child[position]
    spread = torch.randperm(VOCABULARY, generator=generator)  # the title tokens lie anywhere in the vocabulary
    return Batch(
        hidden_NH=torch.randn(prompts * time_steps, width, generator=generator).requires_grad_(),
        head_VH=(torch.randn(VOCABULARY, width, generator=generator) * (2 / width**0.5)).requires_grad_(
            not frozen_head
        ),
        target_P=torch.from_numpy(target),
        gold_P=spread[torch.from_numpy(trie.token[node].astype(np.int64))],
        pair_position=torch.from_numpy(position),
        pair_token=spread[torch.from_numpy(trie.token[child].astype(np.int64))],
        alphabet_A=spread[torch.from_numpy(trie.alphabet.astype(np.int64))].sort().values,
        time_steps=time_steps,
    )


def gradients(loss: Tensor, hidden: Tensor, head: Tensor) -> tuple[Tensor, ...]:
    """Return the gradient of the hidden states and, unless it is frozen, of the head."""
    return torch.autograd.grad(loss, (hidden, head) if head.requires_grad else (hidden,))


def published_flow(batch: Batch) -> Callable[[], tuple[Tensor, ...]]:
    """Return the dense computation; the mask is made here, as a collator would, and not timed."""
    mask_NV = torch.zeros(len(batch.hidden_NH), VOCABULARY, dtype=torch.bool)
    mask_NV[batch.target_P[batch.pair_position], batch.pair_token] = True
    hidden_BTH = batch.hidden_NH.detach().view(-1, batch.time_steps, batch.hidden_NH.shape[1]).requires_grad_()
    mask_BTV = mask_NV.view(-1, batch.time_steps, VOCABULARY)

    def run() -> tuple[Tensor, ...]:
        logits_BTV = hidden_BTH @ batch.head_VH.T
        prompt, step = batch.target_P // batch.time_steps, batch.target_P % batch.time_steps
        logits_PV = logits_BTV[prompt, step].masked_fill(~mask_BTV[prompt, step], -torch.inf)
        loss = torch.nn.functional.cross_entropy(logits_PV, batch.gold_P)
        gradient_BTH, *gradient_head = gradients(loss, hidden_BTH, batch.head_VH)
        return loss.detach(), gradient_BTH.flatten(0, 1), *gradient_head

    return run


def branching_pairs(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the branching rows of `hidden_NH`, the position and token of their pairs, and their gold pair."""
    valid_P = torch.bincount(batch.pair_position)
    branching_P = valid_P > 1
    kept = branching_P[batch.pair_position]
    position_E, token_E = (branching_P.cumsum(0) - 1)[batch.pair_position[kept]], batch.pair_token[kept]
    gold_P = torch.nonzero(token_E == batch.gold_P[branching_P][position_E]).squeeze(1)
    return batch.target_P[branching_P], position_E, token_E, gold_P


def our_flow(batch: Batch) -> Callable[[], tuple[Tensor, ...]]:
    """Return the gathered computation; the pairs of branching positions are made here, as a collator would."""
    target_P, position_E, token_E, gold_P = branching_pairs(batch)

    def run() -> tuple[Tensor, ...]:
        logits_E = valid_logits(batch.hidden_NH.index_select(0, target_P), batch.head_VH, position_E, token_E)
        losses_P = masked_softmax_losses(logits_E, position_E, gold_P)
        total, count = reduce_losses(losses_P, "all", len(batch.target_P))
        loss = total / count
        return loss.detach(), *gradients(loss, batch.hidden_NH, batch.head_VH)

    return run


def whole_published_flow(prompts: int, width: int, frozen_head: bool) -> Callable[[], object]:
    """Return mask and computation as one piece of work, for its memory."""
    batch = make_batch(prompts, width, frozen_head)
    return lambda: published_flow(batch)()


def our_whole_flow(prompts: int, width: int, frozen_head: bool) -> Callable[[], object]:
    """Return pairs and computation as one piece of work, for its memory."""
    batch = make_batch(prompts, width, frozen_head)
    return lambda: our_flow(batch)()


def errors(published: tuple[Tensor, ...], ours: tuple[Tensor, ...]) -> dict[str, float]:
    """Return the largest differences, relative to the largest value of each result."""
    names = ("loss", "gradient_hidden", "gradient_head")[: len(published)]
    return {
        name: float((theirs - mine).abs().max() / theirs.abs().max())
        for name, theirs, mine in zip(names, published, ours, strict=True)
    }


def measure(prompts: int, width: int, pairs: int, frozen_head: bool) -> dict[str, object]:
    """Compare results, time and memory of both flows."""
    published_peak = peak_growth(whole_published_flow, prompts, width, frozen_head)
    our_peak = peak_growth(our_whole_flow, prompts, width, frozen_head)
    batch = make_batch(prompts, width, frozen_head)
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
            "positions": batch.time_steps,
            "vocabulary": VOCABULARY,
            "width": width,
            "frozen_head": frozen_head,
            "targets": len(batch.target_P),
            "branching": int((valid_P > 1).sum()),
            "pairs": int(valid_P[valid_P > 1].sum()),
        },
        "threads": torch.get_num_threads(),
    }


def measure_forms(prompts: int, width: int, runs: int) -> dict[str, object]:
    """Time the ways to compute the valid logits, loss and backward included, over the compact alphabet.

    One product over the alphabet; one over the children of the batch (`MANY_CHILDREN` 0); the mixture (32 is the
    default); one inner product for each pair. The median of `runs` runs that take turns.
    """
    batch = make_batch(prompts, width, frozen_head=False)
    target_P, position_E, token_E, gold_P = branching_pairs(batch)
    symbol_E = torch.searchsorted(batch.alphabet_A, token_E)
    hidden_PH = batch.hidden_NH.detach()[target_P].requires_grad_()
    head_AH = batch.head_VH.detach()[batch.alphabet_A].requires_grad_()

    def alphabet_product() -> Tensor:
        return (hidden_PH @ head_AH.T).flatten().index_select(0, position_E * len(head_AH) + symbol_E)

    def seconds(many_children: int | None) -> float:
        masked.MANY_CHILDREN = many_children or 0
        started = time.perf_counter()
        alphabet_form = many_children is None
        logits_E = alphabet_product() if alphabet_form else valid_logits(hidden_PH, head_AH, position_E, symbol_E)
        torch.autograd.grad(masked_softmax_losses(logits_E, position_E, gold_P).mean(), (hidden_PH, head_AH))
        return time.perf_counter() - started

    forms = {"alphabet": None, **{f"many_children_{many}": many for many in (0, 8, 16, 32, 64, 128)}, "pairs": 10**9}
    rounds = [{name: seconds(many) for name, many in forms.items()} for _ in range(runs + 1)][1:]
    return {
        "seconds": {name: round(statistics.median(row[name] for row in rounds), 4) for name in forms},
        "branching": len(target_P),
        "pairs": len(token_E),
        "alphabet": len(batch.alphabet_A),
        "width": width,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--width", type=int, help="of the hidden states (256; 64 with --quick)")
    parser.add_argument("--pairs", type=int, help="alternating pairs of runs (7; 5 with --quick)")
    parser.add_argument("--quick", action="store_true", help="width 64, 5 pairs; about 4 GB and a minute all the same")
    parser.add_argument("--frozen-head", action="store_true", help="no gradient for the head")
    parser.add_argument("--forms", action="store_true", help="compare the ways to compute the valid logits instead")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    width, pairs = (64, 5) if options.quick else (256, 7)
    if options.forms:
        result = measure_forms(options.prompts, options.width or width, options.pairs or pairs)
    else:
        result = measure(options.prompts, options.width or width, options.pairs or pairs, options.frozen_head)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:>25} {value}")


if __name__ == "__main__":
    main()

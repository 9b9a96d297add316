"""Exact scores of 20 candidates per user, published flow against ours: `python -m benchmarks.ranking --quick --json`.

Published flow: for each user the prompt repeated before every candidate, padded, the logits of every position. Ours:
`score_candidates`, all users and candidates as one prefix forest. `full` (the published log-probabilities) is over the
whole vocabulary, `valid` over the tokens that continue a title.
"""

from typing import Any

import numpy as np
import torch

from benchmarks import published
from benchmarks.setting import SEED, Setting, make_parser, make_setting, parse_options, print_result
from benchmarks.timing import alternating_pairs
from catalign.decoding.candidates import score_candidates
from catalign.decoding.scores import ScoreMode

TOLERANCE = 1e-4  # of the summed log-probabilities, relative to the largest


def measure(
    setting: Setting, users: int, candidates: int, score: ScoreMode, row_tokens: int, pairs: int
) -> dict[str, Any]:
    """Compare results and time."""
    model, prompter = setting.model, setting.prompter
    histories = setting.long_histories(users)
    random = np.random.default_rng(SEED)
    chosen = [random.choice(prompter.trie.items, candidates, replace=False) for _ in histories]
    padding = int(model.tokenizer.pad_token_id)
    collate = published.Collator(published.AllowedTokens(prompter.trie, padding), len(model.head_VH), padding)
    prompts = [prompter.prompt(history) for history in histories]
    titles = [published.title_tokens(prompter.trie, prompter.trie.item_title[items]) for items in chosen]

    @torch.no_grad()
    def theirs() -> torch.Tensor:
        rows = zip(prompts, titles, strict=True)
        return torch.stack([published.title_scores(model, collate, prompt, some, score) for prompt, some in rows])

    def ours() -> torch.Tensor:
        return torch.from_numpy(
            np.stack(score_candidates(model, prompter, histories, chosen, score=score, row_tokens=row_tokens))
        )

    their_scores, our_scores = theirs(), ours()
    difference = float((their_scores - our_scores).abs().max() / their_scores.abs().max())
    return {
        **alternating_pairs(theirs, ours, pairs).summary(),
        "same": difference <= TOLERANCE,
        "difference": difference,
        "shape": {
            "users": users,
            "candidates": candidates,
            "score": score,
            "row_tokens": row_tokens,
            "mean_prompt_tokens": round(float(np.mean([len(prompt) for prompt in prompts])), 1),
            **setting.describe(),
        },
    }


def main() -> None:
    """Parse the options, measure, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--score", choices=["valid", "full"], default="full")
    parser.add_argument("--row-tokens", type=int, default=512, help="longest row of the forest")
    options = parse_options(parser)
    setting = make_setting(options)
    result = measure(setting, options.users, options.candidates, options.score, options.row_tokens, options.pairs)
    print_result(result, options.json)


if __name__ == "__main__":
    main()

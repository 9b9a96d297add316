"""Search in a large catalogue against a small one: `python -m benchmarks.catalogue_size --quick --json`.

Generated titles, the same model of random weights and the same prompts; the smaller catalogue is the beginning of the
larger. `ratio` is the time in the larger over the time in the smaller one (named `published` and `ours` in `runs`).
`same` says that every score found, in both, is that of a plain forward pass over prompt and title.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import published
from benchmarks.setting import SEED, make_parser, parse_options, print_result, random_model
from benchmarks.timing import alternating_pairs
from benchmarks.trie import END_TOKEN, FIRST_TOKEN, VOCABULARY, generate_titles
from catalign.catalogue.trie import TitleTrie
from catalign.decoding.search import FoundTitles, search_titles
from catalign.decoding.trie_tensors import TrieTensors
from catalign.model.embedded import build_tokenizer
from catalign.model.language_model import LanguageModel

BEAMS = 10
PROMPT_TOKENS = 165  # the published prompts, about
HEADER_TOKENS = 68  # shared by all
TOLERANCE = 1e-3


def make_prompts(users: int) -> list[published.TokenArray]:
    """Random tokens behind a common header."""
    tokens = np.random.default_rng(SEED).integers(FIRST_TOKEN, VOCABULARY, (users, PROMPT_TOKENS), dtype=np.int32)
    tokens[:, :HEADER_TOKENS] = tokens[0, :HEADER_TOKENS]
    return list(tokens)


@torch.no_grad()
def largest_error(
    model: LanguageModel, trie: TitleTrie, prompts: list[published.TokenArray], found: FoundTitles
) -> float:
    """For the users of these prompts, the largest difference to log-probabilities from plain forward passes."""
    errors = []
    for prompt, titles, scores in zip(prompts, found.title_BK.numpy(), found.score_BK.numpy(), strict=False):
        for title, score in zip(titles, scores, strict=True):
            node, _ = trie.paths([trie.items_of(title)[0]])
            tokens = np.concatenate([prompt, trie.token[node]]).astype(np.int64)
            logits_TV = model.base(input_ids=torch.from_numpy(tokens)[None]).logits[0, len(prompt) - 1 : -1].double()
            exact = 0.0
            for logits_V, child in zip(logits_TV, node, strict=True):
                valid = torch.from_numpy(trie.token[trie.children(trie.parent[child])].astype(np.int64))
                exact += float(logits_V[int(trie.token[child])] - logits_V[valid].logsumexp(0))
            errors.append(abs(exact - float(score)))
    return max(errors)


def measure(preset: str, users: int, large: int, small: int, pairs: int) -> dict[str, Any]:
    """Compare the times and check the scores."""
    unused_tokenizer = build_tokenizer(["a title"], 259)
    model, prompts = random_model(preset, VOCABULARY, unused_tokenizer), make_prompts(users)
    tokens, offsets = generate_titles(large, SEED)
    tries = [
        TitleTrie.build(tokens[: offsets[count]], offsets[: count + 1], end_token=END_TOKEN) for count in (large, small)
    ]
    tensors = [TrieTensors.of(trie, torch.device("cpu")) for trie in tries]

    def search_in(place: int) -> Callable[[], FoundTitles]:
        return lambda: search_titles(model, tensors[place], prompts, beams=BEAMS)

    in_large, in_small = search_in(0), search_in(1)
    found = in_large(), in_small()
    errors = [largest_error(model, trie, prompts[:2], titles) for trie, titles in zip(tries, found, strict=True)]
    return {
        **alternating_pairs(in_large, in_small, pairs).summary(),
        "same": max(errors) <= TOLERANCE,
        "score_error": max(errors),
        "shape": {
            "users": users,
            "beams": BEAMS,
            "titles": [trie.titles for trie in tries],
            "children_of_the_root": [len(trie.children(0)) for trie in tries],
            "alphabet": [len(trie.alphabet) for trie in tries],
            "preset": preset,
            "threads": torch.get_num_threads(),
        },
    }


def main() -> None:
    """Parse the options, measure, print."""
    parser = make_parser(__doc__, own_data=False)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--large", type=int, help="titles (1,000,000; 100,000 with --quick)")
    parser.add_argument("--small", type=int, default=10_000)
    options = parse_options(parser)
    large = options.large or (100_000 if options.quick else 1_000_000)
    result = measure(options.preset, options.users, large, options.small, options.pairs)
    print_result(result, options.json)


if __name__ == "__main__":
    main()

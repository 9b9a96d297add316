"""Time and memory of building the title trie from token ids: `python -m benchmarks.trie --titles 1000000 --json`.

The titles are generated: a brand, a product line of the brand, a kind of product and a few variant words, each spelled
with one to three tokens; brands and kinds follow a Zipf law, as in shops. A mean title has about 12 tokens, end token
included; some titles repeat.
"""

import argparse
import json
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from catalign.catalogue import TitleTrie

END_TOKEN = 2
FIRST_TOKEN = 3
VOCABULARY = 8_192
Result = TypeVar("Result")


def generate_titles(titles: int, seed: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Titles as flat tokens and offsets [titles + 1], each closed by END_TOKEN."""
    rng = np.random.default_rng(seed)
    words = 30_000
    spelling = rng.integers(FIRST_TOKEN, VOCABULARY, size=(words, 3), dtype=np.int32)
    word_tokens = rng.choice([1, 2, 3], size=words, p=[0.5, 0.35, 0.15])
    brand = rng.zipf(1.3, size=titles) % 4_000
    line = 4_000 + (brand * 7 + rng.integers(0, 12, size=titles)) % 6_000
    kind = 10_000 + rng.zipf(1.2, size=titles) % 2_000
    variants = rng.integers(1, 7, size=titles)
    word = np.full((titles, 9), -1, dtype=np.int64)  # one row of words per title, -1 where there is none
    word[:, 0], word[:, 1], word[:, 2] = brand, line, kind
    for position in range(6):
        drawn = 12_000 + rng.zipf(1.15, size=titles) % 18_000
        word[:, 3 + position] = np.where(variants > position, drawn, -1)
    tokens = spelling[word]
    spelled = (word >= 0)[:, :, None] & (np.arange(3) < word_tokens[word][:, :, None])
    closed = np.full((titles, 28), END_TOKEN, dtype=np.int32)
    closed[:, :-1] = tokens.reshape(titles, -1)
    kept = np.ones((titles, 28), dtype=np.bool_)
    kept[:, :-1] = spelled.reshape(titles, -1)
    offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int64)
    return closed[kept], offsets


def resident_bytes() -> int:
    """Memory of this process that is in RAM now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def with_peak_memory(work: Callable[[], Result]) -> tuple[Result, int]:
    """Run `work`; also return by how many bytes the resident memory grew at most, sampled every 2 ms."""
    before = resident_bytes()
    peak = before
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = work()
    finally:
        done.set()
        watcher.join()
    return result, max(peak, resident_bytes()) - before


def measure(titles: int, seed: int) -> dict[str, object]:
    """Build the trie of generated titles once and report seconds, megabytes and what came out."""
    tokens, offsets = generate_titles(titles, seed)
    popularity = np.random.default_rng(seed).zipf(1.5, size=titles) % 10_000
    started = time.perf_counter()
    trie, grown = with_peak_memory(lambda: TitleTrie.build(tokens, offsets, end_token=END_TOKEN, popularity=popularity))
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    allowed = np.random.default_rng(seed).random(titles) < 0.1
    restricted = int(trie.restrict(allowed).sum())
    return {
        "titles": titles,
        "tokens": len(tokens),
        "mean_tokens": round(len(tokens) / titles, 2),
        "distinct_titles": trie.titles,
        "nodes": trie.nodes,
        "build_seconds": round(seconds, 2),
        "peak_megabytes": round(grown / 1e6, 1),
        "restrict_seconds": round(time.perf_counter() - started, 3),
        "nodes_of_a_tenth": restricted,
    }


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--titles", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="20,000 titles")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    result = measure(20_000 if options.quick else options.titles, options.seed)
    if options.json:
        json.dump(result, sys.stdout)
        print()
    else:
        for name, value in result.items():
            print(f"{name:>20} {value}")


if __name__ == "__main__":
    main()

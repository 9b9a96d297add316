"""Top-10 search, published flow against ours: `python -m benchmarks.search --quick --json`.

Published flow: `generate` with as many beams as titles wanted, left padding, and `prefix_allowed_tokens_fn` walking a
dictionary. Ours: `search_titles`. Both get the same prompts of one batch of users.

`generate` drops beams after every token, our search after every decision (a forced run is one step), so a beam narrower
than the catalogue may keep other titles. What must agree is asserted in `same`: every score that either returns is the
exact log-probability of its title (`score_candidates`), and ours finds at least as many of the true best ten, which are
known from scoring the whole catalogue for some of the users.
"""

import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from benchmarks import published
from benchmarks.setting import Setting, make_parser, make_setting, parse_options, print_result
from benchmarks.timing import alternating_pairs
from catalign.decoding.candidates import score_candidates
from catalign.decoding.scores import ScoreMode
from catalign.decoding.search import _Search, search_titles
from catalign.decoding.trie_tensors import TrieTensors

Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
Histories = list[npt.NDArray[np.uint32]]
TOLERANCE = 1e-3  # of summed log-probabilities in float32


def flows(
    setting: Setting, histories: Histories, beams: int, score: ScoreMode
) -> tuple[Callable[[], Found], Callable[[], Found]]:
    """The two searches; what does not depend on the users is prepared here."""
    model, trie = setting.model, setting.prompter.trie
    prompts = [setting.prompter.prompt(history) for history in histories]
    allowed = published.AllowedTokens(trie, int(model.tokenizer.pad_token_id), model.device)
    tensors = TrieTensors.of(trie, model.device)
    longest = int(trie.depth.max())

    def generate() -> Found:
        return published.search(model, allowed, prompts, beams=beams, score=score, longest_title=longest)

    def ours() -> Found:
        found = search_titles(model, tensors, prompts, beams=beams, score=score)
        return found.title_BK.cpu().numpy(), found.score_BK.cpu().numpy()

    return generate, ours


def exact_scores(
    setting: Setting, histories: Histories, titles: list[npt.NDArray[np.int64]], score: ScoreMode
) -> list[npt.NDArray[np.float32]]:
    """Log-probabilities of titles, without a search."""
    trie = setting.prompter.trie
    items = [trie.title_items[trie.title_items_start[chosen]] for chosen in titles]
    return score_candidates(setting.model, setting.prompter, histories, items, score=score, row_tokens=512)


def largest_error(setting: Setting, histories: Histories, found: Found, score: ScoreMode) -> float:
    """The largest difference between the scores that a search returns and the exact ones."""
    titles, scores = found
    real = titles >= 0
    chosen = [row[kept] for row, kept in zip(titles, real, strict=True)]
    exact = np.concatenate(exact_scores(setting, histories, chosen, score))
    return float(np.abs(exact - scores[real]).max())


def recall(best: list[npt.NDArray[np.int64]], found: Found) -> float:
    """Share of the true best titles that a search finds."""
    return float(np.mean([np.isin(true, titles).mean() for true, titles in zip(best, found[0], strict=False)]))


def agreement(
    setting: Setting, histories: Histories, theirs: Found, mine: Found, score: ScoreMode, users: int
) -> dict[str, Any]:
    """How far the two lists agree, whether their scores are exact, and who is nearer to the exhaustive ranking."""
    error = {
        "published": largest_error(setting, histories, theirs, score),
        "ours": largest_error(setting, histories, mine, score),
    }
    everything = [np.arange(setting.prompter.trie.titles)]
    beams = theirs[0].shape[1]
    best = [
        np.argsort(-exact_scores(setting, [history], everything, score)[0], kind="stable")[:beams]
        for history in histories[:users]
    ]
    recalls = {"published": round(recall(best, theirs), 3), "ours": round(recall(best, mine), 3)}
    return {
        "same": max(error.values()) <= TOLERANCE and recalls["ours"] >= recalls["published"],
        "same_top1": round(float((theirs[0][:, 0] == mine[0][:, 0]).mean()), 3),
        "same_top10": round(float((theirs[0] == mine[0]).all(axis=1).mean()), 3),
        "shared_of_top10": round(recall(list(theirs[0]), mine), 3),
        "recall_of_exhaustive": recalls,
        "score_error": error,
    }


def model_share(setting: Setting, work: Callable[[], object], runs: int) -> dict[str, Any]:
    """Processor seconds of our search, in all, in the decoder and in the head over the vocabulary (`full`), of the
    median run; and the decoder's calls. What is left is the search itself: the trie, the masks, Python."""
    spent = {"decoder": 0.0, "head": 0.0}
    shapes: list[tuple[int, ...]] = []

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            if name == "decoder":
                shapes.append(tuple(named["input_ids"].shape))
            started = time.process_time()
            result = function(*arguments, **named)
            spent[name] += time.process_time() - started
            return result

        return run

    decoder, head = setting.model.decoder, _Search._vocabulary_logsumexp
    measured = []
    with (
        mock.patch.object(decoder, "forward", timed("decoder", decoder.forward)),
        mock.patch.object(_Search, "_vocabulary_logsumexp", timed("head", head)),
    ):
        for _ in range(runs):
            spent.update(decoder=0.0, head=0.0)
            shapes.clear()
            begin = time.process_time()
            work()
            measured.append((time.process_time() - begin, spent["decoder"], spent["head"]))
    total, in_decoder, in_head = sorted(measured)[len(measured) // 2]
    return {
        "cpu_seconds": round(total, 4),
        "decoder_cpu_seconds": round(in_decoder, 4),
        "head_cpu_seconds": round(in_head, 4),
        "decoder_calls": list(shapes),
    }


def measure(setting: Setting, users: int, beams: int, score: ScoreMode, pairs: int, exhaustive: int) -> dict[str, Any]:
    """Compare results and time."""
    histories = setting.long_histories(users)
    generate, ours = flows(setting, histories, beams, score)
    result = agreement(setting, histories, generate(), ours(), score, exhaustive)
    share = model_share(setting, ours, pairs)
    in_model = share["decoder_cpu_seconds"] + share["head_cpu_seconds"]
    return {
        **alternating_pairs(generate, ours, pairs).summary(),
        **result,
        "overhead_share": round(1 - in_model / share["cpu_seconds"], 3),
        "ours_inside": share,
        "shape": {"users": users, "beams": beams, "score": score, **setting.describe()},
    }


def main() -> None:
    """Parse the options, measure, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--beams", type=int, default=10)
    parser.add_argument("--score", choices=["valid", "full"], default="valid")
    parser.add_argument("--exhaustive", type=int, default=4, help="users whose whole catalogue is scored")
    options = parse_options(parser)
    setting = make_setting(options)
    result = measure(setting, options.users, options.beams, options.score, options.pairs, options.exhaustive)
    print_result(result, options.json)


if __name__ == "__main__":
    main()

"""Self-distillation, published flow against ours: `python -m benchmarks.distillation --quick --json`.

A teacher answers training prompts with 4 beams. Published flow: `generate(num_beams=4)`, prompts padded on the left,
in the order they come. Ours: `generate_in_batches`, whose texts must be the same, token for token. Beside it our
constrained search with as many beams, whose answers are real items (`constrained`); it does another job, so there only
the time is compared.

Prompts are training windows that stand side by side in the data, as a distillation of all of them reads them, so that
the windows of one person meet; `--drawn` takes windows from anywhere, which share the instruction only.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks import published
from benchmarks.setting import SEED, Setting, make_parser, make_setting, parse_options, print_result
from benchmarks.timing import alternating_pairs
from catalign.decoding.generation import NO_TOKEN, generate_in_batches
from catalign.decoding.recommend import CatalogueSearch

BEAMS = 4
Histories = list[npt.NDArray[np.uint32]]
Answers = list[list[list[int]]]  # of every prompt the tokens of its texts, best first


def training_histories(setting: Setting, prompts: int, *, drawn: bool) -> Histories:
    """Histories of training windows, side by side or drawn."""
    windows = len(setting.train)
    random = np.random.default_rng(SEED)
    if drawn:
        numbers = random.choice(windows, prompts, replace=False)
    else:
        numbers = random.integers(windows - prompts + 1) + np.arange(prompts)
    return [setting.train.histories[number] for number in numbers]


def flows(
    setting: Setting, histories: Histories, batch_size: int
) -> tuple[Callable[[], Answers], Callable[[], Answers], Callable[[], object]]:
    """The published flow, our free generation, our constrained search."""
    model, prompter = setting.model, setting.prompter
    longest = int(prompter.trie.depth.max())
    padding = int(model.tokenizer.pad_token_id)
    search = CatalogueSearch(model, prompter, beams=BEAMS, batch_size=batch_size)

    def generate() -> Answers:
        prompts = [prompter.prompt(history) for history in histories]
        answers = []
        for start in range(0, len(prompts), batch_size):
            token_BT, mask_BT = published.pad_left(prompts[start : start + batch_size], padding)
            output = model.base.generate(  # type: ignore[operator]
                token_BT, attention_mask=mask_BT, num_beams=BEAMS, num_return_sequences=BEAMS, do_sample=False,
                max_new_tokens=longest, eos_token_id=model.end_token, pad_token_id=padding,
            )  # fmt: skip
            texts = [cut(text, model.end_token) for text in output[:, token_BT.shape[1] :].tolist()]
            answers += [texts[row : row + BEAMS] for row in range(0, len(texts), BEAMS)]
        return answers

    def free() -> Answers:
        prompts = [prompter.prompt(history) for history in histories]
        answers: Answers = [[] for _ in prompts]
        batches = generate_in_batches(model, prompts, beams=BEAMS, most_tokens=longest, batch_size=batch_size)
        for numbers, found in batches:
            for number, token_WL in zip(numbers.tolist(), found.token_BWL, strict=True):
                answers[number] = [token_L[token_L != NO_TOKEN].tolist() for token_L in token_WL]
        return answers

    return generate, free, lambda: search.recommend_all(histories, BEAMS)


def cut(text: list[int], end_token: int) -> list[int]:
    """A text up to its end token, what `generate` fills up with taken away."""
    return text[: text.index(end_token) + 1] if end_token in text else text


@torch.no_grad()
def log_probability(setting: Setting, history: npt.NDArray[np.uint32], text: list[int]) -> float:
    """Mean log-probability of a text's tokens, what beams are compared by, from one plain pass."""
    prompt = setting.prompter.prompt(history).tolist()
    log_TV = setting.model.base(torch.tensor([prompt + text])).logits[0, len(prompt) - 1 : -1].log_softmax(dim=-1)
    return float(log_TV.gather(1, torch.tensor(text)[:, None]).mean())


def agreement(setting: Setting, histories: Histories, theirs: Answers, mine: Answers) -> dict[str, Any]:
    """Whether the texts are the same, and for those that are not how far their scores are apart (rounding, if ties)."""
    pairs = [
        (history, text, other)
        for history, texts, others in zip(histories, theirs, mine, strict=True)
        for text, other in zip(texts, others, strict=True)
    ]
    apart = [
        abs(log_probability(setting, history, text) - log_probability(setting, history, other))
        for history, text, other in pairs
        if text != other
    ]
    return {"same": not apart, "texts": len(pairs), "other_texts": len(apart), "score_error": max(apart, default=0.0)}


def measure(setting: Setting, prompts: int, batch_size: int, pairs: int, *, drawn: bool) -> dict[str, Any]:
    """Compare results and time."""
    histories = training_histories(setting, prompts, drawn=drawn)
    generate, free, constrained = flows(setting, histories, batch_size)
    theirs, mine = generate(), free()
    result = agreement(setting, histories, theirs, mine)
    times = alternating_pairs(generate, free, pairs).summary()
    against_search = alternating_pairs(generate, constrained, min(pairs, 3)).summary()
    lengths = [len(setting.prompter.prompt(history)) for history in histories]
    return {
        **times,
        **result,
        "prompts_per_second": {
            "published": round(prompts / times["published_seconds"], 1),
            "ours": round(prompts / times["our_seconds"], 1),
            "constrained": round(prompts / against_search["our_seconds"], 1),
        },
        "constrained": against_search,
        "shape": {
            "prompts": prompts, "batch_size": batch_size, "beams": BEAMS, "drawn": drawn,
            "mean_prompt_tokens": round(float(np.mean(lengths)), 1),
            "mean_text_tokens": round(float(np.mean([len(text) for texts in mine for text in texts])), 2),
            **setting.describe(),
        },
    }  # fmt: skip


def main() -> None:
    """Parse the options, measure, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--prompts", type=int, help="how many (256; 32 with --quick)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--drawn", action="store_true", help="training windows from anywhere, not side by side")
    options = parse_options(parser)
    setting = make_setting(options)
    prompts = options.prompts or (32 if options.quick else 256)
    result = measure(setting, prompts, options.batch_size, options.pairs, drawn=options.drawn)
    print_result(result, options.json)


if __name__ == "__main__":
    main()

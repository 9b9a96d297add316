"""The published form of the few-shot files of DMPO, written out by hand, for tests that need no published file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STEMS = {"games": "rec_Amazon_Game", "movies": "rec_Amazon_Movie", "ml-1m": "rec_data_ml_1m"}
WORDS = {
    "games": ("Video Games", "Video Games", "shopped", "shopping"),
    "movies": ("movie", "movies", "watched", "watching"),
    "ml-1m": ("movie", "movies", "watched", "watching"),
}
Window = Any
"""history, target, negatives and (optionally) whether the prompt shows the target before each negative."""


def instruction(domain: str, history: Sequence[str], first: str, second: str) -> str:
    thing, things, past, continuous = WORDS[domain]
    shown = "".join(f" <Title:{title}> " for title in history)
    return (
        f"You are an assistant working on {thing} recommendations. Here is the user's history of {things} they have "
        f"{past}: {shown}. Rank the likelihood of the user {continuous} the two {things}  <Title:{first}>  and  "
        f"<Title:{second}> ."
    )


def ordered(first: str, second: str) -> str:
    return f" <Title:{first}> ,  <Title:{second}> "


def write_fewshot(
    folder: Path,
    train: Sequence[Window],
    test: Sequence[Window],
    *,
    domain: str = "games",
    sft_first: Sequence[bool] | None = None,
) -> Path:
    """Write the three files of a domain and return the folder; outputs as published (ML-1M evaluation: one string)."""

    def row(history: Sequence[str], target: str, negative: str, target_first: bool, both: bool) -> dict[str, Any]:
        shown = (target, negative) if target_first else (negative, target)
        right, wrong = ordered(target, negative), ordered(negative, target)
        return {"instruction": instruction(domain, history, *shown), "input": "",
                "output": [right, wrong] if both else right}  # fmt: skip

    def sides(window: Window) -> Sequence[bool]:
        return window[3] if len(window) > 3 else [True] * len(window[2])

    files: dict[str, list[dict[str, Any]]] = {"sft": [], "dpo": [], "eval": []}
    for number, window in enumerate(train):
        history, target, negatives = window[:3]
        first = sides(window)[0] if sft_first is None else sft_first[number]
        files["sft"].append(row(history, target, negatives[0], first, both=False))
        pairs = zip(negatives, sides(window), strict=True)
        files["dpo"] += [row(history, target, negative, shown, both=True) for negative, shown in pairs]
    for window in test:
        history, target, negatives = window[:3]
        files["eval"].append(row(history, target, negatives[0], sides(window)[0], both=domain != "ml-1m"))
    for name, suffix in (("sft", "sft_ranking"), ("dpo", "dpo_ranking_5"), ("eval", "eval_ranking")):
        (folder / f"{STEMS[domain]}_{suffix}.json").write_text(json.dumps(files[name], indent=1))
    return folder

"""What `benchmarks.chaos` kills: commands, how they are gone on with, where they died, what must be equal.

Everything runs on a generated shop with a model small enough for a stage to take seconds.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import load_file

from catalign.batch.folder import MANIFEST
from catalign.data.dataset import load_dataset
from catalign.evaluation.predictions import read_predictions
from catalign.files import read_json, write_json
from catalign.training.distillation import STATISTICS, read_answers
from catalign.training.run import CHECKPOINTS, PROVENANCE, RECIPE, is_finished
from catalign.training.soft_stage import DISTILLED

Arguments = list[str]
SUITE = "suite.yaml"
TRAINING = {
    "batch-size": 16, "epochs": 2, "train-examples": 96, "valid-windows": 24, "learning-rate": 1e-3,
    "logging-steps": 1, "checkpoint-steps": 2, "precision": "float32",
}  # fmt: skip
MEASURED = ("seconds", "eval_seconds", "speed/", "memory/")  # of a line of the log: what no two runs have in common
TIMED = ("seconds", "peak_memory_gb", "observed")  # of a summary


@dataclass(frozen=True)
class Stage:
    """One command that must survive.

    Attributes:
        name: of the row.
        share: of all kills.
        command: what makes the product at a place.
        product: name of the folder that it makes.
        goes_on: what is typed after a kill, where that is another command.
        finished: whether the product is complete.
        moment: where the command was, told by what it left.
        differs: what differs between the product and one that was never killed; nothing if all is equal.
        needs: stages whose finished products it starts from.
        checkpoints: folder of the product's checkpoints, which may be torn; None, there are none.
        parts: how many parts are there: kills fall when some more are, else after a random time.
    """

    name: str
    share: float
    command: Callable[[Path], Arguments]
    product: str
    finished: Callable[[Path], bool]
    moment: Callable[[Path], str]
    differs: Callable[[Path, Path], list[str]]
    goes_on: Callable[[Path], Arguments] | None = None
    needs: tuple[str, ...] = ()
    checkpoints: Callable[[Path], Path] | None = None
    parts: Callable[[Path], int] | None = None

    def next_command(self, place: Path) -> Arguments:
        """What a person types now."""
        begun = (place / RECIPE).is_file() and (place / PROVENANCE).is_file()
        return self.goes_on(place) if self.goes_on is not None and begun else self.command(place)


def make_stages(shop: Path, reference: Path) -> list[Stage]:
    """The stages, in an order in which each finds what it starts from among the finished products in `reference`."""
    dataset, sft, lora = shop / "dataset", reference / "sft", reference / "lora"
    options = [text for name, value in TRAINING.items() for text in (f"--{name}", str(value))]
    places = ["--dataset", str(dataset), "--model", str(reference / "warm-up")]
    hard = ["--negatives", "2", "--negatives-from", "hard", "--refresh-steps", "4"]

    answers = ["--stage", "soft", "--from", str(sft), "--curriculum-steps", "4", "--answers-kept", "2"]

    def training(
        name: str, share: float, needs: str, *more: str, parts: Callable[[Path], int] | None = None
    ) -> Stage:  # fmt: skip
        return Stage(
            name, share, lambda place: ["train", *options, *more, "--output", str(place)], name,
            finished=lambda place: (place / PROVENANCE).is_file() and is_finished(place),
            moment=moment_of_training, differs=training_differs,
            goes_on=lambda place: ["train", "--resume", "--output", str(place)], needs=(needs,),
            checkpoints=lambda place: place / CHECKPOINTS, parts=parts,
        )  # fmt: skip

    def warm_up(place: Path) -> Arguments:
        return ["model", "init", "--dataset", str(dataset), "--preset", "tiny", "--titles-only", "--epochs", "6",
                "--output", str(place)]  # fmt: skip

    def working(place: Path) -> Path:
        return place.with_name(f".{place.name}.warming-up")

    return [
        Stage(
            "warm-up", 0.14, warm_up, "warm-up",
            finished=lambda place: (place / "config.json").is_file(),
            moment=lambda place: moment_of_training(working(place)), differs=weights_differ,
            checkpoints=lambda place: working(place) / CHECKPOINTS,
        ),
        training("sft", 0.16, "warm-up", *places, "--objective", "msl+ats"),
        training("lora", 0.12, "warm-up", *places, "--objective", "lml", "--lora", "--lora-dropout", "0.2"),
        training("distillation", 0.08, "sft", *answers, "--train-examples", "160",
                 parts=lambda place: len(list((place / DISTILLED).glob("part-*.parquet")))),
        training("soft", 0.14, "sft", *answers),
        training("preference", 0.14, "lora", "--stage", "preference", "--from", str(lora), *hard),
        Stage(
            "evaluation", 0.08, lambda place: ["evaluate", str(sft), "--output", str(place)],
            "evaluation", finished=lambda place: (place / "metrics.json").is_file(), moment=moment_of_parts,
            differs=evaluation_differs, needs=("sft",),
        ),
        Stage(
            "recommendation", 0.08,
            lambda place: ["recommend", str(sft), "--input", str(shop / "people.parquet"), "--output", str(place),
                           "--part-rows", "16", "-k", "5"],
            "recommendation", finished=lambda place: (place / MANIFEST).is_file(), moment=moment_of_parts,
            differs=recommendation_differs, needs=("sft",),
        ),
        Stage(
            "suite", 0.06,
            lambda place: ["bench", str(shop / SUITE), "--data", str(shop), "--output", str(place),
                           "--leaderboard", str(place / "board.md")],
            "suite", finished=lambda place: (place / "board.md").is_file(), moment=moment_of_suite,
            differs=suite_differs,
        ),
    ]  # fmt: skip


def needed(stages: Sequence[Stage], names: Sequence[str]) -> list[Stage]:
    """The stages of these names, and those that they start from."""
    kept: set[str] = set(names)
    for stage in reversed(stages):
        if stage.name in kept:
            kept |= set(stage.needs)
    return [stage for stage in stages if stage.name in kept]


def make_shop(folder: Path, run: Callable[[Arguments], None]) -> None:
    """The dataset, the people to recommend to, and a suite of two methods."""
    run(["data", "sample", "--users", "80", "--items", "60", "--output", str(folder / "shop")])
    run(["data", "prepare", str(folder / "shop"), "--output", str(folder / "dataset")])
    dataset = load_dataset(folder / "dataset")
    people = dataset.windows("test").unique("user_id", keep="first", maintain_order=True).select("user_id", "history")
    items = people.explode("history")
    told = items.with_columns(history=dataset.items["item_id"].gather(items["history"]))
    told.group_by("user_id", maintain_order=True).agg("history").write_parquet(folder / "people.parquet")
    recipe = {name.replace("-", "_"): value for name, value in TRAINING.items() if not name.startswith("valid")}
    suite = {
        "name": "Chaos",
        "data": {"shop": {"source": "dataset"}},
        "models": {"tiny": {"preset": "tiny", "titles_only": True}},
        "seeds": [0],
        "recipe": {**recipe, "validation": {"windows": 24}},
        "methods": {
            "msl": {"model": "tiny", "recipe": {"objective": "msl"}},
            "dmpo": {"after": "msl", "recipe": {"stage": "preference", "epochs": 1}},
        },
    }
    write_json(folder / SUITE, suite)  # which is YAML too; last


def moment_of_training(place: Path) -> str:
    """Where a training was."""
    distilled, checkpoints = place / DISTILLED, place / CHECKPOINTS
    if not place.exists():
        return "before anything was written"
    if distilled.is_dir() and not (distilled / STATISTICS).is_file():
        return "teacher's answers"
    if any((checkpoints / ".partial").glob("*/*")):
        return "writing a checkpoint"
    if any(place.glob("*.safetensors")):
        return "saving the result"
    return "training" if any(checkpoints.glob("checkpoint-*")) else "before the first checkpoint"


def moment_of_parts(place: Path) -> str:
    """Where a command that writes parts was."""
    if not place.exists():
        return "before anything was written"
    if any(place.glob(".part-*")):
        return "writing a part"
    return "between parts" if any(place.glob("part-*.parquet")) else "before the first part"


def moment_of_suite(place: Path) -> str:
    """The step that a suite was in."""
    steps = sorted(place.glob("steps/**/*.json"), key=lambda path: path.stat().st_mtime)
    return steps[-1].stem if steps else "before the first step"


def weights_differ(place: Path, reference: Path, tolerance: float = 1e-6) -> list[str]:
    """Weights whose difference is above the tolerance, and files of weights that one folder lacks."""
    files = {path.relative_to(reference) for path in reference.rglob("*.safetensors")}
    here = {path.relative_to(place) for path in place.rglob("*.safetensors")}
    found = [f"{file} is not in both" for file in files ^ here]
    for file in files & here:
        ours, theirs = load_file(place / file), load_file(reference / file)
        same = ours.keys() == theirs.keys() and all(
            torch.allclose(ours[name], theirs[name], rtol=0, atol=tolerance) for name in theirs
        )
        found += [] if same else [f"weights in {file}"]
    return found


def training_differs(place: Path, reference: Path) -> list[str]:
    """Weights, lines of the log, the summary, the teacher's answers."""
    found = weights_differ(place, reference)
    lines, expected = (_lines(folder) for folder in (place, reference))
    if [line["step"] for line in lines] != [line["step"] for line in expected]:
        found.append("steps in the log")
    elif not all(map(_close, lines, expected)):
        found.append("values in the log")
    summaries = [_without(read_json(folder / PROVENANCE)["training"], TIMED) for folder in (place, reference)]
    if {**summaries[0], "distillation": None} != {**summaries[1], "distillation": None}:
        found.append("summary")
    if (reference / DISTILLED).is_dir():
        answers = [read_answers(folder / DISTILLED) for folder in (place, reference)]  # refuses doubled rows
        found += [] if answers[0].equals(answers[1]) else ["teacher's answers"]
    leftovers = [path.name for path in place.rglob(".*partial*")]
    return found + [f"left behind: {name}" for name in leftovers]


def evaluation_differs(place: Path, reference: Path) -> list[str]:
    """Predictions (each window once, or reading refuses them) and metrics."""
    same = read_predictions(place).equals(read_predictions(reference))
    found = [] if same else ["predictions"]
    return found + ([] if _metrics(place) == _metrics(reference) else ["metrics"])


def recommendation_differs(place: Path, reference: Path) -> list[str]:
    """Rows of all parts, in order, and the manifest."""
    rows, expected = (
        pl.concat([pl.read_parquet(part) for part in sorted(folder.glob("part-*.parquet"))])
        for folder in (place, reference)
    )
    found = [] if rows.equals(expected) else ["recommendations"]
    if rows["user_id"].is_duplicated().any():
        found.append("someone stands twice")
    left = [path.name for path in place.iterdir() if path.name not in {each.name for each in reference.iterdir()}]
    return found + [f"left behind: {name}" for name in left]


def suite_differs(place: Path, reference: Path) -> list[str]:
    """Weights of all models, predictions and metrics of all runs."""
    found = weights_differ(place, reference)
    for metrics in reference.rglob("metrics.json"):
        folder = metrics.parent.relative_to(reference)
        if (place / folder / "metrics.json").is_file() and (place / folder / "predictions.json").is_file():
            found += [f"{folder}: {what}" for what in evaluation_differs(place / folder, reference / folder)]
        elif not (place / folder / "metrics.json").is_file():
            found.append(f"{folder} is missing")
    return found


def _lines(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [_without(line, MEASURED) for line in lines]


def _close(line: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two lines have the same numbers, to 1e-6."""
    return line.keys() == other.keys() and all(
        abs(line[name] - other[name]) <= 1e-6 * max(1, abs(other[name])) for name in line
    )


def _without(values: dict[str, Any], beginnings: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.startswith(tuple(beginnings))}


def _metrics(folder: Path) -> dict[str, Any]:
    """Metrics without what tells when the model was trained."""
    metrics = read_json(folder / "metrics.json")
    return {name: value for name, value in metrics.items() if name != "produced_by"}

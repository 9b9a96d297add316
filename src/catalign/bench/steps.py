"""A suite as commands: what is typed, in which order, and what each leaves behind when it is done.

OUTPUT/shops/DATA             the generated store
OUTPUT/data/DATA              dataset folder
OUTPUT/models/DATA/MODEL-seedS
OUTPUT/recipes/DATA/METHOD-seedS.yaml
OUTPUT/runs/DATA/METHOD-seedS   with evaluations/test
OUTPUT/steps/...json          what made each of these, and when
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalign.bench.suite import Suite
from catalign.data.dataset import CARD
from catalign.files import read_json
from catalign.training.run import PROVENANCE, RECIPE, is_finished

EVALUATION = Path("evaluations") / "test"


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: which, as a path: `runs/DATA/METHOD-seedS/train`.
        arguments: behind `catalign`.
        product: the folder that it makes.
        done: whether that is complete.
        needs: names of steps before it.
        recipe: what is written into the recipe file that the command names; None where it names none.
        resume: arguments instead, where the command was interrupted and can go on.
    """

    name: str
    arguments: list[str]
    product: Path
    done: Callable[[], bool]
    needs: list[str]
    recipe: dict[str, Any] | None = None
    resume: list[str] | None = None

    @property
    def begun(self) -> bool:
        """Whether a training left something to go on with."""
        return self.resume is not None and all((self.product / file).is_file() for file in (RECIPE, PROVENANCE))


@dataclass(frozen=True)
class Row:
    """One seed of one method on one data set.

    Attributes:
        data: of the suite.
        method: of the suite.
        seed: of the training.
        run: its folder.
        last: name of the step that completes it.
    """

    data: str
    method: str
    seed: int
    run: Path
    last: str


@dataclass(frozen=True)
class Plan:
    """All steps in an order in which they can be run.

    Attributes:
        steps: name to step.
        rows: in the order of the tables.
        datasets: data set to its dataset folder.
    """

    steps: dict[str, Step]
    rows: list[Row]
    datasets: dict[str, Path]


def plan(suite: Suite, output: Path, data_root: Path) -> Plan:
    """Return what a suite takes.

    Args:
        suite: checked.
        output: where everything goes.
        data_root: folder that the sources are named from.
    """
    steps: dict[str, Step] = {}
    datasets = {}
    for data in suite.data:
        datasets[data], made = _dataset_steps(suite, data, output, data_root)
        steps |= {step.name: step for step in made}
    rows = []
    for data, folder in datasets.items():
        for method in suite.methods_on(data):
            chain = suite.chain(method)
            sources = [source for link in chain if (source := suite.methods[link].item_embeddings_from) is not None]
            for name in [*sources, *chain]:
                for seed in suite.seeds_of(method):
                    steps |= {step.name: step for step in _run_steps(suite, data, name, seed, output, folder, steps)}
        for method in suite.methods_on(data):
            last = "baseline" if suite.methods[method].baseline is not None else "evaluate"
            rows += [
                Row(data, method, seed, output / name, f"{name}/{last}")
                for seed in suite.seeds_of(method)
                for name in [run_name(data, method, seed)]
            ]
    lasts = {row.last for row in rows}  # what others only go on from needs no evaluation
    steps = {name: step for name, step in steps.items() if name in lasts or not name.endswith("/evaluate")}
    return Plan(steps, rows, datasets)


def needed(planned: Plan, wanted: Iterable[str]) -> list[Step]:
    """Return the named steps and what they need, in the order of the plan."""
    found: set[str] = set()

    def want(name: str) -> None:
        if name not in found:
            found.add(name)
            for before in planned.steps[name].needs:
                want(before)

    for name in wanted:
        want(name)
    return [step for name, step in planned.steps.items() if name in found]


def run_name(data: str, method: str, seed: int) -> str:
    """The folder of a run below the output."""
    return f"runs/{data}/{method}-seed{seed}"


def _dataset_steps(suite: Suite, name: str, output: Path, data_root: Path) -> tuple[Path, list[Step]]:
    """The dataset folder, and how it is made; nothing where the source is one already."""
    part = suite.data[name]
    made = []
    if part.shop is not None:
        source = output / "shops" / name
        size = ["--users", str(part.shop.users), "--items", str(part.shop.items)]
        made.append(_folder_step(f"shops/{name}", ["data", "sample", *size, "--output", str(source)], source,
                                 "items.csv", []))  # fmt: skip
    else:
        assert part.source is not None
        source = data_root / part.source
        if (source / CARD).is_file():
            return source, []
    options = part.prepare.model_dump(exclude_none=True)
    given = [text for option, value in options.items() for text in (f"--{option.replace('_', '-')}", str(value))]
    folder = output / "data" / name
    command = ["data", "prepare", str(source), *given, "--output", str(folder)]
    return folder, [*made, _folder_step(f"data/{name}", command, folder, CARD, [step.name for step in made])]


def _run_steps(
    suite: Suite, data: str, method: str, seed: int, output: Path, dataset: Path, before: dict[str, Step]
) -> Iterator[Step]:
    """How one run is made and evaluated, with the model that it starts from."""
    part, name = suite.methods[method], run_name(data, method, seed)
    run, needs = output / name, [f"data/{data}"] if f"data/{data}" in before else []
    if part.baseline is not None:
        budget = suite.budget.model_dump(exclude_none=True)
        given = [text for option, value in budget.items() for text in (f"--{option}", str(value))]
        command = ["baseline", part.baseline, "--dataset", str(dataset), *given, "--seed", str(seed)]
        yield _folder_step(f"{name}/baseline", [*command, "--output", str(run)], run, "metrics.json", needs)
        return
    fields: dict[str, Any] = {**suite.fields_of(method, data), "seed": seed, "dataset": str(dataset)}
    if part.after is not None:
        source = run_name(data, part.after, seed)
        fields["from"] = str(output / source)
        needs = [*needs, f"{source}/train"]
    else:
        assert part.model is not None
        model = _model_step(suite, data, part.model, seed, output, dataset, needs)
        yield model
        fields["model"] = str(model.product)
        needs = [*needs, model.name]
    if part.item_embeddings_from is not None:
        source = run_name(data, part.item_embeddings_from, seed)
        fields["item_embeddings"] = str(output / source)
        needs = [*needs, f"{source}/baseline"]
    file = output / "recipes" / data / f"{method}-seed{seed}.yaml"
    yield Step(
        f"{name}/train", ["train", str(file), "--output", str(run)], run, lambda: _trained(run), needs, fields,
        ["train", "--resume", "--output", str(run)],
    )  # fmt: skip
    folder = run / EVALUATION
    command = ["evaluate", str(run), "--output", str(folder)]
    yield _folder_step(f"{name}/evaluate", command, folder, "metrics.json", [f"{name}/train"])


def _model_step(
    suite: Suite, data: str, model: str, seed: int, output: Path, dataset: Path, needs: list[str]
) -> Step:  # fmt: skip
    part, name = suite.models[model], f"models/{data}/{model}-seed{seed}"
    flags = [f"--{flag.replace('_', '-')}" for flag in ("phrases", "titles_only") if getattr(part, flag)]
    command = [
        "model",
        "init",
        "--dataset",
        str(dataset),
        "--preset",
        part.preset,
        "--epochs",
        str(part.epochs),
        *flags,
    ]
    return _folder_step(
        name, [*command, "--seed", str(seed), "--output", str(output / name)], output / name, "config.json", needs
    )


def _folder_step(name: str, command: list[str], folder: Path, last: str, needs: list[str]) -> Step:
    """A step whose folder is complete when a file is there."""
    return Step(name, command, folder, lambda: (folder / last).is_file(), needs)


def _trained(run: Path) -> bool:
    return (run / PROVENANCE).is_file() and is_finished(run)


def record_of(step: Step) -> dict[str, Any]:
    """What a step is known by: whatever has another was made otherwise."""
    return {"command": ["catalign", *step.arguments], "recipe": step.recipe}


def read_record(step: Step, output: Path) -> dict[str, Any] | None:
    """What was written of a step when it was run; None if it never was."""
    file = record_file(step, output)
    found: dict[str, Any] | None = read_json(file) if file.is_file() else None
    return found


def record_file(step: Step, output: Path) -> Path:
    """Where the record of a step lies."""
    return output / "steps" / f"{step.name}.json"

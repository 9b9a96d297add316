"""`catalign report`: runs that answered the same windows, as one HTML file that needs nothing beside it.

The page holds no script and no address; its figures are inside. Titles and names are data, so the template escapes all.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import catalign
from catalign.data.dataset import Dataset, load_dataset
from catalign.errors import UserError
from catalign.evaluation.beyond_accuracy import Embedder
from catalign.evaluation.cells import Cell
from catalign.evaluation.comparison import Comparison, compare
from catalign.evaluation.comparison_table import grids_of, heading, notes
from catalign.evaluation.records import Evaluation, read_evaluation
from catalign.evaluation.table import four_digits
from catalign.files import whole_file
from catalign.reporting import plots
from catalign.reporting.curves import LOSS, SCHEDULES, VALID, Curve, Trained, cost_of, curve_of, read_trained
from catalign.reporting.drawing import looks_of
from catalign.reporting.samples import draw_samples

METRICS = ("ndcg@10", "hr@10")  # of the protocol of the full catalogue, where none is named
SLICES = ("history-length", "popularity", "warm", "repeat")


@dataclass(frozen=True)
class Made:
    """How one run came to be.

    Attributes:
        label: of its row.
        folder: where it lies.
        command: as it was typed.
        facts: name to value, for a table.
        recipe: every option of the training, one a line.
    """

    label: str
    folder: str
    command: str
    facts: dict[str, str]
    recipe: str


def write_report(
    paths: Sequence[Path],
    output: Path,
    *,
    command: str,
    title: str | None = None,
    dataset: Path | None = None,
    metrics: Sequence[str] = (),
    by: Sequence[str] | None = None,
    baseline: str | None = None,
    floor: bool = True,
    evaluation: str | None = None,
    embedder: Callable[[Dataset], Embedder] | None = None,
    samples: int = 4,
) -> Comparison:
    """Compare runs and write the page.

    Args:
        paths: run folders or predictions folders.
        output: the file.
        command: how this page was made, for the record.
        title: of the page; None names the dataset.
        dataset: as of `compare`, and so are metrics (none: `METRICS` for the full catalogue), `baseline`, `floor`,
            `evaluation` and `embedder`.
        by: slices; None takes `SLICES`.
        samples: users whose lists are shown.

    Raises:
        UserError: see `compare`; or a log that cannot be read.
    """
    if not paths:
        raise UserError("nothing to report", mend="give one run folder or more")
    evaluations = [read_evaluation(path, evaluation) for path in paths]
    asked = list(metrics) or (list(METRICS) if evaluations[0].protocol == "full" else [])
    comparison = compare(
        paths, dataset=dataset, metrics=asked, by=SLICES if by is None else by, baseline=baseline, floor=floor,
        evaluation=evaluation, embedder=embedder,
    )  # fmt: skip
    page = render(comparison, evaluations, command=command, title=title, samples=samples)
    with whole_file(output) as place:
        place.write_text(page, encoding="utf-8")
    return comparison


def render(
    comparison: Comparison, evaluations: Sequence[Evaluation], *, command: str, title: str | None, samples: int
) -> str:
    """Return the page.

    Args:
        comparison: the rows.
        evaluations: those that it was made of.
        command: see `write_report`.
        title: see `write_report`.
        samples: see `write_report`.
    """
    data = load_dataset(Path(comparison.dataset))
    label_of = {folder: row.label for row in comparison.rows for folder in row.folders}
    trained = [read_trained(label_of[str(found.folder)], found) for found in evaluations]
    names = list(dict.fromkeys(of.label for of in trained))
    looks = looks_of([row.label for row in comparison.rows if not row.folders], names)
    curves = {name: _curves(trained, name) for name in (LOSS, VALID, *SCHEDULES)}
    costs = [cost for of in trained if (cost := cost_of(of)) is not None]
    main, *more = grids_of(comparison)
    several = [table for table in comparison.slice_tables if len(table.slices) > 1]
    return _environment().get_template("report.html").render(
        title=title or f"Comparison on {'/'.join(data.folder.absolute().parts[-2:])}",
        comparison=comparison,
        finding=finding(comparison),
        notes=notes(comparison),
        main=main,
        estimates=plots.estimates(comparison, looks),
        learning=[part for part in (plots.validation(curves, looks), plots.losses(curves, looks)) if part],
        schedules=plots.schedules(curves, looks),
        slices=[plots.slices(comparison, table, looks) for table in several],
        lists=plots.lists(comparison, looks),
        more={"lists": [grid for grid in more if grid.headings[0] == "method"],
              "slices": [grid for grid in more if grid.headings[0] != "method"]},
        reliability=plots.reliability(comparison, looks),
        costs=costs,
        cost_picture=plots.costs(costs, looks),
        samples=[] if comparison.protocol == "pairs" else draw_samples(data, trained, samples),
        looks=looks,
        card=data.card,
        made=[_made(of) for of in trained],
        command=command,
        version=catalign.__version__,
    )  # fmt: skip


def finding(comparison: Comparison) -> str:
    """Return what the table says in a sentence, and no more than its tests allow."""
    metric = comparison.metrics[0]
    name, rows = heading(metric), comparison.rows
    best = max(rows, key=lambda row: row.metrics[metric].mean)
    cell = best.metrics[metric]
    text = f"“{best.label}” has the highest {name}, {_written(cell)}."
    if len(rows) == 1:
        return f"“{best.label}”: {name} {_written(cell)}."
    if best.label != comparison.reference:
        return text
    near = [row.label for row in rows if (d := row.metrics[metric].difference) is not None and d.p_holm >= 0.05]
    others = len(rows) - 1
    if not near:
        whom = "the other row" if others == 1 else f"all {others} other rows"
        return f"{text} It is ahead of {whom} (p < .05 after Holm)."
    listed = ", ".join(f"“{label}”" for label in near)
    return f"{text} On these windows it cannot be told apart from {listed} (p ≥ .05 after Holm)."


def _written(cell: Cell) -> str:
    return f"{four_digits(cell.mean)} ({four_digits(cell.low)} – {four_digits(cell.high)})"


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("catalign.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def _curves(trained: Sequence[Trained], name: str) -> list[Curve]:
    return [curve for of in trained if (curve := curve_of(of, name)) is not None]


def _made(trained: Trained) -> Made:
    """The provenance of a run, as far as it is known."""
    found = trained.evaluation
    provenance = found.provenance
    machine = provenance.get("machine", "")
    if isinstance(machine, dict):
        machine = ", ".join(f"{name} {value}" for name, value in machine.items())
    versions = ", ".join(f"{name} {value}" for name, value in provenance.get("versions", {}).items())
    facts = {
        "predictions": str(found.folder),
        "answered with": _told(found.settings),
        "started": provenance.get("started"),
        "resumed": len(provenance["resumed"]) if "resumed" in provenance else None,
        "source": provenance.get("source"),
        "seed": found.seed,
        "epoch chosen on": found.chosen_on,
        "trained on (SHA-256)": found.trained_on.get("windows/train.parquet", "")[:16],
        "machine": machine,
        "versions": versions,
    }
    return Made(
        trained.label, str(found.run or found.folder), str(provenance.get("command", "not known")),
        {name: str(value) for name, value in facts.items() if value not in (None, "")},
        "\n".join(f"{name}: {_told(value)}" for name, value in found.options.items()),
    )  # fmt: skip


def _told(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(inner)}" for name, inner in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""The table of a suite in Markdown: what stands, how sure it is, and how each row was made."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import catalign
from catalign.bench.steps import EVALUATION, Plan, Row, needed, read_record
from catalign.bench.suite import Suite
from catalign.data.dataset import load_dataset
from catalign.evaluation.comparison import Comparison, compare
from catalign.evaluation.comparison_table import ABSENT, LEVEL, as_markdown, heading
from catalign.files import read_json

Table = list[list[str]]


def leaderboard(suite: Suite, planned: Plan, output: Path, *, command: str) -> str:
    """Return the page; rows that are not done are named, not left out in silence.

    Args:
        suite: what was run.
        planned: its steps.
        output: where they lie.
        command: how it was called.
    """
    done = [row for row in planned.rows if planned.steps[row.last].done()]
    parts = [
        f"# {suite.name}",
        *([suite.about.strip()] if suite.about else []),
        f"    {command}",
        f"catalign {catalign.__version__}. {_how(suite, planned)}",
    ]
    for data, folder in planned.datasets.items():
        of_data = [row for row in done if row.data == data]
        missing = [row for row in planned.rows if row.data == data and row not in of_data]
        parts.append(f"## {data}")
        if of_data:
            parts += _data_parts(suite, planned, output, folder, of_data)
        if suite.data[data].without:
            parts.append(f"Left out on this set: {', '.join(suite.data[data].without)}.")
        if missing:
            names = ", ".join(f"{row.method} (seed {row.seed})" for row in missing)
            parts.append(f"**Not there yet, or failed:** {names}.")
    return "\n\n".join(parts) + "\n"


def _how(suite: Suite, planned: Plan) -> str:
    """What all rows have in common."""
    text = "Every item of the catalogue is a candidate; epochs and hyper-parameters are chosen on validation windows."
    if any(method.baseline is not None for method in suite.methods.values()):
        budget = suite.budget
        limit = "" if budget.seconds is None else f", at most {budget.seconds:g} seconds"
        text += (
            f" A baseline tries {budget.trials} settings of its grid{limit} (the same for all), at most {budget.epochs}"
            f" epochs each, patience {budget.patience}; other rows are the one setting that the suite names."
        )
    return text


def _data_parts(suite: Suite, planned: Plan, output: Path, folder: Path, rows: Sequence[Row]) -> list[str]:
    """Sizes, the comparison, how it was made."""
    card = load_dataset(folder).card
    sizes = ", ".join(f"{name} {counts.windows:,} ({counts.cold_targets:,})" for name, counts in card.splits.items())
    places = [row.run if suite.methods[row.method].baseline is not None else row.run / EVALUATION for row in rows]
    first = next((row for row in rows if row.method == suite.reference), None)
    compared = compare(
        places, dataset=folder, metrics=suite.metrics, by=suite.by, floor=suite.floor,
        baseline=None if first is None else str(first.run),
    )  # fmt: skip
    made = [_made(suite, planned, output, [row for row in rows if row.method == method])
            for method in suite.methods if any(row.method == method for row in rows)]  # fmt: skip
    verdict = _verdict(compared, [row.run for row in rows if suite.methods[row.method].baseline is None], places)
    headings = ["method", "seeds", "kept", "NDCG@10, valid", "minutes", "peak memory (GB)", "source"]
    return [
        f"{card.items:,} items, {card.users:,} users; windows (of cold targets): {sizes}. Split: {card.split_rule}.",
        *([verdict] if verdict else []),
        as_markdown(compared).rstrip(),
        "**How the rows were made** (means over the seeds)",
        _markdown([headings, *made]),
        "Commands of the first seed, in order:",
        "\n".join(f"    {line}" for line in _commands(planned, output, rows)),
    ]


def _verdict(compared: Comparison, ours: Sequence[Path], places: Sequence[Path]) -> str:
    """Whether the best row of ours beats the best other one; what the test does not say is not written."""
    metric = compared.metrics[0]
    own = [
        row for row in compared.rows if any(Path(folder).is_relative_to(run) for folder in row.folders for run in ours)
    ]
    others = [row for row in compared.rows if row not in own]
    if not own or not others:
        return ""
    best, other = (max(rows, key=lambda row: row.metrics[metric].mean) for rows in (own, others))
    floor = any(not row.folders for row in compared.rows)
    against = compare(
        places, dataset=Path(compared.dataset), metrics=[metric], floor=floor,
        baseline=other.folders[0] if other.folders else other.label,
    )  # fmt: skip
    difference = next(row for row in against.rows if row.label == best.label).metrics[metric].difference
    assert difference is not None
    test, p = difference.test, difference.p_holm
    told = f"{test.mean:+.4f} ({test.low:+.4f} to {test.high:+.4f}), p {p:.3f} after Holm"
    verb = "cannot be told from" if p >= LEVEL else "beats" if test.mean > 0 else "is behind"
    return f"The best row of ours, {best.label}, {verb} the best other, {other.label}, in {heading(metric)}: {told}."


def _made(suite: Suite, planned: Plan, output: Path, rows: Sequence[Row]) -> list[str]:
    """One line: what the trainings of a method took."""
    found = [read_json(row.run / "provenance.json") for row in rows]
    if suite.methods[rows[0].method].baseline is not None:
        kept = [_parameters(of["chosen"]) for of in found]
        valid = [of["valid"]["ndcg@10"] for of in found]
        seconds, memory = [of["seconds"] for of in found], [of.get("peak_memory_gb") for of in found]
    else:
        trainings = [of["training"] for of in found]
        kept = [f"epoch {of['best_epoch']:g} of {of['epochs_run']:g}" for of in trainings]
        valid = [of.get("valid_ndcg@10") for of in trainings]
        seconds, memory = [of["seconds"] for of in trainings], [of.get("peak_memory_gb") for of in trainings]
    records = [
        read_record(planned.steps[f"{row.run.relative_to(output)}/{_making(suite, row)}"], output) for row in rows
    ]
    sources = dict.fromkeys(str(record["source"] or ABSENT) for record in records if record is not None)
    return [
        rows[0].method, ", ".join(str(row.seed) for row in rows), "; ".join(dict.fromkeys(kept)),
        _mean(valid, "{:.4f}"), _mean([one / 60 for one in seconds], "{:.1f}"), _mean(memory, "{:.2f}"),
        ", ".join(f"`{source}`" for source in sources),
    ]  # fmt: skip


def _making(suite: Suite, row: Row) -> str:
    """The step that trained a run."""
    return "baseline" if suite.methods[row.method].baseline is not None else "train"


def _parameters(chosen: dict[str, Any]) -> str:
    parameters = [f"{name} {value}" for name, value in chosen["parameters"].items()]
    return ", ".join([*([f"epoch {chosen['epoch']}"] if chosen.get("epoch") else []), *parameters])


def _mean(values: Sequence[float | None], written: str) -> str:
    known = [value for value in values if value is not None]
    return written.format(sum(known) / len(known)) if known else ABSENT


def _commands(planned: Plan, output: Path, rows: Sequence[Row]) -> list[str]:
    """What was typed for the first seed of every method, what it needs first."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.method, row)
    steps = needed(planned, [row.last for row in first.values()])
    return [shlex.join(["catalign", *step.arguments]) for step in steps]


def _markdown(table: Table) -> str:
    lines = [[re.sub(r"\|", r"\\|", cell) for cell in row] for row in table]
    lines.insert(1, ["---", *["---:"] * (len(table[0]) - 1)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

"""A comparison in print: for the terminal, as Markdown, LaTeX, CSV or JSON.

The first three show the same grids: the rows with their differences, what the rows recommend, the metric by slices. CSV
has one line for every row, metric and slice; JSON every number that there is.
"""

import io
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from catalign.evaluation.cells import Cell
from catalign.evaluation.comparison import Comparison, Row, SliceTable
from catalign.evaluation.metrics import SAME_NUMBER
from catalign.evaluation.table import four_digits

ABSENT = "–"
LEVEL = 0.05  # of the stars in the tables of slices
WIDTH = 160  # of a table that goes into a file
_NAMES = {"accuracy": "paired accuracy", "valid_ratio": "ValidRatio"}
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "±": r"$\pm$", "×": r"$\times$", "<": "$<$",
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """A table before it has a format.

    Attributes:
        title: what it shows; empty for the first.
        headings: of the columns.
        rows: cells, each of one line or more; the first is a name.
    """

    title: str
    headings: list[str]
    rows: list[list[list[str]]]


def grids_of(comparison: Comparison) -> list[Grid]:
    """Return the tables of a comparison."""
    grids = [_main(comparison)]
    if any(row.lists for row in comparison.rows):
        grids.append(_lists(comparison))
    return [*grids, *(_slices(comparison, table) for table in comparison.slice_tables)]


def as_rich(comparison: Comparison) -> Group:
    """Return the tables for a terminal, notes and cautions below."""
    parts: list[Any] = []
    for grid in grids_of(comparison):
        table = Table(box=SIMPLE_HEAD, title=grid.title or None, title_justify="left", title_style="bold")
        longest = max(len(cells[0][0]) for cells in grid.rows)
        table.add_column(grid.headings[0], overflow="fold", min_width=min(18, longest))
        for name in grid.headings[1:]:
            table.add_column(name, justify="right", overflow="fold")
        for cells in grid.rows:
            table.add_row(*("\n".join(lines) for lines in cells))
        parts.append(table)
    told = [*notes(comparison), *(f"Caution: {caution.text}." for caution in comparison.cautions)]
    return Group(*parts, Text("\n".join(told)))


def as_terminal(comparison: Comparison) -> str:
    """Return what the terminal shows as plain text."""
    buffer = io.StringIO()
    Console(file=buffer, width=WIDTH, color_system=None, force_terminal=False).print(as_rich(comparison))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def as_markdown(comparison: Comparison) -> str:
    """Return Markdown tables, notes and cautions below."""
    parts = []
    for grid in grids_of(comparison):
        cells = [grid.headings, *([" ".join(lines) for lines in row] for row in grid.rows)]
        lines = [[cell.replace("|", "\\|") for cell in row] for row in cells]
        lines.insert(1, ["---", *["---:"] * (len(grid.headings) - 1)])
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        parts.append(f"**{grid.title}**\n\n{table}" if grid.title else table)
    cautions = [f"- *Caution:* {caution.text}." for caution in comparison.cautions]
    return "\n\n".join([*parts, " ".join(notes(comparison)), *(["\n".join(cautions)] if cautions else [])]) + "\n"


def as_latex(comparison: Comparison) -> str:
    """Return LaTeX tables (package booktabs), notes and cautions as comments."""
    parts = []
    for grid in grids_of(comparison):
        lines = [" & ".join(map(latex, grid.headings)) + r" \\", r"\midrule"]
        lines += [" & ".join(latex(" ".join(cell)) for cell in cells) + r" \\" for cells in grid.rows]
        body = "\n".join([r"\toprule", *lines, r"\bottomrule"])
        columns = "l" + "r" * (len(grid.headings) - 1)
        head = f"% {grid.title}\n" if grid.title else ""
        parts.append(f"{head}\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}")
    told = [*notes(comparison), *(f"Caution: {caution.text}." for caution in comparison.cautions)]
    return "\n\n".join([*parts, "\n".join(f"% {line}" for line in told)]) + "\n"


def as_csv(comparison: Comparison) -> str:
    """Return one line for every row, metric and slice; `slice` is empty for all windows."""
    return pl.DataFrame(list(_records(comparison)), infer_schema_length=None).write_csv()


def as_json(comparison: Comparison) -> str:
    """Return all that the comparison holds; what is not a number (a mean of nothing) is null."""
    return json.dumps(_without_nan(asdict(comparison)), indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "terminal": as_terminal, "markdown": as_markdown, "csv": as_csv, "json": as_json, "latex": as_latex,
}  # fmt: skip


def notes(comparison: Comparison) -> list[str]:
    """Return what belongs under the tables: what was ranked, intervals, tests, which names are one number."""
    ranked = {"full": "Full catalogue ranked", "pairs": "Target against negative"}
    what = ranked.get(comparison.protocol, f"Target ranked among candidates ({comparison.protocol})")
    windows = "pairs" if comparison.protocol == "pairs" else "windows"
    lines = [
        f"{what}: {comparison.windows:,} {windows} of {comparison.users:,} users, split {comparison.split}; "
        "95 % bootstrap intervals over users."
    ]
    tests = (len(comparison.rows) - 1) * len(comparison.metrics)
    if tests:
        best = "" if not comparison.reference_is_best else " (the best row of these very windows, which flatters it)"
        lines.append(
            f"Differences to {comparison.reference}{best} on the same {windows}; p by sign flips of users, corrected "
            f"after Holm for {tests} difference{'s' if tests > 1 else ''}."
        )
    if comparison.slice_tables and tests:
        lines.append(f"By slices: * differs from {comparison.reference} (p < .05 after Holm over the table).")
    names = [name.partition("@") for name in comparison.metrics]
    same = [f"{(name + at + k).upper()} is {(SAME_NUMBER[name] + at + k).upper()}" for name, at, k in names
            if name in SAME_NUMBER]  # fmt: skip
    return lines + ([f"With one target {', '.join(same)}."] if same else [])


def heading(metric: str) -> str:
    """Return a metric's name as the papers write it."""
    return _NAMES.get(metric, metric.upper())


def latex(text: str) -> str:
    """Return text with what LaTeX would take for a command written out; a minus sign is one."""
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w-])-(?=[.\d])", "$-$", escaped)


def _main(comparison: Comparison) -> Grid:
    """One line for each row: metrics, differences, seeds, what chose the epoch, how the answers were found."""
    columns = [column for name in comparison.metrics for column in (heading(name), f"difference in {heading(name)}")]
    of_pairs = ["pooled AUC"] if comparison.protocol == "pairs" else []
    rows = []
    for row in comparison.rows:
        cells = [lines for cell in row.metrics.values() for lines in (_estimate(cell), _difference(cell))]
        auc = [_interval(*row.auc) if row.auc else [ABSENT]] if of_pairs else []
        seeds = _seeds(row, comparison.metrics[0])
        rows.append([[row.label], *cells, *auc, seeds, [row.chosen_on or ABSENT], [_asked(row)]])
    return Grid("", ["method", *columns, *of_pairs, "seeds", "epoch chosen on", "search"], rows)


def _lists(comparison: Comparison) -> Grid:
    """What the rows recommend."""
    length = next(row.lists.k for row in comparison.rows if row.lists)
    headings = ["method", "coverage", "Gini", "novelty (bits)", "popularity (× targets')", "diversity", "ECE of top 1"]
    rows = []
    for row in comparison.rows:
        if row.lists:
            found = row.lists
            ratio = "" if found.popularity_ratio is None else f" (× {found.popularity_ratio:.2f})"
            rows.append([
                [row.label], [f"{found.coverage:.1%}"], [f"{found.gini:.3f}"], [f"{found.novelty:.2f}"],
                [f"{found.popularity:.1f}{ratio}"],
                [ABSENT if found.diversity is None else f"{found.diversity:.3f}"],
                [ABSENT if row.calibration is None else four_digits(row.calibration.error)],
            ])  # fmt: skip
    return Grid(f"What is recommended (first {length})", headings, rows)


def _slices(comparison: Comparison, table: SliceTable) -> Grid:
    """One line for each slice, one column for each row."""
    labels = [row.label for row in comparison.rows]
    rows = []
    for part in table.slices:
        cells = []
        for label in labels:
            cell = part.cells[label]
            star = " *" if cell.difference is not None and cell.difference.p_holm < LEVEL else ""
            first, second = _estimate(cell)
            cells.append([first + star, second])
        rows.append([[part.name], [f"{part.windows:,}"], *cells])
    return Grid(f"{heading(comparison.metrics[0])} by {table.by}", [table.by, "windows", *labels], rows)


def _estimate(cell: Cell) -> list[str]:
    return _interval(cell.mean, cell.low, cell.high)


def _interval(mean: float, low: float, high: float) -> list[str]:
    return [four_digits(mean), f"({four_digits(low)} – {four_digits(high)})"]


def _difference(cell: Cell) -> list[str]:
    """The difference, its interval, its p."""
    if cell.difference is None:
        return [ABSENT]
    test, p = cell.difference.test, cell.difference.p_holm
    return [_signed(test.mean), f"({_signed(test.low)} – {_signed(test.high)})", f"p {_probability(p)}"]


def _signed(value: float) -> str:
    """Four digits with a sign, without the leading zero."""
    return f"{value:+.4f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:+.4f}"


def _probability(p: float) -> str:
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _seeds(row: Row, metric: str) -> list[str]:
    """How many seeds, and the standard deviation between them."""
    if metric not in row.spread:
        return [ABSENT]
    spread = row.spread[metric]
    return [str(len(spread.seeds)), *([] if spread.deviation is None else [f"± {four_digits(spread.deviation)}"])]


def _asked(row: Row) -> str:
    """How the answers were found, in a few words."""
    settings = row.settings
    words = [f"{settings['beams']} beams"] if "beams" in settings else []
    words += [f"score {settings['score']}"] if settings.get("score") else []
    words += [str(settings[name]) for name in ("decoder", "prompt", "generation") if settings.get(name)]
    words += ["history left out"] if settings.get("exclude_history") else []
    return ", ".join(words) or ABSENT


def _records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """The lines of the CSV."""
    for row in comparison.rows:
        for name, cell in row.metrics.items():
            yield _record(comparison, row, name, cell, "", "", comparison.windows)
    rows = {row.label: row for row in comparison.rows}
    for table in comparison.slice_tables:
        for part in table.slices:
            for label, cell in part.cells.items():
                yield _record(comparison, rows[label], comparison.metrics[0], cell, table.by, part.name, part.windows)


def _record(
    comparison: Comparison, row: Row, metric: str, cell: Cell, by: str, name: str, windows: int
) -> dict[str, Any]:
    test = cell.difference.test if cell.difference else None
    spread = row.spread.get(metric) if not by else None
    return {
        "method": row.label, "by": by, "slice": name, "windows": windows, "metric": metric,
        "mean": cell.mean, "low": cell.low, "high": cell.high,
        "reference": comparison.reference,
        "difference": test.mean if test else None,
        "difference_low": test.low if test else None,
        "difference_high": test.high if test else None,
        "p": test.p_permutation if test else None,
        "p_holm": cell.difference.p_holm if cell.difference else None,
        "seeds": len(spread.seeds) if spread else None,
        "seed_deviation": spread.deviation if spread else None,
        "split": comparison.split, "chosen_on": row.chosen_on,
        "beams": row.settings.get("beams"), "score": row.settings.get("score"),
    }  # fmt: skip


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value

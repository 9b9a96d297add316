"""The table of results: one row per method, as a terminal table, plain text, Markdown or JSON."""

import io
import json
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

Rows = Mapping[str, Mapping[str, Any]]
"""Method name to the metrics of `metrics.summarise`, in the order of printing."""

_COLUMNS = (  # heading, part of the metrics ("" = all windows), metric
    ("NDCG@10", "", "ndcg@10"),
    ("HR@10", "", "hr@10"),
    ("MRR@10", "", "mrr@10"),
    ("NDCG@10 warm", "warm", "ndcg@10"),
    ("NDCG@10 cold", "cold", "ndcg@10"),
)
_ABSENT = "–"


def as_rich(rows: Rows) -> Group:
    """Return a rich table, each interval under its mean, and the notes; cells wrap where the terminal is narrow."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("method", overflow="fold", width=min(18, max(map(len, rows), default=0)))
    for heading, _, _ in _COLUMNS:
        table.add_column(heading.replace(" ", "\n"), justify="right", min_width=len("NDCG@10"))
    table.add_column("windows\n(cold)", justify="right", no_wrap=True)
    for method, metrics in rows.items():
        cells = ["\n".join(filter(None, _cell(metrics, part, metric))) for _, part, metric in _COLUMNS]
        table.add_row(method, *cells, "{}\n({})".format(*_windows(metrics)))
    return Group(table, Text(notes(rows)))


def as_text(rows: Rows, *, width: int = 119) -> str:
    """Return the table as plain text without colours, `width` columns wide at most."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None, force_terminal=False).print(as_rich(rows))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def as_markdown(rows: Rows) -> str:
    """Return the table as Markdown, each interval in brackets behind its mean, the notes below."""
    headings = ["method", *(heading for heading, _, _ in _COLUMNS), "windows (cold)"]
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)]]
    for method, metrics in rows.items():
        cells = ["{} ({})".format(*_cell(metrics, part, metric)).removesuffix(" ()") for _, part, metric in _COLUMNS]
        lines.append([method.replace("|", "\\|"), *cells, "{} ({})".format(*_windows(metrics))])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n{notes(rows).replace(chr(10), chr(10) * 2)}\n"


def as_json(rows: Rows) -> str:
    """Return every metric of every row as indented JSON: a list of objects with `method` first."""
    return json.dumps([{"method": method, **metrics} for method, metrics in rows.items()], indent=2, ensure_ascii=False)


def notes(rows: Rows) -> str:
    """Return the lines that belong under the table: what the intervals are over, and what produced each row."""
    over = " / ".join(dict.fromkeys(metrics["ci95_over"] for metrics in rows.values()))
    lines = [f"Full catalogue ranked; 95 % bootstrap intervals over {over}; cold: the target never occurs in training."]
    return "\n".join([*lines, *describe(rows)])


def describe(rows: Rows) -> list[str]:
    """Return a line for each row that says what produced it."""
    return [
        f"{method}: " + ", ".join(f"{key} {_value(value)}" for key, value in metrics["produced_by"].items())
        for method, metrics in rows.items()
        if "produced_by" in metrics
    ]


def _cell(metrics: Mapping[str, Any], part: str, metric: str) -> tuple[str, str]:
    """Return mean and interval as text; a dash where there are no windows or the lists are too short."""
    numbers = metrics[part] if part else metrics
    if metric not in numbers:
        return _ABSENT, ""
    low, high = numbers["ci95"][metric]
    return four_digits(numbers[metric]), f"{four_digits(low)} – {four_digits(high)}"


def four_digits(value: float) -> str:
    """Return four digits without the leading zero, as the papers print them."""
    return f"{value:.4f}".removeprefix("0")


def _windows(metrics: Mapping[str, Any]) -> tuple[str, str]:
    return f"{metrics['n']:,}", f"{metrics['cold']['n']:,}"


def _value(value: Any) -> str:
    """Return a setting in words; a nested one such as the window sample in brackets."""
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_value(inner)}" for key, inner in value.items()) + ")"
    return str(value)

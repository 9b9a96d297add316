"""The tables of all protocols; that of the full catalogue is `table.py`."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from catalign.evaluation.table import Rows, as_rich, describe, four_digits

_COLUMNS = {
    "candidates": ("hr@1", "ndcg@5", "valid_ratio"),
    "pairs": ("accuracy", "auc"),
}
_HEADINGS = {"hr@1": "HR@1", "ndcg@5": "NDCG@5", "valid_ratio": "ValidRatio",
             "accuracy": "paired\naccuracy", "auc": "pooled\nAUC"}  # fmt: skip
_NOTES = {
    "candidates": "Target among drawn candidates; 95 % bootstrap intervals over users; "
    "cold: the target never occurs in training.",
    "pairs": "Target against negative, ties half; 95 % intervals: accuracy by bootstrap over users, AUC by 1.96 "
    "standard errors; cold: the target never occurs in training.",
}


def table_of(protocol: str, rows: Rows) -> Group:
    """Return the table of a protocol (`full`, `candidates` or `pairs`), one row per method."""
    if protocol == "full":
        return as_rich(rows)
    table = Table(box=SIMPLE_HEAD)
    table.add_column("method", overflow="fold", max_width=18)
    for name in _COLUMNS[protocol]:
        table.add_column(_HEADINGS[name], justify="right", min_width=13)
    table.add_column("n\n(cold)", justify="right", no_wrap=True)
    for method, metrics in rows.items():
        cells = [_cell(metrics, name) for name in _COLUMNS[protocol]]
        table.add_row(method, *cells, f"{metrics['n']:,}\n({metrics['cold']['n']:,})")
    return Group(table, Text("\n".join([_NOTES[protocol], *describe(rows)])))


def _cell(metrics: Mapping[str, Any], name: str) -> str:
    """The mean with its interval below; a dash where a method has no such number."""
    if name not in metrics:
        return "–"
    low, high = metrics["ci95"][name]
    return f"{four_digits(metrics[name])}\n{four_digits(low)} – {four_digits(high)}"

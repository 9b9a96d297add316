"""The account of dropped rows: every one is counted by reason, the first few of each are kept."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl


@dataclass
class Ledger:
    """Counts dropped rows by table and reason.

    The frames it filters carry the columns `file` and `row`, so that a reject can be found again: the header of a CSV
    file is row 1 (blank lines do not count), the first line of any other file is row 1. Rejects show the columns up to
    `row`, the row as read; those after it are our own.

    Attributes:
        keep: how many rows of each reason the rejects file shows.
        rows_in: table -> rows that came in.
        dropped: table -> reason -> rows dropped.
        rejects: the first rows of each reason, with `table`, `reason`, `file`, `row` and the row's own columns.
    """

    keep: int = 5
    rows_in: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    rejects: list[dict[str, Any]] = field(default_factory=list)

    def enter(self, table: str, rows: int) -> None:
        """Add `rows` to what came into `table`."""
        self.rows_in[table] = self.rows_in.get(table, 0) + rows

    def drop(self, table: str, frame: pl.DataFrame, condition: pl.Expr, reason: str) -> pl.DataFrame:
        """Return `frame` without the rows where `condition` is true (null counts as false)."""
        split = frame.with_columns(condition.fill_null(False).alias("__drop"))
        gone = split.filter("__drop").drop("__drop")
        if gone.is_empty():
            return frame
        shown = gone.columns[: gone.columns.index("row") + 1]
        self.note(table, reason, gone.height, gone.head(self.keep).select(shown).to_dicts())
        return split.remove("__drop").drop("__drop")

    def note(self, table: str, reason: str, count: int, examples: list[dict[str, Any]]) -> None:
        """Count `count` rows dropped for `reason` and keep the first of `examples`."""
        reasons = self.dropped.setdefault(table, {})
        room = max(self.keep - reasons.get(reason, 0), 0)
        reasons[reason] = reasons.get(reason, 0) + count
        self.rejects += [{"table": table, "reason": reason, **example} for example in examples[:room]]

    def kept(self, table: str) -> int:
        """Return how many rows of `table` were kept."""
        return self.rows_in[table] - sum(self.dropped.get(table, {}).values())

    def reasons(self, table: str) -> str:
        """Return the drops of `table` in words, the largest first: `12 no title, 3 rating below 4`."""
        counts = sorted(self.dropped.get(table, {}).items(), key=lambda pair: -pair[1])
        return ", ".join(f"{count:,} {reason}" for reason, count in counts) or "nothing was dropped"

    def write(self, path: Path) -> None:
        """Write the kept rejects as JSON lines."""
        lines = (json.dumps(reject, ensure_ascii=False, default=str) + "\n" for reject in self.rejects)
        path.write_text("".join(lines), encoding="utf-8")

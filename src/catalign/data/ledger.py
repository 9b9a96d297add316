"""The account of rows: every dropped one is counted by reason, every changed value by rule, the first few are kept."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from catalign.data.sql import RowDigest


@dataclass
class Ledger:
    """Counts dropped rows by table and reason, and changed values by table and rule.

    The frames it filters carry the columns `file` and `row`, so that a reject can be found again: the header of a CSV
    file is row 1 (blank lines do not count), the first line of any other file is row 1. Rejects show the columns up to
    `row`, the row as read; those after it are our own. Of rows that were turned into numbers before they were dropped
    they show ids, time and rating as understood (see `show` of `sift`).

    Attributes:
        keep: how many rows of each reason the rejects file shows.
        rows_in: table -> rows that came in.
        dropped: table -> reason -> rows dropped.
        rejects: the first rows of each reason, with `table`, `reason`, `file`, `row` and the row's own columns.
        changed: table -> rule -> values changed.
        changes: the first changed values of each rule, with `table`, `rule`, `before` and `after`.
        digests: name of a query -> what came of it, as a hash stands for a file.
        hidden: keys that no reject shows, such as those that name a person.
    """

    keep: int = 5
    rows_in: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    changed: dict[str, dict[str, int]] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    digests: dict[str, RowDigest] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()

    def enter(self, table: str, rows: int) -> None:
        """Add `rows` to what came into `table`."""
        self.rows_in[table] = self.rows_in.get(table, 0) + rows

    def drop(self, table: str, frame: pl.DataFrame, condition: pl.Expr, reason: str) -> pl.DataFrame:
        """Return `frame` without the rows where `condition` is true (null counts as false)."""
        return self.sift(table, frame, {reason: condition})

    def sift(
        self,
        table: str,
        frame: pl.DataFrame,
        conditions: Mapping[str, pl.Expr],
        show: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
    ) -> pl.DataFrame:
        """Return the rows of `frame` for which no condition is true, in one pass.

        Args:
            table: the name that the rows are counted under.
            frame: the rows.
            conditions: reason -> condition; a row goes for the first that is true (null counts as false).
            show: turns dropped rows into what the rejects file shows of them; default: the columns up to `row`.
        """
        if not conditions:
            return frame
        numbered = [
            pl.when(condition).then(pl.lit(number, pl.UInt8)) for number, condition in enumerate(conditions.values())
        ]
        why = frame.select(why=pl.coalesce(numbered))["why"]
        if why.null_count() == frame.height:
            return frame
        gone, why_gone = frame.filter(why.is_not_null()), why.drop_nulls()
        for number, reason in enumerate(conditions):
            rows = gone.filter(why_gone == number)
            if not rows.is_empty():
                first = rows.head(self.keep)
                shown = first[:, : first.columns.index("row") + 1] if show is None else show(first)
                self.note(table, reason, rows.height, shown.to_dicts())
        return frame.filter(why.is_null())

    def note(self, table: str, reason: str, count: int, examples: list[dict[str, Any]]) -> None:
        """Count `count` rows dropped for `reason` and keep the first of `examples`."""
        reasons = self.dropped.setdefault(table, {})
        room = max(self.keep - reasons.get(reason, 0), 0)
        reasons[reason] = reasons.get(reason, 0) + count
        shown = [{key: value for key, value in row.items() if key not in self.hidden} for row in examples[:room]]
        self.rejects += [{"table": table, "reason": reason, **example} for example in shown]

    def change(self, table: str, rule: str, ids: pl.Series, before: pl.Series, after: pl.Series) -> None:
        """Count the values that `rule` changed and keep the first of them.

        Args:
            table: the name that they are counted under.
            rule: the name of the rule.
            ids: [rows], what to find the row by; its name is the key in the examples.
            before: [rows], the values before.
            after: [rows], the values after.
        """
        differs = before.ne_missing(after)
        count = int(differs.sum())
        if count == 0:
            return
        rules = self.changed.setdefault(table, {})
        room = max(self.keep - rules.get(rule, 0), 0)
        rules[rule] = rules.get(rule, 0) + count
        rows = differs.arg_true().head(room)
        first = pl.DataFrame([ids.gather(rows), before.gather(rows).alias("before"), after.gather(rows).alias("after")])
        self.changes += [{"table": table, "rule": rule, **example} for example in first.to_dicts()]

    def arrange(self, order: Sequence[tuple[str, str]]) -> None:
        """Put drops and rejects in the order of `order` (table, reason), so that it is not that of the rows.

        What is not named there comes first in its table, by its text.
        """
        place = {pair: number for number, pair in enumerate(order)}
        tables = list(self.rows_in)

        def position(table: str, reason: str) -> tuple[int, int, str]:
            return tables.index(table), place.get((table, reason), -1), reason

        pairs = sorted(
            (position(table, reason), table, reason) for table in self.dropped for reason in self.dropped[table]
        )
        arranged: dict[str, dict[str, int]] = {}
        for _, table, reason in pairs:
            arranged.setdefault(table, {})[reason] = self.dropped[table][reason]
        self.dropped = arranged
        self.rejects.sort(key=lambda reject: position(reject["table"], reject["reason"]))

    def examples(self, table: str, what: str) -> list[dict[str, Any]]:
        """Return the kept rows of a reason, or the kept changes of a rule, as they can stand in JSON."""
        found = [reject for reject in self.rejects if (reject["table"], reject["reason"]) == (table, what)]
        found += [change for change in self.changes if (change["table"], change["rule"]) == (table, what)]
        bare = [{key: value for key, value in row.items() if key not in ("table", "reason", "rule")} for row in found]
        plain: list[dict[str, Any]] = json.loads(json.dumps(bare, default=str))
        return plain

    def kept(self, table: str) -> int:
        """Return how many rows of `table` were kept."""
        return self.rows_in[table] - sum(self.dropped.get(table, {}).values())

    def reasons(self, table: str) -> str:
        """Return the drops of `table` in words, the largest first: `12 no title, 3 rating below 4`."""
        counts = sorted(self.dropped.get(table, {}).items(), key=lambda pair: (-pair[1], pair[0]))
        return ", ".join(f"{count:,} {reason}" for reason, count in counts) or "nothing was dropped"

    def write(self, path: Path) -> None:
        """Write the kept rejects as JSON lines."""
        lines = (json.dumps(reject, ensure_ascii=False, default=str) + "\n" for reject in self.rejects)
        path.write_text("".join(lines), encoding="utf-8")

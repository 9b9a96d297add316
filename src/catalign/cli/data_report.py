"""What `catalign data` prints."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from catalign.data.dataset import Appended, Dataset
from catalign.progress import results


def summary_line(dataset: Dataset) -> str:
    """Say in one line what was made, and in a second what was dropped."""
    card = dataset.card
    windows = ", ".join(f"{split} {counts.windows:,}" for split, counts in card.splits.items())
    counts = f"{card.items:,} items, {card.users:,} users, {card.interactions:,} interactions"
    return f"{dataset.folder}: {counts}; windows: {windows}" + _dropped(card.rows_in, card.dropped)


def appended_line(dataset: Dataset, record: Appended) -> str:
    """Say in one line what was added, and in a second what was dropped."""
    windows = ", ".join(f"{split} {count:,}" for split, count in record.windows.items() if count) or "none"
    counts = f"{record.items:,} items, {record.users:,} users, {record.interactions:,} interactions"
    line = f"{dataset.folder}: {counts} more (split: {record.split}); windows: {windows}"
    return line + _dropped(record.rows_in, record.dropped)


def _dropped(rows_in: dict[str, int], dropped: dict[str, dict[str, int]]) -> str:
    reasons = [
        f"{count:,} of {rows_in[table]:,} {table}: {reason}"
        for table, counts in dropped.items()
        for reason, count in counts.items()
    ]
    return f"\ndropped {'; '.join(reasons)} (the first of each in rejects.jsonl)" if reasons else ""


def print_description(folder: Path, description: dict[str, Any]) -> None:
    """Print the statistics of `data inspect`."""
    titles, length, counts = description["titles"], description["title_length"], description["item_counts"]
    results.print(
        f"[bold]{folder}[/bold]: {description['users']:,} users, {description['items']:,} items, "
        f"{description['interactions']:,} interactions ({description['layout']})",
    )
    results.print(f"split: {description['split_rule']}")
    results.print(
        f"titles: {titles['items_sharing']:,} items on {titles['titles_shared']:,} shared titles, "
        f"{titles['changed']:,} changed by cleaning, {titles['missing']:,} missing; "
        f"median {length['median']:.0f} characters, longest {length['longest']:,}{_strategies(titles)}",
    )
    results.print(
        f"items in training: {counts['cold']:,} cold, median {counts['median']:.0f} times, most {counts['most']:,}",
    )
    results.print(_split_table(description["splits"]))
    results.print(_trie_table(description["tries"]))
    for table, reasons in description["dropped"].items():
        for reason, count in reasons.items():
            results.print(f"dropped from {table}: {count:,} {reason}")
    for record in description["appended"]:
        results.print(
            f"appended {record['when'][:10]}: {record['items']:,} items, {record['users']:,} users, "
            f"{record['interactions']:,} interactions (split: {record['split']})"
        )
    for warning in description["warnings"]:
        results.print(f"[yellow]warning:[/yellow] {warning}")


def _split_table(splits: dict[str, Any]) -> Table:
    """One column per split: counts, shares, times, then the windows of each history length."""
    table = Table("", *splits, box=SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "windows": lambda split: f"{split['windows']:,}",
        "users": lambda split: f"{split['users']:,}",
        "cold targets": lambda split: _share(split["cold_target_share"]),
        "targets already in the history": lambda split: _share(split["target_in_history_share"]),
        "first target": lambda split: _day(split["first"]),
        "last target": lambda split: _day(split["last"]),
        "mean history length": lambda split: _mean(split["history_length"]["mean"]),
    }
    for name, value in rows.items():
        table.add_row(name, *(value(split) for split in splits.values()))
    for length in sorted({int(length) for split in splits.values() for length in split["history_length"]["windows"]}):
        counts = (split["history_length"]["windows"].get(str(length), 0) for split in splits.values())
        table.add_row(f"  history of {length}", *(f"{count:,}" for count in counts))
    return table


def _strategies(titles: dict[str, Any]) -> str:
    """What the title options did, where they did something."""
    done = [f"{titles['alone']:,} without a field of the format"] if titles["alone"] else []
    done += [f"{titles['shortened']:,} shortened"] if titles["shortened"] else []
    done += [f"{count:,} told apart by {column}" for column, count in titles["distinguished"].items()]
    return "".join(f", {part}" for part in done)


def _trie_table(tries: dict[str, dict[str, Any]]) -> Table:
    """One row per set of titles: how long they are, where they are decided, how many items share a leaf."""
    table = Table("trie of the titles", box=SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for column in ("tokens", "decided after", "forced", "first choices", "titles", "shared"):
        table.add_column(column, justify="right")
    for name, trie in tries.items():
        lengths = f"{trie['mean_length']:.1f}", f"{trie['mean_decided_after']:.1f}", _share(trie["forced_share"])
        counts = (f"{trie[count]:,}" for count in ("first_choices", "titles", "shared_leaves"))
        table.add_row(escape(name), *lengths, *counts)
    return table


def _day(milliseconds: int | None) -> str:
    return "unknown" if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d")


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _mean(mean: float | None) -> str:
    return "–" if mean is None else f"{mean:.1f}"

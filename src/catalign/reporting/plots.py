"""The figures of the report, each from plain data, with the words that say what it shows."""

import textwrap
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from catalign.evaluation.comparison import Comparison, Row, SliceTable
from catalign.evaluation.comparison_table import heading
from catalign.evaluation.table import four_digits
from catalign.reporting.curves import LOSS, SCHEDULES, VALID, Cost, Curve, Floats
from catalign.reporting.drawing import (
    GREY,
    INK,
    WIDTH,
    Look,
    Picture,
    label_ends,
    picture,
    shortened,
    style,
)

Looks = Mapping[str, Look]
Curves = Mapping[str, Sequence[Curve]]
"""Name of a quantity to the curves of the runs that have it."""

_HALO = withStroke(linewidth=2, foreground="white")
_LEFT, _RIGHT = 0.075, 0.79  # of the axes beside whose right edge names stand


def estimates(comparison: Comparison, looks: Looks) -> Picture:
    """Every metric of every row with its interval; a line stands at the row that others are compared with."""
    rows, metrics = comparison.rows, comparison.metrics
    with style():
        figure = Figure(figsize=(WIDTH, 0.95 + 0.34 * len(rows)), layout="constrained")
        axes_M = np.atleast_1d(figure.subplots(1, len(metrics), sharey=True))
        for axes, metric in zip(axes_M, metrics, strict=True):
            _dots(axes, rows, looks, [row.metrics[metric].mean for row in rows], four_digits,
                  [(row.metrics[metric].low, row.metrics[metric].high) for row in rows])  # fmt: skip
            if len(rows) > 1:
                reference = next(row for row in rows if row.label == comparison.reference)
                axes.axvline(reference.metrics[metric].mean, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
            axes.set_title(heading(metric))
        name = heading(metrics[0])
        told = "; ".join(
            f"{row.label} {four_digits(cell.mean)} ({four_digits(cell.low)} to {four_digits(cell.high)})"
            for row in rows
            for cell in [row.metrics[metrics[0]]]
        )
        dashed = f" The dashed line is {comparison.reference}." if len(rows) > 1 else ""
        caption = f"Means with 95 % bootstrap intervals over users.{dashed}"
        return picture(figure, f"{name} of every row with its 95 % interval: {told}.", caption)


def losses(curves: Curves, looks: Looks) -> Picture | None:
    """The training loss of every row, each on its own scale; None where no run has a log."""
    found = _by_label(curves.get(LOSS, ()))
    if not found:
        return None
    with style():
        figure, axes_P = _panels(len(found), height=1.8)
        for axes, (label, of_row) in zip(axes_P, found.items(), strict=False):
            for curve in of_row:
                axes.plot(curve.epochs, curve.values, color=looks[label].colour, linewidth=1.5)
            axes.set_title(shortened(label, 30), fontsize=8.5, color=looks[label].colour)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.set_xlim(left=0)
        figure.supxlabel("epoch", fontsize=9, color=INK)
        told = "; ".join(
            f"{label} from {of_row[0].values[0]:.3g} to {of_row[0].values[-1]:.3g}" for label, of_row in found.items()
        )
        caption = "Training loss. Scales differ: losses of different objectives cannot be compared with each other."
        return picture(figure, f"Training loss by epoch: {told}.", caption)


def validation(curves: Curves, looks: Looks) -> Picture | None:
    """NDCG@10 on validation windows by epoch, and by minutes where they were written; None where nothing has it."""
    found = curves.get(VALID, ())
    if not found:
        return None
    timed = [curve for curve in found if len(curve.minutes)]
    parts: list[tuple[str, Sequence[Curve], Callable[[Curve], Floats]]] = [("epoch", found, lambda c: c.epochs)]
    if timed:
        parts.append(("minutes of training", timed, lambda c: c.minutes))
    with style():
        figure = Figure(figsize=(WIDTH, 3.3 * len(parts)))
        axes_P = np.atleast_1d(figure.subplots(len(parts), 1))
        figure.subplots_adjust(left=_LEFT, right=_RIGHT, top=1 - 0.28 / (3.3 * len(parts)),
                               bottom=0.5 / (3.3 * len(parts)), hspace=0.32)  # fmt: skip
        for axes, (name, of_part, places) in zip(axes_P, parts, strict=True):
            for curve in of_part:
                best = int(curve.values.argmax())
                _line(axes, places(curve), curve.values, looks[curve.label])
                axes.plot(places(curve)[best], curve.values[best], marker="o", markersize=9, markerfacecolor="none",
                          markeredgecolor=looks[curve.label].colour, markeredgewidth=1.3)  # fmt: skip
            axes.set_xlabel(name)
            axes.set_ylim(bottom=0)
            axes.set_xlim(left=0)
            label_ends(axes, _ends(of_part, places, looks))
        axes_P[0].set_title("NDCG@10 on validation windows")
        told = "; ".join(
            f"{curve.label} best {four_digits(float(curve.values.max()))} at epoch "
            f"{curve.epochs[int(curve.values.argmax())]:g}"
            for curve in found
        )
        caption = (
            "The ring is the best epoch, which is kept. Runs validate on windows that their seed draws; a baseline "
            "on all of them, and the trial that was chosen is shown."
        )
        return picture(figure, f"NDCG@10 on validation windows while training: {told}.", caption)


def schedules(curves: Curves, looks: Looks) -> list[Picture]:
    """Temperature, lambda, distance and margin over epochs, as far as any run has them."""
    pictures = []
    for name, title in SCHEDULES.items():
        found = curves.get(name, ())
        if not found:
            continue
        with style():
            figure = Figure(figsize=(WIDTH, 2.7))
            axes = figure.subplots()
            figure.subplots_adjust(left=_LEFT, right=_RIGHT, top=0.89, bottom=0.19)
            for curve in found:
                axes.plot(curve.epochs, curve.values, color=looks[curve.label].colour, linewidth=1.6,
                          linestyle=looks[curve.label].line)  # fmt: skip
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.set_xlim(left=0)
            axes.margins(y=0.12)
            label_ends(axes, _ends(found, lambda curve: curve.epochs, looks))
            told = "; ".join(f"{curve.label} from {curve.values[0]:.3g} to {curve.values[-1]:.3g}" for curve in found)
            pictures.append(picture(figure, f"{title} by epoch: {told}.", ""))
    return pictures


def slices(comparison: Comparison, table: SliceTable, looks: Looks) -> Picture:
    """The first metric by slices, a panel for each, all rows in it."""
    rows, parts = comparison.rows, table.slices
    columns = min(len(parts), 4 if len(parts) <= 4 else 6)
    lines = -(-len(parts) // columns)
    with style():
        figure = Figure(figsize=(WIDTH, 0.8 + lines * (0.85 + 0.2 * len(rows))), layout="constrained")
        axes_LP = figure.subplots(lines, columns, sharey=True, squeeze=False)
        for axes, part in zip(axes_LP.ravel(), parts, strict=False):
            cells = [part.cells[row.label] for row in rows]
            _dots(axes, rows, looks, [cell.mean for cell in cells], None, [(cell.low, cell.high) for cell in cells])
            name = "\n".join(textwrap.wrap(part.name, 30 if columns <= 4 else 17)[:3])
            axes.set_title(f"{name}\n{part.windows:,} windows", fontsize=8.5)
            axes.xaxis.set_major_locator(MaxNLocator(4 if columns <= 4 else 2))
            axes.tick_params(labelsize=8)
            axes.set_xlim(left=0)
        for axes in axes_LP.ravel()[len(parts) :]:
            axes.set_visible(False)
        told = "; ".join(
            f"{part.name}: best {best} {four_digits(part.cells[best].mean)}"
            for part in parts
            for best in [max(part.cells, key=lambda label: part.cells[label].mean)]
        )
        title = f"{heading(comparison.metrics[0])} by {table.by}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, color=INK)
        return picture(figure, f"{title}. {told}.", "")


def lists(comparison: Comparison, looks: Looks) -> Picture | None:
    """Popularity, coverage, concentration and novelty of what is recommended; None where no catalogue was ranked."""
    rows = [row for row in comparison.rows if row.lists is not None]
    if not rows:
        return None
    of = [row.lists for row in rows if row.lists is not None]
    panels = [
        ("popularity (1 = targets')", [np.nan if one.popularity_ratio is None else one.popularity_ratio for one in of],
         lambda value: f"× {value:.2f}"),
        ("coverage", [one.coverage for one in of], lambda value: f"{value:.0%}"),
        ("Gini (0 = all alike)", [one.gini for one in of], lambda value: f"{value:.2f}"),
        ("novelty (bits)", [one.novelty for one in of], lambda value: f"{value:.1f}"),
    ]  # fmt: skip
    with style():
        figure = Figure(figsize=(WIDTH, 0.95 + 0.34 * len(rows)), layout="constrained")
        for axes, (title, values, written) in zip(figure.subplots(1, 4, sharey=True), panels, strict=True):
            _dots(axes, rows, looks, values, written)
            axes.set_title(title, fontsize=9.5)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            if title.startswith("popularity"):
                axes.axvline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
                axes.set_xlim(left=0)
            elif title.startswith(("coverage", "Gini")):
                axes.set_xlim(0, 1)
        told = "; ".join(
            f"{row.label} {ratio:.2f} times as popular as what people took, coverage {one.coverage:.0%}"
            for row, one, ratio in zip(rows, of, panels[0][1], strict=True)
        )
        caption = (
            f"The first {of[0].k} places of every list. Right of the dashed line a row recommends what is more popular "
            "than what people took next."
        )
        return picture(figure, f"What is recommended: {told}.", caption)


def reliability(comparison: Comparison, looks: Looks) -> Picture | None:
    """Promised against kept: the probability of the first title and how often it was the next one."""
    found = [(row, row.calibration) for row in comparison.rows if row.calibration is not None]
    if not found:
        return None
    with style():
        figure, axes_P = _panels(len(found), height=2.25)
        for axes, (row, known) in zip(axes_P, found, strict=False):
            promised = np.array([part.probability for part in known.bins])
            kept = np.array([part.hit_rate for part in known.bins])
            top = 1.06 * max(promised.max(), kept.max(), 1e-6)
            axes.plot([0, top], [0, top], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
            _line(axes, promised, kept, looks[row.label])
            axes.set(xlim=(0, top), ylim=(-0.02 * top, top))
            axes.set_title(f"{shortened(row.label, 30)}\nerror {four_digits(known.error)}", fontsize=8.5,
                           color=looks[row.label].colour)  # fmt: skip
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_locator(MaxNLocator(4))
        figure.supxlabel("mean probability of the first title", fontsize=9, color=INK)
        figure.supylabel("share of hits", fontsize=9, color=INK)
        told = "; ".join(
            f"{row.label} promises {four_digits(known.probability)} and keeps {four_digits(known.hit_rate)}, "
            f"expected calibration error {four_digits(known.error)}"
            for row, known in found
        )
        caption = (
            "Bins of equal numbers of windows. On the dashed line a probability means what it says; below it a row is "
            "too sure of itself. Scales differ."
        )
        return picture(figure, f"Calibration of the first title: {told}.", caption)


def costs(found: Sequence[Cost], looks: Looks) -> Picture | None:
    """Minutes and memory of every training; None where none is known."""
    if not found:
        return None
    names = [cost.label if cost.seed is None else f"{shortened(cost.label)}, seed {cost.seed}" for cost in found]
    panels = [
        ("minutes of training", [cost.minutes for cost in found], "{:.1f}"),
        ("peak memory (GB)", [np.nan if cost.memory_gb is None else cost.memory_gb for cost in found], "{:.1f}"),
    ]
    with style():
        figure = Figure(figsize=(WIDTH, 0.8 + 0.32 * len(found)), layout="constrained")
        for axes, (title, values, written) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
            bars = axes.barh(
                range(len(names)),
                np.nan_to_num(values),
                color=[looks[cost.label].colour for cost in found],
                height=0.62,
            )
            axes.bar_label(bars, ["not measured" if np.isnan(value) else written.format(value) for value in values],
                           padding=4, fontsize=8.5, color=INK)  # fmt: skip
            axes.set_yticks(range(len(names)), names)
            axes.set_title(title)
            axes.grid(axis="y", visible=False)
            axes.margins(x=0.16)
        axes.invert_yaxis()  # shared
        told = "; ".join(f"{name} {cost.minutes:.1f} minutes" for name, cost in zip(names, found, strict=True))
        caption = "Wall time with validation; of a baseline the time of all its trials."
        return picture(figure, f"Time and memory of the trainings: {told}.", caption)


def _panels(count: int, *, height: float) -> tuple[Figure, Sequence[Axes]]:
    """A figure of small panels, four beside each other; a panel too many is hidden."""
    columns = min(4, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(WIDTH if columns > 2 else 3.2 * columns, 0.25 + height * lines), layout="constrained")
    axes_P = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in axes_P[count:]:
        axes.set_visible(False)
    return figure, axes_P.tolist()


def _dots(
    axes: Axes, rows: Sequence[Row], looks: Looks, values: Sequence[float], written: Callable[[float], str] | None,
    intervals: Sequence[tuple[float, float]] | None = None,
) -> None:  # fmt: skip
    """One point for each row, from the top down, its number above it, with its interval where there is one."""
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        look = looks[row.label]
        if intervals is not None:
            axes.plot(intervals[place], (place, place), color=look.colour, linewidth=2.4, alpha=0.45,
                      solid_capstyle="round")  # fmt: skip
        axes.plot(value, place, marker=look.mark, color=look.colour, markersize=7 if written else 5, clip_on=False)
        if written is not None and not np.isnan(value):
            axes.annotate(written(value), (value, place), (0, 5.5), textcoords="offset points", ha="center",
                          fontsize=7.5, color=INK, path_effects=[_HALO])  # fmt: skip
    axes.set_yticks(range(len(rows)), [shortened(row.label) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.75 if written else -0.5)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _line(axes: Axes, places: Floats, values: Floats, look: Look) -> None:
    """A line with the marks of its row."""
    axes.plot(places, values, color=look.colour, linestyle=look.line, linewidth=1.6, marker=look.mark, markersize=4.5)


def _by_label(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """The curves of each row, one for each seed."""
    found: dict[str, list[Curve]] = {}
    for curve in curves:
        found.setdefault(curve.label, []).append(curve)
    return found


def _ends(
    curves: Sequence[Curve], places: Callable[[Curve], Floats], looks: Looks
) -> list[tuple[float, float, str, str]]:
    """Where the first curve of each row ends, and what is written there."""
    return [
        (float(places(first)[-1]), float(first.values[-1]), label, looks[label].colour)
        for label, (first, *_) in _by_label(curves).items()
    ]

"""How a figure of the report looks: colours, marks, labels at the ends of lines, and the SVG that goes into the page.

Colours are those of Okabe and Ito (2008), which people with any colour vision tell apart; a wine red stands in for the
yellow, which is hardly seen on white. Every row also has a mark of its own, so that a print in grey can be read.
"""

import base64
import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.style import context

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255")
GREY = "#7A7A7A"
INK = "#222222"
MARKS = ("o", "s", "^", "D", "v", "P", "X", "p")
WIDTH = 9.8  # inches of a figure that fills the column
_LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)))
_STYLE: dict[str, Any] = {
    "svg.fonttype": "path", "svg.hashsalt": "catalign", "font.size": 10, "font.family": "DejaVu Sans",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#9A9A9A", "axes.labelcolor": INK,
    "axes.titlesize": 10.5, "axes.titlelocation": "left", "axes.titlecolor": INK, "axes.titlepad": 8,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#E6E6E6", "grid.linewidth": 0.8,
    "xtick.color": "#555555", "ytick.color": "#555555", "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "xtick.major.size": 0, "ytick.major.size": 0, "text.parse_math": False, "figure.facecolor": "white",
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How a row looks in every figure.

    Attributes:
        colour: of lines and marks.
        mark: of points.
        line: of curves.
    """

    colour: str
    mark: str
    line: Any


@dataclass(frozen=True)
class Picture:
    """A figure as it goes into the page.

    Attributes:
        source: the SVG as a data address.
        alt: what it shows, for those who do not see it.
        caption: what stands below.
    """

    source: str
    alt: str
    caption: str


def looks_of(floor: Sequence[str], trained: Sequence[str]) -> dict[str, Look]:
    """Return the look of every row: the floor grey, the others in colours.

    Args:
        floor: labels of rows that were not trained.
        trained: labels of the others.
    """
    grey = {label: Look(GREY, MARKS[-1 - place % len(MARKS)], "-") for place, label in enumerate(floor)}
    return grey | {
        label: Look(
            COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)], _LINES[place // len(COLOURS) % len(_LINES)]
        )
        for place, label in enumerate(trained)
    }


def style() -> AbstractContextManager[None]:
    """Draw everything inside in the style of the report, whatever the user's own settings are."""
    return context(["default", _STYLE])


def picture(figure: Figure, alt: str, caption: str) -> Picture:
    """Turn a figure into a picture; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    source = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(f"data:image/svg+xml;base64,{source}", alt, caption)


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write names right of the axes at the height where their lines end, moved apart where they would overlap.

    Args:
        axes: with its final limits.
        ends: x and y of the last point, name, colour.
    """
    if not ends:
        return
    size = 8.5
    height = axes.get_position().height * axes.figure.get_figheight()  # type: ignore[union-attr]
    gap = 1.35 * size / 72 / max(height, 0.1)
    found = sorted(ends, key=lambda end: end[1])
    low, high = axes.get_ylim()
    wanted = np.array([(end[1] - low) / (high - low) for end in found])
    for (x, y, name, colour), place in zip(found, spread(wanted, gap), strict=True):
        axes.annotate(
            shortened(name), xy=(x, y), xytext=(1.03, place), textcoords="axes fraction", va="center", fontsize=size,
            color=colour, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.5, "shrinkA": 0, "shrinkB": 2},
        )  # fmt: skip


def spread(wanted: np.ndarray[Any, Any], gap: float) -> list[float]:
    """Move sorted places apart to at least `gap`, as little as possible (least squares), inside 0 to 1 if they fit.

    >>> [round(place, 2) for place in spread(np.array([0.5, 0.5]), 0.2)]
    [0.4, 0.6]
    >>> [round(place, 2) for place in spread(np.array([0.1, 0.9]), 0.2)]
    [0.1, 0.9]
    """
    # Places minus their number of gaps must not fall: isotonic regression by pooling neighbours.
    blocks: list[list[float]] = []  # sum, count
    for number, place in enumerate(wanted.tolist()):
        blocks.append([place - number * gap, 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    flat = [total / count for total, count in blocks for _ in range(int(count))]
    room = 1 - gap * (len(wanted) - 1)
    bounded = np.clip(flat, 0, room) if room > 0 else np.full(len(flat), room / 2)
    return [float(place + number * gap) for number, place in enumerate(bounded)]


def shortened(name: str, length: int = 28) -> str:
    """A name that fits beside a figure: its beginning and its end."""
    half = (length - 1) // 2
    return name if len(name) <= length else f"{name[:half]}…{name[-half:]}"

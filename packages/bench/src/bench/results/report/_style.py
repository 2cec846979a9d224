"""What all figures share: fonts, colours, layout, and a colour of its own for every method."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.experiment import is_cloning
from bench.registry import AGENTS

__all__ = ["STYLE", "Look", "Looks", "finish", "grid", "looks_of", "rendered", "short_number"]

# Every method's own, whatever else is in the report: Okabe and Ito's, which differ for every kind
# of colour vision, and others between them; black is kept for notes.
_OWN = AGENTS.colours()
_PALETTE = (*(_OWN[name] for name in sorted(_OWN, key=is_cloning)), "#7A7A00")
_DASHES = ("solid", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)))
STYLE: Any = {  # matplotlib's type for this lists all its 300 settings
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: searchable, and a third of the size
    "svg.hashsalt": "trqam-bench",
    "font.family": "DejaVu Sans",
}

Look = tuple[str, Any]
"""Colour and dashes of a line."""
Looks = dict[str, Look]
"""Look of every method of a report, the same in all its figures."""


def looks_of(methods: Sequence[str]) -> Looks:
    """A look for each method: its own, or for variants and other lines what is left.

    Beyond twelve the colours come again with other dashes.
    """
    own = AGENTS.colours()
    looks: Looks = {name: (own[name], _DASHES[0]) for name in methods if name in own}
    taken = [colour for colour, _ in looks.values()]
    free = [
        (colour, dash)
        for dash in _DASHES
        for colour in _PALETTE
        if dash != _DASHES[0] or colour not in taken
    ]
    others = [name for name in methods if name not in looks]
    return looks | dict(zip(others, cycle(free), strict=False))


def rendered(figure: Figure, kind: str) -> bytes:
    """The figure as `svg` or `png`, without a date in it."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def grid(panels: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, three in a row."""
    columns = min(panels, 3)
    rows = math.ceil(panels / columns)
    # A single panel is wider, and leaves room for a legend that is not.
    figure = Figure(figsize=(5.4 if columns == 1 else 3.6 * columns, 0.2 + 2.6 * rows))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[panels:]:
        unused.remove()
    return figure, axes[:panels]


def finish(figure: Figure, axes: Sequence[Axes], note: str) -> None:
    """Adds below, in room of its own, one legend for all panels and what the numbers rest on."""
    entries: dict[str, Any] = {}
    for axis in axes:
        entries |= {
            label: handle
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
            if label not in entries
        }
    # A letter is some 0.075 inches wide, line and gaps take 0.6; a line of text is 0.18 high.
    width, height = figure.get_figwidth(), figure.get_figheight()
    longest = int((width - 0.6) / 0.075)
    labels = [textwrap.fill(label, longest, subsequent_indent="  ") for label in entries]
    widest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    columns = max(1, min(6, int(width / (0.6 + 0.075 * widest))))
    per_column = math.ceil(len(labels) / columns)
    lines = max(
        sum(1 + label.count("\n") for label in labels[start : start + per_column])
        for start in range(0, max(1, len(labels)), max(1, per_column))
    )
    figure.set_figheight(height + 0.3 + 0.18 * lines)
    legend = figure.legend(
        entries.values(), labels, loc="outside lower center", ncols=columns,
        title=note or None, title_fontsize=7,
    )  # fmt: skip
    legend.get_title().set_color("#666666")


def short_number(value: float, _position: float) -> str:
    """A tick's label: 20k, 1.5M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"

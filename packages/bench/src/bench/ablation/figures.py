"""Figures of the ablations."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.figure import Figure

from bench.ablation.tracking import Tracking

__all__ = ["Line", "drawn", "lines_against", "named_values", "tracking_figure"]


_WINDOW = 10


def drawn(figure: Figure, kind: str) -> bytes:
    """The figure as `svg` or `png`, without a date in it."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "trqam-bench"}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def tracking_figure(curves: pl.DataFrame, tracking: Tracking) -> Figure:
    """Path KL and lambda over updates: per rule the median of the seeds and their range."""
    figure = Figure(figsize=(9.0, 3.4))
    figure.set_layout_engine("constrained")
    runs = curves["seed"].n_unique()
    note = f"{runs} seed{'s' * (runs > 1)}: median and range; made-up bandit"
    figure.suptitle(note, fontsize=8)
    axes = figure.subplots(1, 2)
    labels = {"path_kl": "path KL, nats per action", "lambda": "lambda"}
    for axis, (metric, label) in zip(axes, labels.items(), strict=True):
        for rule in curves["rule"].unique(maintain_order=True):
            seeds = curves.filter(rule=rule).partition_by("seed")
            values = np.stack([part[metric].to_numpy() for part in seeds])
            count = values.shape[1] // _WINDOW
            blocks = values[:, : count * _WINDOW].reshape(len(values), count, _WINDOW).mean(-1)
            updates = _WINDOW * (np.arange(count) + 1)
            (line,) = axis.plot(updates, np.median(blocks, axis=0), label=rule, linewidth=1.2)
            axis.fill_between(
                updates,
                blocks.min(0),
                blocks.max(0),
                color=line.get_color(),
                alpha=0.15,
                linewidth=0,
            )
        axis.axvline(tracking.updates, color="0.6", linewidth=0.8)
        axis.set_yscale("log")
        axis.set_xlabel(f"update; critic x {tracking.factor:g} at {tracking.updates:,}")
        axis.set_ylabel(label)
        axis.grid(alpha=0.25)
    axes[0].axhline(tracking.budget, color="black", linestyle=":", linewidth=1, label="budget")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


@dataclass(frozen=True, slots=True)
class Line:
    """Points of one kind, in order.

    Attributes:
        label: what they are.
        x: positions.
        y: values.
        low: lower ends of the error bars, or the values.
        high: upper ends.
        dashed: draw the line dashed.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    dashed: bool = False


Span = tuple[float, float, float]
"""A value, and the lower and upper end of its interval."""


def lines_against(
    panels: Mapping[str, Sequence[Line]], label: str, *, note: str, logarithmic: bool
) -> Figure:
    """One panel per quantity; lines with error bars against one axis.

    Args:
        panels: lines by the label of their vertical axis.
        label: of the horizontal axes.
        note: what the points rest on, above the panels.
        logarithmic: horizontal axes; otherwise their ticks are the points' own.
    """
    most = max(map(len, panels.values()))
    figure = Figure(figsize=(4.2 * len(panels), 3.4 + 0.16 * most))
    figure.set_layout_engine("constrained")
    figure.suptitle(note, fontsize=8)
    for axis, (quantity, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for index, line in enumerate(lines):
            y, low, high = (np.asarray(v, np.float64) for v in (line.y, line.low, line.high))
            axis.errorbar(
                line.x,
                y,
                np.stack([y - low, high - y]).clip(0.0),
                label=line.label,
                marker="o",
                capsize=2,
                linestyle="--" if line.dashed else "-",
                color=f"C{index // 2 if any(other.dashed for other in lines) else index}",
            )
        if logarithmic:
            axis.set_xscale("log")
        else:
            axis.set_xticks(sorted({x for line in lines for x in line.x}))
        axis.set_xlabel(label)
        axis.set_ylabel(quantity)
        axis.grid(alpha=0.25)
        # Below the axis: many lines leave no room inside.
        axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return figure


def named_values(
    names: Sequence[str], series: Mapping[str, Mapping[str, Span]], label: str, *, note: str
) -> Figure:
    """A row per name; in it one value with its interval for each series that has one.

    Args:
        names: of the rows, from top to bottom.
        series: value and ends of its interval by name, by the series' label.
        label: of the values.
        note: what they rest on, above the panel.
    """
    figure = Figure(figsize=(6.4, 1.6 + 0.34 * len(names) + 0.16 * len(series)))
    figure.set_layout_engine("constrained")
    figure.suptitle(note, fontsize=8)
    axis = figure.subplots()
    for index, (name, found) in enumerate(series.items()):
        shift = 0.5 * ((index + 0.5) / len(series) - 0.5)
        rows = [(place + shift, *found[row]) for place, row in enumerate(names) if row in found]
        places, values, low, high = np.asarray(rows, np.float64).reshape(-1, 4).T
        axis.errorbar(
            values,
            places,
            xerr=np.stack([values - low, high - values]).clip(0.0),
            label=name,
            marker="o",
            capsize=2,
            linestyle="none",
        )
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel(label)
    axis.grid(alpha=0.25)
    axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return figure

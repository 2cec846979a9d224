"""The pictures of a report, drawn without a display and the same every time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bench.results._published import published_beside
from bench.results._scores import method_label
from bench.results._statistics import performance_profile
from bench.results.report._curves import Curve
from bench.results.report._style import STYLE, Look, Looks, finish, grid, short_number

__all__ = ["bars", "curve_grid", "profiles"]

_PLACE = ("suite", "domain", "place")


def curve_grid(
    curves: Sequence[Curve],
    label: str,
    looks: Looks,
    *,
    note: str = "",
    percent: bool = False,
    logarithmic: bool = False,
    levels: Sequence[Curve] = (),
    level_label: str = "",
    online_from: float | None = None,
) -> Figure:
    """One panel per task or domain, a line with a band per method.

    Args:
        curves: what to draw, at least one.
        label: of the vertical axes.
        looks: of the methods.
        note: what the numbers rest on.
        percent: values are rates, drawn from 0 to 100.
        logarithmic: vertical axis.
        levels: what the curves are held to, dotted; in black where all methods have the same one.
        level_label: what the levels are.
        online_from: step at which the online phase begins, if there is one.
    """
    panels = list(dict.fromkeys(curve.panel for curve in curves))
    with mpl.rc_context(STYLE):
        figure, axes = grid(len(panels))
        for panel, axis in zip(panels, axes, strict=False):
            for curve in (curve for curve in curves if curve.panel == panel):
                _draw_curve(axis, curve, looks[curve.method], 100 if percent else 1)
            _draw_levels(axis, [level for level in levels if level.panel == panel], looks)
            if levels:
                # Lines in the methods' own colours would stand in the legend as one of them.
                axis.plot([], [], color="black", linewidth=1, linestyle=":", label=level_label)
            if percent:
                axis.set_ylim(-3, 103)
            if logarithmic:
                axis.set_yscale("log")
                axis.yaxis.set_major_formatter(short_number)
                axis.yaxis.set_minor_formatter(short_number if _narrow(axis) else NullFormatter())
            if online_from is not None:
                axis.axvline(online_from, color="0.6", linewidth=0.8)
            axis.set_title(panel)
            axis.set_xlabel(
                "updates" if online_from is None else "updates | environment steps online"
            )
            axis.xaxis.set_major_formatter(short_number)
            axis.set_ylabel(label)
        finish(figure, axes, note)
    return figure


def bars(domains: pl.DataFrame, phase: str, looks: Looks, *, note: str = "") -> Figure:
    """Success per domain: ours filled with 95 % intervals, published hatched, with their source.

    Args:
        domains: `FinalTable.domains`, rows to be drawn.
        phase: of the published numbers.
        looks: of the methods.
        note: what our numbers rest on.
    """
    several = domains["suite"].n_unique() > 1
    place = pl.col("suite") + ": " + pl.col("domain") if several else pl.col("domain")
    rows = domains.filter(pl.col("success").is_not_null()).with_columns(place=place)
    names = rows["place"].unique(maintain_order=True).to_list()
    groups = _bar_groups(rows, phase, looks)
    width = 0.8 / len(groups)
    size = min(16.0, max(5.4, 0.16 * len(names) * (2 + len(groups))))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(size, 3.1))
        figure.set_layout_engine("constrained")
        axis = figure.add_subplot()
        for index, (label, colour, theirs, values) in enumerate(groups):
            present = [name for name in names if name in values]
            places = [names.index(name) + (index + 0.5) * width - 0.4 for name in present]
            heights = np.array([values[name] for name in present])
            axis.bar(
                places, heights[:, 0], width, label=label, color="none" if theirs else colour,
                edgecolor=colour, hatch="///" if theirs else None,
            )  # fmt: skip
            ends = np.abs(heights[:, 1:] - heights[:, :1]).T
            axis.errorbar(places, heights[:, 0], ends, fmt="none", ecolor="black", elinewidth=0.8)
        slanted = len(names) * max(map(len, names)) > 11 * size
        turn, side = (20, "right") if slanted else (0, "center")
        axis.set_xticks(range(len(names)), names, rotation=turn, ha=side)
        axis.grid(visible=False, axis="x")
        axis.margins(x=0.01)
        axis.set_ylim(0, 103)
        axis.set_ylabel("success, %")
        finish(figure, [axis], note)
    return figure


def profiles(scores: dict[str, list[Any]], looks: Looks, *, note: str = "") -> Figure:
    """Performance profiles: the share of runs above each success rate, with 95 % bands.

    Args:
        scores: method to its runs' success rates per task.
        looks: of the methods.
        note: what the numbers rest on.
    """
    edges = np.linspace(0, 1, 101)
    with mpl.rc_context(STYLE):
        figure, (axis,) = grid(1)
        for method in sorted(scores):
            value, low, high = performance_profile(scores[method], edges)
            colour, dash = looks[method]
            axis.step(100 * edges, 100 * value, where="post", color=colour, ls=dash, label=method)
            axis.fill_between(
                100 * edges, 100 * low, 100 * high, step="post", color=colour, alpha=0.15, lw=0
            )
        axis.set_xlabel("success, %")
        axis.set_ylabel("runs above it, %")
        finish(figure, [axis], note)
    return figure


def _bar_groups(
    rows: pl.DataFrame, phase: str, looks: Looks
) -> list[tuple[str, str, bool, dict[str, tuple[float, float, float]]]]:
    """Label, colour, whether published, and per domain value, low and high in percent."""
    ours: dict[str, dict[str, tuple[float, float, float]]] = {}
    agents: dict[str, str] = {}
    for row in rows.iter_rows(named=True):
        method = method_label(row["agent"], row["variant"])
        agents[method] = row["agent"]
        ends = (row["success_low"], row["success_high"])
        low, high = (100 * (row["success"] if end is None else end) for end in ends)
        ours.setdefault(method, {})[row["place"]] = (100 * row["success"], low, high)
    published: dict[str, dict[str, dict[str, tuple[float, float, float]]]] = {}
    places = {(suite, name): place for suite, name, place in rows.select(_PLACE).iter_rows()}
    for row in published_beside(rows, phase).iter_rows(named=True):
        mean, std = row["mean"], row["std"] or 0.0
        group = published.setdefault(row["agent"], {}).setdefault(row["label"], {})
        group[places[row["suite"], row["domain"]]] = (mean, mean - std, mean + std)
    groups = []
    for method in sorted(ours):
        colour = looks[method][0]
        groups.append((f"{method} (ours)", colour, False, ours[method]))
        for label, found in published.pop(agents[method], {}).items():
            groups.append((label, colour, True, found))
    return groups


def _draw_curve(axis: Axes, curve: Curve, look: Look, scale: float) -> None:
    colour, dash = look
    if curve.reference:
        axis.axhline(
            scale * float(curve.value[-1]), color=colour, linestyle=dash, linewidth=1.2,
            label=curve.method,
        )  # fmt: skip
        return
    marker = "o" if len(curve.steps) < 2 else None
    axis.plot(
        curve.steps, scale * curve.value, color=colour, linestyle=dash, label=curve.method,
        marker=marker,
    )  # fmt: skip
    axis.fill_between(
        curve.steps, scale * curve.low, scale * curve.high, color=colour, alpha=0.18, linewidth=0
    )


def _draw_levels(axis: Axes, levels: Sequence[Curve], looks: Looks) -> None:
    """The lowest and the highest level of a method's runs, which is one line where they agree."""
    ends = [np.stack([level.low, level.high]) for level in levels]
    common = all(end.shape == ends[0].shape and np.allclose(end, ends[0]) for end in ends)
    for level, (low, high) in list(zip(levels, ends, strict=True))[: 1 if common else None]:
        colour = "black" if common else looks[level.method][0]
        for end in (low,) if np.allclose(low, high) else (low, high):
            axis.plot(level.steps, end, color=colour, linewidth=1.2, linestyle=":")


def _narrow(axis: Axes) -> bool:
    """Whether a logarithmic axis spans so little that its powers of ten say nothing."""
    low, high = axis.get_ylim()
    return high < 10 * low

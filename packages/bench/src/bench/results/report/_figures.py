"""The pictures of a report, drawn without a display and the same every time."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.results._published import published_domains, same_method
from bench.results._statistics import performance_profile
from bench.results._views import method_label
from bench.results.report._curves import Curve

__all__ = ["bars", "budget_sensitivity", "curve_grid", "profiles", "rendered"]

# Okabe and Ito's colours, which differ for every kind of colour vision; black is kept for notes.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#9a8700", "#555555")
_DASHES = ("solid", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)))
_STYLE: Any = {  # matplotlib's type for this lists all its 300 settings
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: searchable, and a third of the size
    "svg.hashsalt": "trqam-bench",
    "font.family": "DejaVu Sans",
}


def rendered(figure: Figure, kind: str) -> bytes:
    """The figure as `svg` or `png`, without a date in it."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def curve_grid(
    curves: Sequence[Curve],
    label: str,
    *,
    percent: bool = False,
    logarithmic: bool = False,
    level: float | None = None,
    level_label: str = "",
) -> Figure:
    """One panel per task or domain, a line with a band per method.

    Args:
        curves: what to draw, at least one.
        label: of the vertical axes.
        percent: values are rates, drawn from 0 to 100.
        logarithmic: vertical axis.
        level: a horizontal line in every panel.
        level_label: what it is.
    """
    panels = list(dict.fromkeys(curve.panel for curve in curves))
    methods = sorted({curve.method for curve in curves})
    with mpl.rc_context(_STYLE):
        figure, axes = _grid(len(panels))
        for panel, axis in zip(panels, axes, strict=False):
            for curve in (curve for curve in curves if curve.panel == panel):
                _draw_curve(axis, curve, _look(curve.method, methods), 100 if percent else 1)
            if level is not None:
                axis.axhline(level, color="black", linewidth=1, linestyle=":", label=level_label)
            if percent:
                axis.set_ylim(-3, 103)
            if logarithmic:
                axis.set_yscale("log")
            axis.set_title(panel)
            axis.set_xlabel("updates")
            axis.xaxis.set_major_formatter(_short_number)
            axis.set_ylabel(label)
        _legend(figure, axes)
    return figure


def bars(domains: pl.DataFrame, phase: str) -> Figure:
    """Success per domain: ours filled with 95 % intervals, published hatched, with their source.

    Args:
        domains: `FinalTable.domains`, rows to be drawn.
        phase: of the published numbers.
    """
    rows = domains.filter(pl.col("success").is_not_null())
    names = rows["domain"].unique(maintain_order=True).to_list()
    groups = _bar_groups(rows, phase, names)
    width = 0.8 / len(groups)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(max(5.0, 0.45 * len(names) * (1 + len(groups))), 3.4))
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
        axis.set_xticks(range(len(names)), names, rotation=20, ha="right")
        axis.set_ylim(0, 103)
        axis.set_ylabel("success, %")
        _legend(figure, [axis])
    return figure


def budget_sensitivity(domains: pl.DataFrame) -> Figure | None:
    """Success against the KL budget, a line per domain and agent; None for a single budget."""
    rows = domains.filter(pl.col("success").is_not_null() & (pl.col("kl_budget") > 0))
    keys = ["suite", "domain", "agent", "phase"]
    swept = rows.filter(pl.col("kl_budget").n_unique().over(keys) > 1).sort("kl_budget")
    if swept.is_empty():
        return None
    several_phases = swept["phase"].n_unique() > 1
    with mpl.rc_context(_STYLE):
        figure, (axis,) = _grid(1)
        lines = swept.partition_by(keys, maintain_order=True)
        for index, line in enumerate(lines):
            end = f", {line['phase'][0]}" if several_phases else ""
            value = 100 * line["success"].to_numpy()
            low, high = (
                100 * line[name].fill_null(line["success"]).to_numpy()
                for name in ("success_low", "success_high")
            )
            axis.errorbar(
                line["kl_budget"].to_numpy(),
                value,
                np.stack([value - low, high - value]).clip(0),
                marker="o",
                capsize=2,
                color=_COLOURS[index % len(_COLOURS)],
                linestyle=_DASHES[index // len(_COLOURS) % len(_DASHES)],
                label=f"{line['domain'][0]}, {line['agent'][0]}{end}",
            )
        axis.set_xscale("log")
        axis.set_ylim(-3, 103)
        axis.set_xlabel("KL budget")
        axis.set_ylabel("success, %")
        _legend(figure, [axis])
    return figure


def profiles(scores: dict[str, list[Any]]) -> Figure:
    """Performance profiles: the share of runs above each success rate, with 95 % bands.

    Args:
        scores: method to its runs' success rates per task.
    """
    edges = np.linspace(0, 1, 101)
    methods = sorted(scores)
    with mpl.rc_context(_STYLE):
        figure, (axis,) = _grid(1)
        for method in methods:
            value, low, high = performance_profile(scores[method], edges)
            colour, dash = _look(method, methods)
            axis.step(100 * edges, 100 * value, where="post", color=colour, ls=dash, label=method)
            axis.fill_between(
                100 * edges, 100 * low, 100 * high, step="post", color=colour, alpha=0.15, lw=0
            )
        axis.set_xlabel("success, %")
        axis.set_ylabel("runs above it, %")
        _legend(figure, [axis])
    return figure


def _bar_groups(
    rows: pl.DataFrame, phase: str, names: list[str]
) -> list[tuple[str, str, bool, dict[str, tuple[float, float, float]]]]:
    """Label, colour, whether published, and per domain value, low and high in percent."""
    labelled = [
        (method_label(row["agent"], row["variant"]), row) for row in rows.iter_rows(named=True)
    ]
    methods = sorted({label for label, _ in labelled})
    groups = []
    for method in methods:
        values = {
            row["domain"]: tuple(
                100 * (row["success"] if row[name] is None else row[name])
                for name in ("success", "success_low", "success_high")
            )
            for label, row in labelled
            if label == method
        }
        groups.append((f"{method} (ours, 95 %)", _look(method, methods)[0], False, values))
        agent = next(row["agent"] for label, row in labelled if label == method)
        theirs = published_domains().filter(
            (pl.col("phase") == phase)
            & pl.col("domain").is_in([name for name in names if name != "all"])
        )
        for (source,), part in theirs.partition_by("source", as_dict=True).items():
            found = {
                row["domain"]: (
                    row["mean"],
                    row["mean"] - (row["std"] or 0.0),
                    row["mean"] + (row["std"] or 0.0),
                )
                for row in part.iter_rows(named=True)
                if same_method(agent, row["method"])
            }
            if found:
                label = f"{agent} (published, ± std: {source})"
                groups.append((label, _look(method, methods)[0], True, found))
    return groups


def _grid(panels: int) -> tuple[Figure, list[Axes]]:
    columns = min(panels, 3)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(3.6 * columns + (1.2 if columns == 1 else 0), 2.7 * rows))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[panels:]:
        unused.remove()
    return figure, axes[:panels]


def _draw_curve(axis: Axes, curve: Curve, look: tuple[str, Any], scale: float) -> None:
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


def _look(method: str, methods: Sequence[str]) -> tuple[str, Any]:
    index = methods.index(method)
    return _COLOURS[index % len(_COLOURS)], _DASHES[index // len(_COLOURS) % len(_DASHES)]


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    entries: dict[str, Any] = {}
    for axis in axes:
        entries |= {
            label: handle
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
            if label not in entries
        }
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3)


def _short_number(value: float, _position: float) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"

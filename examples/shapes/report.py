"""Table, frontier, curves and sample grids of the runs."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn
from world import CAPTIONS, SIDE

from trustregion import RewardMonitor

if TYPE_CHECKING:
    from run import Point, Result

START, END = "<!-- results -->", "<!-- end of results -->"


def write_report(
    base: "Point",
    base_samples: np.ndarray,
    results: Sequence["Result"],
    updates: int,
    seconds: float,
    readme: Path,
    figures: Path,
) -> None:
    """Put the table between the marks of the README and write the pictures."""
    mpl.use("Agg")
    text = readme.read_text(encoding="utf-8") if readme.exists() else f"{START}\n{END}\n"
    table = format_table(base, results, updates, seconds)
    marked = re.compile(f"{START}.*{END}", re.DOTALL)
    text = marked.sub(lambda _: f"{START}\n{table}\n{END}", text)
    readme.write_text(text, encoding="utf-8")
    plot_frontier(base, results, figures / "shapes_frontier.png")
    plot_samples(base_samples, results, figures / "shapes_samples.png")
    plot_curves(results, figures / "shapes_curves.png")


def format_table(base: "Point", results: Sequence["Result"], updates: int, seconds: float) -> str:
    """The rows as Markdown."""
    lines = [
        f"{len(results)} runs of {updates} updates in {seconds / 60:.0f} min. Rewards are in "
        "standard deviations of the base's samples; diversity is the distance of two samples of a "
        "caption, relative to the base.",
        "",
        "| run | KL (nats) | reward | held-out reward | true taste | diversity | caption kept | "
        "monitor |",
        "|---|---|---|---|---|---|---|---|",
        _row("base", base, ""),
    ]
    lines += [_row(r.name, r.points[-1], _alerts(r)) for r in results]
    lines += ["", *_dominance(base, results)]
    return "\n".join(lines)


def _row(name: str, p: "Point", alerts: str) -> str:
    return (
        f"| {name} | {p.kl:.2f} | {p.reward:+.2f} | {p.held_out:+.2f} | {p.taste:+.2f} | "
        f"{p.diversity:.0%} | {p.kept:.0%} | {alerts} |"
    )


def _alerts(result: "Result") -> str:
    monitor = RewardMonitor()
    monitor.load_state_dict(result.monitor)
    first: dict[str, int] = {}
    for update, reading in enumerate(monitor.history, 1):
        for alert in reading.alerts:
            first.setdefault(alert, update)
    return ", ".join(f"{alert} from update {update}" for alert, update in first.items())


def frontier(points: Sequence["Point"], diversity: float) -> float:
    """Held-out reward at a diversity, by straight lines between points; the ends go on level."""
    ordered = sorted(points, key=lambda p: p.diversity)
    if diversity <= ordered[0].diversity:
        return ordered[0].held_out
    for low, high in itertools.pairwise(ordered):
        if diversity <= high.diversity:
            share = (diversity - low.diversity) / (high.diversity - low.diversity)
            return low.held_out + share * (high.held_out - low.held_out)
    return ordered[-1].held_out


def _dominance(base: "Point", results: Sequence["Result"]) -> list[str]:
    """How the budgets' frontiers stand to each fixed weight, at its own diversity."""
    fixed = [r for r in results if r.name.startswith("fixed")]
    held = [r for r in results if r.name.startswith("budget") and "rising" not in r.name]
    rising = [p for r in results if "rising" in r.name for p in r.points]
    frontiers = [
        (f"{len(held)} runs at a budget", [base, *(r.points[-1] for r in held)]),
        ("the one run with a rising budget", [base, *rising]),
    ]
    lines = [
        "Held-out reward at the diversity of each fixed weight, less that weight's own:",
        "",
        "| frontier | " + " | ".join(r.name.removeprefix("fixed ") for r in fixed) + " |",
        "|---|" + "---|" * len(fixed),
    ]
    for name, points in frontiers:
        gaps = [frontier(points, p.diversity) - p.held_out for p in (r.points[-1] for r in fixed)]
        lines.append(f"| {name} | " + " | ".join(f"{gap:+.2f}" for gap in gaps) + " |")
    return lines


def plot_frontier(base: "Point", results: Sequence["Result"], file: Path) -> None:
    """Reward and held-out reward against diversity."""
    figure = Figure(figsize=(9.0, 3.6))
    axes = figure.subplots(1, 2, sharex=True)
    for axis, name in zip(axes, ("reward", "held_out"), strict=True):
        _frontier_panel(axis, base, results, name)
        axis.set(xlabel="diversity (of the base's)", ylabel=name.replace("_", "-"))
    axes[0].invert_xaxis()
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def _frontier_panel(axis: Axes, base: "Point", results: Sequence["Result"], name: str) -> None:
    axis.plot(base.diversity, getattr(base, name), "k*", label="base")
    fixed = [r.points[-1] for r in results if r.name.startswith("fixed")]
    axis.plot(
        [p.diversity for p in fixed], [getattr(p, name) for p in fixed], "o", color="tab:red",
        label=f"{len(fixed)} runs at fixed weights",
    )  # fmt: skip
    for p in fixed:
        axis.annotate(f"{p.lam:g}", (p.diversity, getattr(p, name)), fontsize=6, color="0.4")
    held = [r.points[-1] for r in results if r.name.startswith("budget") and len(r.points) == 1]
    axis.plot(
        [p.diversity for p in held], [getattr(p, name) for p in held], "s", color="tab:blue",
        label=f"{len(held)} runs at a budget",
    )  # fmt: skip
    rising = [base, *(p for r in results if "rising" in r.name for p in r.points)]
    axis.plot(
        [p.diversity for p in rising], [getattr(p, name) for p in rising], ".-",
        color="tab:green", label="1 run, rising budget",
    )  # fmt: skip


def plot_curves(results: Sequence["Result"], file: Path) -> None:
    """KL over the updates, and the monitor's two rewards of the smallest fixed weight."""
    figure = Figure(figsize=(9.0, 3.4))
    left, right = figure.subplots(1, 2)
    last = RewardMonitor()
    for result in results:
        monitor = RewardMonitor()
        monitor.load_state_dict(result.monitor)
        kl = [reading.kl or 0.0 for reading in monitor.history]
        fixed = result.name.startswith("fixed")
        left.plot(
            kl, color="0.7" if fixed else None, linewidth=0.8, label=None if fixed else result.name
        )
        last = monitor if fixed else last
    left.set(xlabel="update", ylabel="path KL (nats); grey: fixed weights", yscale="symlog")
    left.legend(fontsize=7)
    updates = range(len(last.history))
    right.plot(updates, [r.reward for r in last.history], label="reward")
    right.plot(updates, [r.held_out for r in last.history], label="held-out reward")
    for k, reading in enumerate(last.history):
        if reading.alerts:
            right.axvspan(k - 0.5, k + 0.5, color="tab:red", alpha=0.15, linewidth=0.0)
    right.set(xlabel="update", title=f"{results[-1].name}: alerts shaded")
    right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def plot_samples(base: np.ndarray, results: Sequence["Result"], file: Path) -> None:
    """A grid per model, the same noise in each: a column per caption."""
    shown = [("base", base), *((r.name, r.samples) for r in results if "rising" not in r.name)]
    figure = Figure(figsize=(8.0, 0.95 * len(shown)))
    axes = figure.subplots(len(shown), 1)
    for axis, (name, samples) in zip(axes, shown, strict=True):
        copies = len(samples) // len(CAPTIONS)
        framed = nn.functional.pad(
            torch.from_numpy(samples).clamp(-1.0, 1.0), (0, 1, 0, 1), value=1.0
        )
        grid = framed.unflatten(0, (copies, len(CAPTIONS))).permute(0, 3, 1, 4, 2)
        rows = grid.reshape(copies * (SIDE + 1), len(CAPTIONS) * (SIDE + 1), 3)
        axis.imshow(((rows + 1.0) / 2.0).numpy())
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7)
        axis.set(xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(file, dpi=110)

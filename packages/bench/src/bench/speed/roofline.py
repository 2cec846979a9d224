"""Where agents stand under the machine's roofline: arithmetic done over memory touched."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from bench.speed.row import SpeedRow
from bench.training.cost import calls_per_second

__all__ = ["bandwidth", "draw_roofline", "launches", "traffic"]

_COPIED = 1 << 26


class _TrafficCounter(TorchDispatchMode):
    """Counts operations and the bytes that they read and write; views touch nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0.0
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        aliases = [value.alias_info for value in func._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in aliases):
            self.operations += not func.__name__.startswith("empty")
            touched = _pytree.tree_leaves((args, kwargs, out))
            self.bytes += sum(
                t.numel() * t.element_size() for t in touched if isinstance(t, Tensor)
            )
        return out


def traffic(update: Callable[[], object]) -> float:
    """Bytes that the operations of one update read and write, whether or not a cache has them."""
    with _TrafficCounter() as counter:
        update()
    return float(counter.bytes)


def launches(update: Callable[[], object]) -> int:
    """Operations of one update but for views: what a GPU would be told to do, one at a time."""
    with _TrafficCounter() as counter:
        update()
    return int(counter.operations)


def bandwidth(device: torch.device, seconds: float, clock: Callable[[], float]) -> float:
    """Bytes per second that one large copy reads and writes, beyond any cache."""
    source = torch.ones(_COPIED // 4, device=device)
    target = torch.empty_like(source)
    rate = calls_per_second(lambda: target.copy_(source), seconds, device, clock)
    return rate * 2.0 * _COPIED


def draw_roofline(rows: Sequence[SpeedRow], path: Path) -> None:
    """Draw FLOP/s over FLOP per byte of all rows that have both, with the measured limits.

    Args:
        rows: measured with ``roofline``.
        path: .png, .svg or .pdf.

    Raises:
        ValueError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            "--roofline needs matplotlib, which is not installed: use --out, and draw elsewhere"
        ) from error
    shown = [row for row in rows if row.intensity and row.gflops and row.ceiling_gflops]
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    slope = max(row.bandwidth_gb_s or 0.0 for row in shown)
    ceilings: dict[str, float] = {}
    for row in shown:
        kind = str(row.precision)
        ceilings[kind] = max(ceilings.get(kind, 0.0), row.ceiling_gflops or 0.0)
    xs = [row.intensity or 0.0 for row in shown]
    left, right = min(xs) / 4.0, max(*xs, *(c / slope for c in ceilings.values())) * 4.0
    for i, (kind, ceiling) in enumerate(ceilings.items()):
        ridge = ceiling / slope
        color = f"C{i}"
        axes.plot([left, ridge, right], [left * slope, ceiling, ceiling], color=color, lw=1.0)
        axes.text(right, ceiling, f"{kind} product ", ha="right", va="bottom", color=color)
        mine = [row for row in shown if row.precision == kind]
        axes.scatter(
            [row.intensity or 0.0 for row in mine], [row.gflops or 0.0 for row in mine], color=color
        )
        for row in mine:
            packed = f" x{row.replicas}" if row.replicas != 1 else ""
            axes.annotate(
                f"{row.agent} {row.width}{packed}",
                (row.intensity or 0.0, row.gflops or 0.0),
                xytext=(4, -11),
                textcoords="offset points",
                fontsize=8,
            )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="FLOP per byte that the operations read and write",
        ylabel="GFLOP/s",
        xlim=(left, right),
        title=f"{shown[0].device}, {shown[0].threads} thread(s); copies at {slope:,.0f} GB/s",
    )
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)

"""Measured arithmetic rates of devices, and estimates where nothing was measured."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

__all__ = ["PEAKS", "DeviceRate", "device_rate", "read_rates"]

PEAKS: Mapping[str, Mapping[str, float]] = {
    "h200": {"float32": 67e12, "tf32": 494.5e12, "bfloat16": 989e12},
    "h100": {"float32": 67e12, "tf32": 494.5e12, "bfloat16": 989e12},
    "a100": {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12},
}
"""FLOP/s of dense matrix products as NVIDIA's data sheets of the SXM modules state them."""

_NEEDED = ("device", "agent", "width", "replicas", "precision", "mode", "threads", "gflops")
_FARTHEST = 2.0  # Factor in width over which a rate is carried; it rises with the width.


@dataclass(frozen=True, slots=True)
class DeviceRate:
    """How fast a device trains.

    Attributes:
        flops_per_s: useful operations per second, of the matrix products of updates.
        replicas: runs in a pack at which it was measured; None for an estimate.
        basis: where the figure is from, for people.
        measured: at this width; false for an estimate and for another width's rate.
        threads: of the CPU that this is the rate of; None for other devices.
    """

    flops_per_s: float
    replicas: int | None
    basis: str
    measured: bool
    threads: int | None = None


def read_rates(path: Path | None = None) -> list[dict[str, str]]:
    """Rows of a table that `bench speed --out FILE.csv` wrote; by default those kept here.

    Raises:
        ValueError: the file is no such table.
        OSError: it cannot be read.
    """
    source = files("bench.training") / "rates.csv" if path is None else path
    rows = list(csv.DictReader(source.read_text(encoding="utf-8").splitlines()))
    missing = [name for name in _NEEDED if not rows or name not in rows[0]]
    if missing:
        raise ValueError(
            f"{source} lacks {', '.join(missing)}: give a table that `bench speed --out FILE.csv` "
            "wrote"
        )
    return [row for row in rows if row["gflops"]]


def device_rate(
    rows: Sequence[Mapping[str, str]],
    device: str,
    agent: str,
    width: int,
    precision: str,
    mode: str = "eager",
    *,
    utilisation: float | None = None,
) -> DeviceRate:
    """The fastest measured rate of an agent at a width, or at one within a factor of two of it.

    Rates of the CPU are those of the fewest threads that were measured at that width.

    Args:
        rows: see :func:`read_rates`.
        device: part of a device's name, such as `cpu` or `h200`.
        agent: name in the registry.
        width: of the hidden layers.
        precision: of the matrix products.
        mode: of execution, :data:`bench.experiment.Mode`; others are never taken instead.
        utilisation: where nothing was measured, estimate by this part of the device's peak.

    Raises:
        ValueError: nothing was measured and there is no utilisation, or no peak to apply it to.
    """
    found = [
        row
        for row in rows
        if device.lower() in row["device"].lower()
        and (row["agent"], row["precision"], row["mode"]) == (agent, precision, mode)
    ]
    widths = sorted({int(row["width"]) for row in found})
    nearest = min(widths, key=lambda w: (_apart(w, width), w), default=0)
    if found and _apart(nearest, width) <= _FARTHEST:
        found = [row for row in found if int(row["width"]) == nearest]
        if all(map(_on_cpu, found)):
            fewest = min(map(_threads, found))
            found = [row for row in found if _threads(row) == fewest]
        return _measured(max(found, key=lambda row: float(row["gflops"])), width)
    peak = PEAKS.get(device.lower(), {}).get(precision)
    if utilisation is None or peak is None:
        known = "" if peak else f" (peaks are known of {', '.join(PEAKS)})"
        others = f"near width {width}; there is {', '.join(map(str, widths))}" if widths else "yet"
        raise ValueError(
            f"no {precision} rate of {agent}, {mode}, on {device!r} has been measured {others}. "
            f"Run there\n"
            f"  python -m bench.speed --agents {agent} --widths {width} --replicas 1 10 40 "
            f"--precisions {precision} --modes {mode} --out rates.csv\n"
            f"and give --rates rates.csv; or estimate with --utilisation 0.3{known}"
        )
    if not 0.0 < utilisation <= 1.0:
        raise ValueError(f"utilisation must lie in (0, 1], got {utilisation}")
    return DeviceRate(
        utilisation * peak,
        None,
        f"ESTIMATE: {100 * utilisation:.0f} % of the {precision} peak of {peak / 1e12:,.4g} "
        "TFLOP/s on the data sheet; nothing was measured",
        False,
    )


def _measured(row: Mapping[str, str], width: int) -> DeviceRate:
    replicas, threads = int(row["replicas"]), _threads(row)
    parts = [f"measured {row.get('date') or '(undated)'} on {row['device']}"]
    if _on_cpu(row):
        parts.append(count_threads(threads))
    parts += [row["mode"], "one run" if replicas == 1 else f"{replicas} runs in a pack"]
    there = int(row["width"]) == width
    basis = ", ".join(parts)
    return DeviceRate(
        1e9 * float(row["gflops"]),
        replicas,
        basis if there else f"EXTRAPOLATED from width {row['width']}, {basis}",
        there,
        threads if _on_cpu(row) else None,
    )


def count_threads(threads: int) -> str:
    """The number for people."""
    return "one thread" if threads == 1 else f"{threads} threads"


def _apart(width: int, other: int) -> float:
    """By which factor two widths differ."""
    return max(width, other) / max(1, min(width, other))


def _on_cpu(row: Mapping[str, str]) -> bool:
    return row["device"].lower() == "cpu"


def _threads(row: Mapping[str, str]) -> int:
    """That took part, of all processes."""
    return int(row["threads"]) * int(row.get("processes") or 1)

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

_NEEDED = ("device", "agent", "width", "replicas", "precision", "gflops")


@dataclass(frozen=True, slots=True)
class DeviceRate:
    """How fast a device trains.

    Attributes:
        flops_per_s: useful operations per second, of the matrix products of updates.
        replicas: runs in a pack at which it was measured; None for an estimate.
        basis: where the figure is from, for people.
        measured: false for an estimate.
    """

    flops_per_s: float
    replicas: int | None
    basis: str
    measured: bool


def read_rates(path: Path | None = None) -> list[dict[str, str]]:
    """Rows of a table that `bench speed --out FILE.csv` wrote; by default those kept here.

    Raises:
        ValueError: the file is no such table.
        OSError: it cannot be read.
    """
    source = files("bench.scale") / "rates.csv" if path is None else path
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
    *,
    utilisation: float | None = None,
) -> DeviceRate:
    """The fastest measured rate of an agent at a width, or of the nearest width.

    Args:
        rows: see :func:`read_rates`.
        device: part of a device's name, such as `cpu` or `h200`.
        agent: name in the registry.
        width: of the hidden layers.
        precision: of the matrix products.
        utilisation: where nothing was measured, estimate by this part of the device's peak.

    Raises:
        ValueError: nothing was measured and there is no utilisation, or no peak to apply it to.
    """
    found = [
        row
        for row in rows
        if device.lower() in row["device"].lower()
        and row["agent"] == agent
        and row["precision"] == precision
    ]
    if found:
        near = min(abs(int(row["width"]) - width) for row in found)
        best = max(
            (row for row in found if abs(int(row["width"]) - width) == near),
            key=lambda row: float(row["gflops"]),
        )
        said = f"measured {best.get('date') or '(undated)'} on {best['device']}"
        other = "" if near == 0 else f", at width {best['width']}"
        return DeviceRate(
            1e9 * float(best["gflops"]),
            int(best["replicas"]),
            f"{said}, {best['replicas']} runs in a pack{other}",
            True,
        )
    peak = PEAKS.get(device.lower(), {}).get(precision)
    if utilisation is None or peak is None:
        known = "" if peak else f" (peaks are known of {', '.join(PEAKS)})"
        raise ValueError(
            f"no {precision} rate of {agent} on {device!r} has been measured. Run there\n"
            f"  python -m bench.speed --agents {agent} --widths 512 1024 --replicas 1 10 40 "
            f"--precisions {precision} --out rates.csv\n"
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

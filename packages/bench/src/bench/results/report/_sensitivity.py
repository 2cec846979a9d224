"""Success against a swept setting, such as the paper's figure of sensitivity to the KL budget."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.figure import Figure

from bench.results._scores import method_label
from bench.results.report._style import STYLE, finish, grid, looks_of, short_number

__all__ = ["Sweep", "sensitivity", "sweeps_of"]

_WIDE = 8.0  # ratio of largest to smallest value from which an axis is logarithmic


@dataclass(frozen=True, slots=True)
class Sweep:
    """A setting with several numeric values, and the results at each.

    Attributes:
        setting: its name, as in `bench sweep --over`.
        lines: label to rows of `FinalTable.domains` with the column `value`, sorted by it.
    """

    setting: str
    lines: dict[str, pl.DataFrame]

    @property
    def label(self) -> str:
        """For axes and titles."""
        return self.setting.replace("-", " ").replace("kl ", "KL ")


def sweeps_of(domains: pl.DataFrame) -> list[Sweep]:
    """The numeric settings that were swept, by the variants' names.

    A line holds everything else fixed: domain, agent, phase, and the other swept settings.

    Args:
        domains: `FinalTable.domains`.
    """
    rows = domains.filter(pl.col("success").is_not_null())
    several_phases = rows["phase"].n_unique() > 1
    found: dict[str, dict[str, list[dict[str, object]]]] = {}
    for row in rows.iter_rows(named=True):
        assigned = dict(part.split("=", 1) for part in row["variant"].split(", ") if "=" in part)
        for setting, text in assigned.items():
            if (value := _number(text)) is None:
                continue
            rest = ", ".join(f"{k}={v}" for k, v in assigned.items() if k != setting)
            line = f"{row['domain']}, {method_label(row['agent'], rest)}"
            if several_phases:
                line += f", {row['phase']}"
            found.setdefault(setting, {}).setdefault(line, []).append(row | {"value": value})
    schema = dict(domains.schema) | {"value": pl.Float64()}
    return [
        Sweep(setting, complete)
        for setting, lines in found.items()
        if (
            complete := {
                label: pl.DataFrame(points, schema=schema).sort("value")
                for label, points in lines.items()
                if len(points) > 1
            }
        )
    ]


def sensitivity(sweep: Sweep, *, note: str = "") -> Figure:
    """Success with 95 % intervals against the setting, a line per domain and agent."""
    values = np.concatenate([line["value"].to_numpy() for line in sweep.lines.values()])
    with mpl.rc_context(STYLE):
        figure, (axis,) = grid(1)
        looks = looks_of(list(sweep.lines))
        for label, line in sweep.lines.items():
            value = 100 * line["success"].to_numpy()
            low, high = (
                100 * line[name].fill_null(line["success"]).to_numpy()
                for name in ("success_low", "success_high")
            )
            ends = np.stack([value - low, high - value]).clip(0)
            axis.errorbar(
                line["value"].to_numpy(), value, ends, marker="o", capsize=2,
                color=looks[label][0], linestyle=looks[label][1], label=label,
            )  # fmt: skip
        if values.min() > 0 and values.max() >= _WIDE * values.min():
            axis.set_xscale("log")
            axis.set_xticks(np.unique(values), minor=False)
            axis.set_xticks([], minor=True)
        axis.xaxis.set_major_formatter(short_number)
        axis.set_ylim(-3, 103)
        axis.set_xlabel(sweep.label)
        axis.set_ylabel("success, %")
        finish(figure, [axis], note)
    return figure


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None

"""Lines of the figures: a quantity over training steps, with a band over runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.experiment import Phase
from bench.results._cells import without_stopped
from bench.results._final import rate_interval
from bench.results._scan import planned_cells, scan_training
from bench.results._schema import PHASES
from bench.results._scores import method_label

__all__ = ["Curve", "panel_names", "success_curves", "training_curves"]

_METHOD = ["suite", "agent", "variant"]
_RESAMPLES = 2_000  # of a band that is a few pixels wide
_BINS = 200  # points of a training curve


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of one method in one panel.

    Attributes:
        panel: which panel (a task, or a domain where there are several).
        method: agent and variant.
        steps: training steps, online ones following the offline ones, `(points,)`.
        value: `(points,)`; rates are fractions.
        low: lower end of the band, `(points,)`.
        high: upper end of the band, `(points,)`.
        runs: runs averaged.
        band: what the band is.
        reference: a method whose training ended before the others', drawn as a level.
    """

    panel: str
    method: str
    steps: NDArray[np.float64]
    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    runs: int
    band: str
    reference: bool = False


def panel_names(rows: pl.DataFrame) -> pl.Expr:
    """Expression that names the panel of a row: its domain, or its task if there is one domain."""
    short = pl.col("task").str.replace("-singletask", "").str.replace("-v0$", "")
    name = short if rows["domain"].n_unique() == 1 else pl.col("domain")
    return (pl.col("suite") + ": " + name) if rows["suite"].n_unique() > 1 else name


def success_curves(evaluations: pl.DataFrame, cells: pl.DataFrame) -> list[Curve]:
    """Success rate over training; a step counts only where every run of the line has reached it.

    Stopped runs are in no line.

    Args:
        evaluations: `labelled_evaluations`.
        cells: `cell_results`.
    """
    rows = without_stopped(evaluations.filter(pl.col("success_rate").is_not_null()), cells)
    rows = rows.with_columns(panel=panel_names(cells), x=_shifted(cells))
    curves = []
    for (panel, _, agent, variant), part in _parts(rows, ["panel", *_METHOD]):
        points, runs = _common_steps(part)
        intervals = [rate_interval(point, _rates(point), _RESAMPLES) for point in points]
        means = np.array([interval.value for interval, _ in intervals])
        curves.append(
            Curve(
                panel,
                method_label(agent, variant),
                np.array([float(point["x"][0]) for point in points]),
                means,
                np.array([interval.low for interval, _ in intervals]),
                np.array([interval.high for interval, _ in intervals]),
                runs,
                f"95 %, {intervals[-1][1]}" if intervals[-1][1] else "none",
                reference=set(part["phase"]) == {Phase.PRETRAIN},
            )
        )
    return curves


def training_curves(runs: Sequence[Path], cells: pl.DataFrame, metric: str) -> list[Curve]:
    """A training metric over steps: mean, smallest and largest over runs, in at most 200 bins.

    Args:
        runs: as for `final_table`.
        cells: `cell_results`.
        metric: its name; values that are not finite are left out, and stopped runs, and a
            `kl_budget` that nothing reads because lambda is held fixed.
    """
    keys = ["suite", "domain", "task", *_METHOD[1:], "seed", "phase"]
    logged = (
        scan_training(runs)
        .filter((pl.col("metric") == metric) & pl.col("value").is_finite())
        .select(*keys, "step", "value")
        .collect()
    )
    logged = without_stopped(logged, cells)
    if metric == "kl_budget":
        held = planned_cells(runs).filter("fixed_lambda")
        logged = logged.join(held, on=keys, how="anti", nulls_equal=True)
    if logged.is_empty():
        return []
    logged = logged.with_columns(panel=panel_names(cells), x=_shifted(cells))
    width = max(1, int(logged["x"].to_numpy().max()) // _BINS)
    binned = logged.group_by("panel", *keys, pl.col("x") // width * width).agg(
        pl.col("value").mean()
    )
    curves = []
    for (panel, _, agent, variant), part in _parts(binned, ["panel", *_METHOD]):
        line = part.group_by("x").agg(
            value=pl.col("value").mean(), low=pl.col("value").min(), high=pl.col("value").max()
        )
        line = line.sort("x")
        curves.append(
            Curve(
                panel,
                method_label(agent, variant),
                line["x"].cast(pl.Float64).to_numpy(),
                line["value"].to_numpy(),
                line["low"].to_numpy(),
                line["high"].to_numpy(),
                part.select("task", "seed").n_unique(),
                "smallest to largest run",
            )
        )
    return curves


def _parts(
    rows: pl.DataFrame, by: Sequence[str]
) -> list[tuple[tuple[str, str, str, str], pl.DataFrame]]:
    parts = rows.sort("x", "phase").partition_by(list(by), as_dict=True)
    return sorted(parts.items(), key=lambda entry: entry[0])


def _shifted(cells: pl.DataFrame) -> pl.Expr:
    """Step on an axis on which the online phase follows the offline phase."""
    offline = cells.filter(pl.col("phase") == PHASES[1])["planned_step"].max()
    online = pl.col("phase") == PHASES[2]
    return pl.col("step") + pl.when(online).then(pl.lit(offline or 0)).otherwise(0)


def _common_steps(part: pl.DataFrame) -> tuple[list[pl.DataFrame], int]:
    # The last offline and the first online evaluation share a place on the axis.
    points = part.partition_by("phase", "x", maintain_order=True)
    runs = max(point.height for point in points)
    return [point for point in points if point.height == runs], runs


def _rates(point: pl.DataFrame) -> list[NDArray[np.float64]]:
    return [task["success_rate"].to_numpy() for task in point.partition_by("task")]

"""How far runs are: what `bench status` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from bench.results._cells import cell_results
from bench.results._scan import planned_cells, scan_evaluations
from bench.storage import LockHolder, lock_holder, run_directories

__all__ = ["RunProgress", "run_progress"]


@dataclass(frozen=True, slots=True)
class RunProgress:
    """State of one run directory.

    Attributes:
        directory: the run.
        done: cells that are finished.
        running: cells of packs that have begun, while a process works on the run.
        failed: cells that stopped with a failure.
        planned: all cells.
        updates_per_second: of the pack that wrote last, None before its second evaluation.
        remaining: time to the end at the rate so far, None if unknown or nobody works on it.
        holder: the process that works on it.
        last_row: when the last row was written.
    """

    directory: Path
    done: int
    running: int
    failed: int
    planned: int
    updates_per_second: float | None
    remaining: timedelta | None
    holder: LockHolder | None
    last_row: datetime | None

    @property
    def state(self) -> str:
        """`done`, `running`, `failed` or `stopped`."""
        if self.done == self.planned:
            return "done"
        if self.holder is not None:
            return "running"
        return "failed" if self.failed else "stopped"


def run_progress(runs: Sequence[Path], now: datetime | None = None) -> list[RunProgress]:
    """Progress of the runs at or below `runs`, without disturbing them.

    Raises:
        ResultsError: there is no run, or a table cannot be read.
    """
    return [_progress(path, now or datetime.now(UTC)) for path in run_directories(runs)]


def _progress(directory: Path, now: datetime) -> RunProgress:
    cells = cell_results([directory])
    keys = ["suite", "domain", "task", "agent", "variant", "seed"]
    whole = cells.group_by(keys).agg(
        pl.col("finished").all(),
        failed=pl.col("failure").is_not_null().any(),
        begun=pl.col("step").is_not_null().any(),
    )
    holder = lock_holder(directory)
    open_cells = whole.filter(~pl.col("finished") & ~pl.col("failed"))
    rate, left = _pace(directory, now)
    return RunProgress(
        directory,
        done=int(whole["finished"].sum()),
        running=int(open_cells["begun"].sum()) if holder is not None else 0,
        failed=int((whole["failed"] & ~whole["finished"]).sum()),
        planned=whole.height,
        updates_per_second=rate,
        remaining=left if holder is not None else None,
        holder=holder,
        last_row=cells["recorded_at"].drop_nulls().max(),  # type: ignore[arg-type]
    )


def _pace(directory: Path, now: datetime) -> tuple[float | None, timedelta | None]:
    """Rate of the pack that wrote last, and the time until all packs are at their end."""
    keys = ["pack", "phase"]
    plan = planned_cells([directory]).group_by(keys).agg(pl.col("planned_step").max())
    packs = planned_cells([directory]).drop("run", "planned_step")
    rows = scan_evaluations([directory]).drop("run").collect()
    if rows.is_empty() or plan.is_empty():
        return None, None
    order = [name for name in packs.columns if name != "pack"]
    written = rows.join(packs, on=order).group_by(keys).agg(
        pl.col("step").max(),
        first=pl.col("step").min(),
        begun=pl.col("recorded_at").min(),
        last=pl.col("recorded_at").max(),
        updates_per_second=pl.col("updates_per_second").sort_by("step").last(),
    )  # fmt: skip
    # Evaluations take their share of the time, so the pace is taken between rows.
    seconds = (pl.col("last") - pl.col("begun")).dt.total_microseconds() / 1e6
    paced = plan.join(written, on=keys, how="left").with_columns(
        pace=pl.when(pl.col("step") > pl.col("first"))
        .then(seconds / (pl.col("step") - pl.col("first")))
        .otherwise(1 / pl.col("updates_per_second"))
    )
    newest = written.sort("last").row(-1, named=True)
    typical = paced["pace"].mean()
    if not isinstance(typical, float):
        return newest["updates_per_second"], None
    left = paced.select(
        (
            (pl.col("planned_step") - pl.col("step").fill_null(0)).clip(0)
            * pl.col("pace").fill_null(typical)
        ).sum()
    ).item()
    waited = (now - newest["last"]).total_seconds()
    return newest["updates_per_second"], timedelta(seconds=max(0.0, round(left - waited)))

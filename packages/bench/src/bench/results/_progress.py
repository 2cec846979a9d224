"""How far runs are: what `bench status` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from bench.results._cells import cell_results
from bench.results._scan import planned_cells, scan_evaluations, scan_training
from bench.results._schema import CELL_COLUMNS
from bench.storage import LockHolder, lock_holder, run_directories

__all__ = ["RunProgress", "run_progress"]


@dataclass(frozen=True, slots=True)
class RunProgress:
    """State of one run directory.

    Attributes:
        directory: the run.
        done: cells that are finished.
        running: cells that have begun and not ended, while a process works on the run.
        failed: cells that stopped with a failure.
        planned: all cells.
        updates_per_second: as the last row says.
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
    trained = scan_training([directory]).select(CELL_COLUMNS).unique().collect()
    whole = (
        cells.group_by(CELL_COLUMNS)
        .agg(
            pl.col("finished").all(),
            failed=pl.col("failure").is_not_null().any(),
            measured=pl.col("step").is_not_null().any(),
        )
        .join(trained.with_columns(trained=True), on=CELL_COLUMNS, how="left")
    )
    holder = lock_holder(directory)
    begun = whole["measured"] | whole["trained"].fill_null(value=False)
    rate, left = _pace(directory, now)
    return RunProgress(
        directory,
        done=int(whole["finished"].sum()),
        running=int((begun & ~whole["finished"] & ~whole["failed"]).sum()) if holder else 0,
        failed=int((whole["failed"] & ~whole["finished"]).sum()),
        planned=whole.height,
        updates_per_second=rate,
        remaining=left if holder is not None else None,
        holder=holder,
        last_row=max(cells["recorded_at"].drop_nulls().to_list(), default=None),
    )


def _pace(directory: Path, now: datetime) -> tuple[float | None, timedelta | None]:
    """Rate of the pack that wrote last, and the time until all packs are at their end."""
    planned = planned_cells([directory])
    rows = scan_evaluations([directory]).drop("run").collect()
    if rows.is_empty() or planned.is_empty():
        return None, None
    pack = ["pack", "agent", "phase"]
    written = (
        rows.join(planned.select(*CELL_COLUMNS, "phase", "pack"), on=[*CELL_COLUMNS, "phase"])
        .group_by(pack)
        .agg(
            pl.col("step").max(),
            first=pl.col("step").min(),
            begun=pl.col("recorded_at").min(),
            last=pl.col("recorded_at").max(),
            rate=pl.col("updates_per_second").sort_by("step").last(),
        )
    )
    if written.is_empty():
        return None, None
    # Evaluations take their share of the time, so the pace is taken between rows where there are
    # two; packs that have not begun are expected to go as the others of their agent.
    seconds = (pl.col("last") - pl.col("begun")).dt.total_microseconds() / 1e6
    paced = written.with_columns(
        pace=pl.when(pl.col("step") > pl.col("first"))
        .then(seconds / (pl.col("step") - pl.col("first")))
        .otherwise(1 / pl.col("rate"))
    )
    packs = (
        planned.group_by(pack).agg(pl.col("planned_step").max()).join(paced, on=pack, how="left")
    )
    pace = pl.col("pace").fill_null(pl.col("pace").mean().over("agent", "phase"))
    steps = (pl.col("planned_step") - pl.col("step").fill_null(0)).clip(0)
    left = packs.select(left=pl.when(steps == 0).then(0.0).otherwise(steps * pace))["left"]
    newest = written.sort("last").row(-1, named=True)
    overdue = (now - newest["last"]).total_seconds()
    if left.null_count() or float(left.sum()) < overdue:
        return newest["rate"], None
    return newest["rate"], timedelta(seconds=round(float(left.sum()) - overdue))

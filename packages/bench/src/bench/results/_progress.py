"""How far runs are: what `bench status` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from bench.experiment import Phase
from bench.results._cells import cell_results
from bench.results._scan import planned_cells, scan_evaluations, scan_training
from bench.results._schema import CELL_COLUMNS, PHASES
from bench.storage import LockHolder, lock_holder, run_directories

__all__ = ["RunProgress", "run_progress"]


@dataclass(frozen=True, slots=True)
class RunProgress:
    """State of one run directory.

    A cell is done when all its planned phases are. Phases count by themselves in `phases`.

    Attributes:
        directory: the run.
        done: cells that are finished.
        running: cells of the packs that are worked on.
        failed: cells that stopped with a failure.
        planned: all cells.
        phases: phase to finished and planned cells of that phase, in order of time.
        share: of all planned steps, how many are made; a fraction.
        updates_per_second: of all packs that are worked on, as their last rows say (before their
            second evaluation, as their training log says, or as those of others like them); of the
            last one if none is.
        remaining: time to the end at the rate so far, None if unknown or nobody works on it.
        holder: the process that works on it.
        last_row: when the last row was written.
    """

    directory: Path
    done: int
    running: int
    failed: int
    planned: int
    phases: dict[str, tuple[int, int]]
    share: float
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
    whole = cells.group_by(CELL_COLUMNS).agg(
        pl.col("finished").all(), failed=pl.col("failure").is_not_null().any()
    )
    holder = lock_holder(directory)
    packs = _packs(directory, cells)
    working = _working(directory, packs, busy=holder is not None)
    phases = cells.group_by("phase").agg(pl.col("finished").sum(), planned=pl.len())
    counted = {phase: (int(done), int(planned)) for phase, done, planned in phases.iter_rows()}
    rates = working if working.height else packs.sort("last", nulls_last=False).tail(1)
    rate = rates["rate"].drop_nulls()
    steps = float((packs["planned_step"] * packs["cells"]).sum())
    made = float((packs["step"] * packs["cells"]).sum())
    return RunProgress(
        directory,
        done=int(whole["finished"].sum()),
        running=int(working["unfinished"].sum()),
        failed=int((whole["failed"] & ~whole["finished"]).sum()),
        planned=whole.height,
        phases={phase: counted[phase] for phase in PHASES if phase in counted},
        share=made / steps if steps else 0.0,
        updates_per_second=float(rate.sum()) if len(rate) else None,
        remaining=_remaining(packs, max(1, working.height), now) if holder is not None else None,
        holder=holder,
        last_row=max(cells["recorded_at"].drop_nulls().to_list(), default=None),
    )


_PACK = ["pack", "agent", "phase"]


def _packs(directory: Path, cells: pl.DataFrame) -> pl.DataFrame:
    """One row per planned pack.

    Returns:
        `pack`, `agent`, `phase`, `planned_step`, `cells`, `unfinished` (cells, failed ones left
        out), `step` (as the newest row of either table says), `last` (time of the last evaluation),
        `rate` (updates a second) and `pace` (seconds a step); the last three null where unknown.
    """
    planned = planned_cells([directory])
    of_pack = planned.select(*CELL_COLUMNS, "phase", "pack")
    keys = [*CELL_COLUMNS, "phase"]
    ended = cells.filter(pl.col("finished") | pl.col("failure").is_not_null()).select(keys)
    open_cells = of_pack.join(ended, on=keys, how="anti").group_by("pack").len("unfinished")
    evaluated = _evaluated(directory, of_pack)
    logged = (
        scan_training([directory]).select(*keys, "step").collect().join(of_pack, on=keys)
        .group_by("pack").agg(logged=pl.col("step").max())
    )  # fmt: skip
    written = [_written(directory / "packs" / name) for name in logged["pack"]]
    logged = logged.with_columns(written=pl.Series(written, dtype=pl.Datetime("us", "UTC")))
    packs = (
        planned.group_by(_PACK)
        .agg(pl.col("planned_step").max(), cells=pl.len())
        .join(open_cells, on="pack", how="left")
        .join(evaluated, on="pack", how="left")
        .join(logged, on="pack", how="left")
    )
    # Evaluations take their share of the time, so the pace is taken between rows where there are
    # two; packs without any are expected to go as the others of their agent, or else of the phase.
    seconds = (pl.col("last") - pl.col("begun")).dt.total_microseconds() / 1e6
    pace = (
        pl.when(pl.col("evaluated") > pl.col("first"))
        .then(seconds / (pl.col("evaluated") - pl.col("first")))
        .otherwise(1 / pl.col("rate"))
    )
    # Until the second evaluation there is the log since the first.
    span = (pl.col("written") - pl.col("begun")).dt.total_microseconds() / 1e6
    new = pl.col("logged") - pl.col("first")
    logged_pace = pl.when((span > 0) & (new > 0)).then(span / new)
    of_updates = pl.col("phase") != Phase.ONLINE  # online they are of environment steps
    logged_rate = pl.when(of_updates).then(1 / logged_pace)

    def likely(value: pl.Expr) -> pl.Expr:
        return pl.coalesce(value, value.mean().over("agent", "phase"), value.mean().over("phase"))

    return packs.with_columns(
        unfinished=pl.col("unfinished").fill_null(0),
        step=pl.max_horizontal("evaluated", "logged").fill_null(0).clip(0, pl.col("planned_step")),
        rate=likely(pl.coalesce("rate", logged_rate)),
        pace=likely(pl.coalesce(pace, logged_pace)),
    )


def _evaluated(directory: Path, of_pack: pl.DataFrame) -> pl.DataFrame:
    """Of every pack with an evaluation: its first and last step, their times, the last rate."""
    rows = scan_evaluations([directory]).drop("run").collect()
    return (
        rows.join(of_pack, on=[*CELL_COLUMNS, "phase"])
        .group_by("pack")
        .agg(
            evaluated=pl.col("step").max(),
            first=pl.col("step").min(),
            begun=pl.col("recorded_at").min(),
            last=pl.col("recorded_at").max(),
            rate=pl.col("updates_per_second").sort_by("step").last(),
        )
    )


def _written(pack: Path) -> datetime | None:
    """When a pack logged last; None where its table lies elsewhere."""
    try:
        return datetime.fromtimestamp((pack / "training.parquet").stat().st_mtime, UTC)
    except FileNotFoundError:
        return None


def _working(directory: Path, packs: pl.DataFrame, *, busy: bool) -> pl.DataFrame:
    """The packs that are worked on: those whose locks are held, or the one that wrote last."""
    unfinished = packs.filter(pl.col("unfinished") > 0)
    if not busy:
        return unfinished.clear()
    held = [
        name for name in unfinished["pack"] if lock_holder(directory / "packs" / name) is not None
    ]
    if held:
        return unfinished.filter(pl.col("pack").is_in(held))
    # A process that trains one pack after the other locks the run only.
    return unfinished.filter(pl.col("step") > 0).sort("last", nulls_last=True).tail(1)


def _remaining(packs: pl.DataFrame, workers: int, now: datetime) -> timedelta | None:
    """Time until all packs are at their end, if so many are worked on at a time."""
    packs = packs.filter(pl.col("unfinished") > 0)
    left = ((packs["planned_step"] - packs["step"]).clip(0) * packs["pace"]).to_list()
    if None in left:
        return None
    # Packs share the workers evenly, but one pack is never divided.
    seconds = max(sum(left) / workers, max(left, default=0.0))
    newest = packs["last"].drop_nulls().max()
    behind = packs.filter(pl.col("step") > pl.col("evaluated").fill_null(0)).height
    if isinstance(newest, datetime) and not behind:
        seconds -= (now - newest).total_seconds()
    return timedelta(seconds=round(seconds)) if seconds >= 0 else None

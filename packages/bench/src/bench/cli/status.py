"""`bench status`: how far runs are."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from rich.table import Table

    from bench.results import RunProgress

__all__ = ["Status"]


@dataclass(frozen=True)
class Status:
    """Show cells done, running and failed, the rate and the remaining time of runs.

    Attributes:
        runs: run directories, or folders that hold some; ./runs by default.
        watch: show again every so many seconds, until interrupted or nothing runs any more.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    watch: float | None = None

    def run(self) -> int:
        """Print the table; 1 if a cell failed."""
        if self.watch is not None and self.watch <= 0:
            raise ValueError(f"--watch must be a positive number of seconds, given {self.watch}")
        from rich.live import Live

        from bench.results import run_progress

        runs = self.runs or (Path("runs"),)
        progress = run_progress(runs)
        with Live(_table(progress), auto_refresh=False) as live:
            while self.watch is not None and any(run.state == "running" for run in progress):
                time.sleep(self.watch)
                progress = run_progress(runs)
                live.update(_table(progress), refresh=True)
        return 1 if any(run.failed for run in progress) else 0


def _table(progress: list[RunProgress]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("run", "state"):
        table.add_column(column, overflow="fold")
    for column in ("done", "running", "failed", "updates/s", "remaining", "last row"):
        table.add_column(column, justify="right", no_wrap=True)
    folder = Path(os.path.commonpath([run.directory.parent for run in progress]))
    now = datetime.now(UTC)
    for run in progress:
        rate, last = run.updates_per_second, run.last_row
        table.add_row(
            str(run.directory.relative_to(folder)),
            run.state if run.holder is None else f"{run.state} (process {run.holder.pid})",
            f"{run.done}/{run.planned}",
            str(run.running),
            str(run.failed),
            "–" if rate is None else f"{rate:,.3g}",
            "–" if run.remaining is None else _short(run.remaining),
            "–" if last is None else f"{_short(now - last)} ago",
        )
    return table


def _short(duration: timedelta) -> str:
    hours, seconds = divmod(int(duration.total_seconds()), 3600)
    minutes, seconds = divmod(seconds, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min" if minutes else f"{seconds} s"

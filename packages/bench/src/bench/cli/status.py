"""`bench status`: how far runs are."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
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
        if self.watch is not None and not 0 < self.watch < 1e6:
            raise ValueError(f"--watch must be a positive number of seconds, given {self.watch}")
        from rich.live import Live

        from bench.results import run_progress
        from bench.terminal import standard_output

        runs = self.runs or (Path("runs"),)
        progress = run_progress(runs)
        console = standard_output()
        with ExitStack() as stack:
            show: Callable[[Table], None] = console.print
            if self.watch is not None and console.is_terminal:
                live = stack.enter_context(Live(console=console, auto_refresh=False))
                show = partial(live.update, refresh=True)
            show(_table(progress))
            while self.watch is not None and any(run.state == "running" for run in progress):
                time.sleep(self.watch)
                progress = run_progress(runs)
                show(_table(progress))
        return 1 if any(run.failed for run in progress) else 0


def _table(progress: list[RunProgress]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("run", "state"):
        table.add_column(column, overflow="fold")
    numbers = ("done", "running", "failed", "steps", "updates/s", "remaining", "last row")
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    phased = any(len(run.phases) > 1 for run in progress)
    if phased:
        table.add_column("phases", no_wrap=True)
    folder = Path(os.path.commonpath([run.directory.parent for run in progress]))
    now = datetime.now(UTC)
    for run in progress:
        rate, last = run.updates_per_second, run.last_row
        phases = (f"{name} {done}/{planned}" for name, (done, planned) in run.phases.items())
        table.add_row(
            Text(str(run.directory.relative_to(folder))),  # brackets are no markup
            run.state if run.holder is None else f"{run.state} (process {run.holder.pid})",
            f"{run.done}/{run.planned}",
            str(run.running),
            str(run.failed),
            f"{run.share:.0%}",
            "–" if rate is None else f"{rate:,.3g}",
            "–" if run.remaining is None else _short(run.remaining),
            "–" if last is None else f"{_short(now - last)} ago",
            *([", ".join(phases)] if phased else []),
        )
    if len(progress) > 1:
        table.add_section()
        left = [run.remaining for run in progress if run.remaining is not None]
        table.add_row(
            "all",
            f"{sum(run.state == 'done' for run in progress)}/{len(progress)} runs done",
            f"{sum(run.done for run in progress)}/{sum(run.planned for run in progress)}",
            str(sum(run.running for run in progress)),
            str(sum(run.failed for run in progress)),
            "", "",
            _short(max(left)) if left else "–",
        )  # fmt: skip
    return table


def _short(duration: timedelta) -> str:
    hours, seconds = divmod(int(duration.total_seconds()), 3600)
    minutes, seconds = divmod(seconds, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min" if minutes else f"{seconds} s"

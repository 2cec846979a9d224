"""`bench status`: how far runs are."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro

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
            raise ValueError(f"--watch must be a positive number of seconds, got {self.watch}")
        from rich.live import Live

        from bench.api.reading import status
        from bench.api.tables import progress_table
        from bench.terminal import standard_output

        found = status(self.runs or "runs")
        console = standard_output()
        with ExitStack() as stack:
            show: Callable[[Any], None] = console.print
            if self.watch is not None and console.is_terminal:
                live = stack.enter_context(Live(console=console, auto_refresh=False))
                show = partial(live.update, refresh=True)
            show(progress_table(found.progress))
            while self.watch is not None and found.running:
                time.sleep(self.watch)
                found = status(self.runs or "runs")
                show(progress_table(found.progress))
        return 1 if any(run.failed for run in found.progress) else 0

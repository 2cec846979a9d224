"""Tables for people."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.results import PHASES, Comparison, FinalTable, RunProgress

__all__ = ["print_comparison", "print_returns", "progress_table"]


def print_returns(table: FinalTable, console: Console) -> None:
    """Print returns of the last evaluation, where success alone says too little."""
    shown = Table("phase", "agent", "seed", "step", "mean return", title="returns")
    in_time = pl.col("phase").cast(pl.Enum(PHASES))
    for row in table.cells.sort(in_time, "agent", "seed").iter_rows(named=True):
        if row["return_mean"] is not None:
            agent = " ".join(filter(None, (row["agent"], row["variant"])))
            value = f"{row['return_mean']:,.2f}"
            shown.add_row(row["phase"], agent, str(row["seed"]), f"{row['step']:,}", value)
    console.print(shown)


def print_comparison(first: Path, second: Path, comparison: Comparison, console: Console) -> None:
    """Print the verdict, the methods, what was set otherwise, and notes."""
    console.print(f"{comparison.verdict}.", markup=False, style="bold")
    console.print(f"A: {first}\nB: {second}", markup=False, soft_wrap=True)
    results = Table(title="Success", title_justify="left", box=box.SIMPLE_HEAD)
    columns = ("methods", "tasks", "A %", "B %", "runs", "A - B", "95 %", "A beats B", "p")
    for column in columns:
        results.add_column(column, justify="left" if column == "methods" else "right")
    for method in comparison.methods:
        low, high = 100 * method.difference.low, 100 * method.difference.high
        results.add_row(
            Text(method.name),
            str(method.tasks),
            *(f"{100 * rate:.1f}" for rate in method.success),
            f"{method.runs[0]}, {method.runs[1]}",
            f"{100 * method.difference.value:+.1f}",
            Text("–" if method.one_seed else f"[{low:+.1f}, {high:+.1f}]"),
            f"{method.improvement:.2f}",
            "–" if method.one_seed else f"{method.p_corrected:.2g}",
        )
    console.print(results)
    for title, differences in (
        ("Settings that differ", comparison.settings),
        ("Environment", comparison.environment),
    ):
        if not differences:
            console.print(f"{title}: {'none' if 'differ' in title else 'the same'}")
            continue
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for column in ("name", "A", "B"):
            table.add_column(column, overflow="fold")
        for name, values in differences.items():
            table.add_row(*map(Text, (name, *values)))
        console.print(table)
    for note in comparison.notes:
        console.print(f"note: {note}", markup=False, style="yellow")
    for line in comparison.failed:
        console.print(f"failed: {line}", markup=False, style="red")


def progress_table(progress: Sequence[RunProgress]) -> Table:
    """A row per run directory."""
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

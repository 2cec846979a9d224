"""What the functions return."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import polars as pl
from rich.console import Console

from bench.api.tables import print_comparison, print_returns, progress_table
from bench.errors import BenchError
from bench.results import (
    Comparison,
    FinalTable,
    RunProgress,
    print_table,
    scan_evaluations,
    scan_training,
    task_view,
)
from bench.terminal import standard_output

__all__ = ["ComparisonResult", "RunResult", "StatusResult"]


@dataclass(frozen=True, slots=True, repr=False)
class RunResult:
    """Results of one or several run directories; `docs/results.md` explains every column.

    Attributes:
        runs: run directories, or folders that hold some.
        table: tables, what is missing from them, and notes.
        page: HTML page with figures, where one was written.
        files: every file that was written.
        problems: what went wrong while the call trained them.
        asked: the cell columns and `phase` of what a training call was for; a directory may hold
            other runs besides. None stands for all.
    """

    runs: tuple[Path, ...]
    table: FinalTable
    page: Path | None = None
    files: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()
    asked: pl.DataFrame | None = None

    @property
    def directory(self) -> Path:
        """The first of the run directories."""
        return self.runs[0]

    @property
    def tasks(self) -> pl.DataFrame:
        """A row per suite, domain, task, agent, variant and phase."""
        return self.table.tasks

    @property
    def domains(self) -> pl.DataFrame:
        """A row per suite, domain, agent, variant and phase."""
        return self.table.domains

    @property
    def cells(self) -> pl.DataFrame:
        """A row per run (task, agent, variant, seed) and phase, at its last evaluation."""
        return self.table.cells

    @property
    def curves(self) -> pl.DataFrame:
        """A row per evaluation."""
        return scan_evaluations(self.runs).collect()

    @property
    def metrics(self) -> pl.DataFrame:
        """A row per logged training metric: `metric`, `value`, `step` and the run's columns."""
        return scan_training(self.runs).collect()

    @property
    def complete(self) -> bool:
        """Whether every run that was asked for has reached its end."""
        if self.problems:
            return False
        if self.asked is None:
            return self.table.coverage.complete
        ended = self.cells.filter("finished").select(self.asked.columns)
        return self.asked.join(
            ended, on=self.asked.columns, how="anti", nulls_equal=True
        ).is_empty()

    @property
    def failures(self) -> tuple[str, ...]:
        """Runs that were stopped or left out, and why."""
        return self.table.coverage.failed or self.problems

    def raise_failures(self) -> None:
        """Turn runs that were stopped into an exception.

        Raises:
            BenchError: there are some.
        """
        if self.failures:
            raise BenchError("; ".join(self.failures))

    def show(self, console: Console | None = None) -> None:
        """Print the tables and notes; in a notebook as HTML."""
        console = console or standard_output()
        print_table(self.table, console)
        if self.table.cells["task"].str.contains("singletask").not_().any():
            print_returns(self.table, console)

    def __repr__(self) -> str:
        return f"RunResult({', '.join(map(str, self.runs))}: {self.table.coverage})"

    def _repr_html_(self) -> str:
        """The table of tasks and the notes."""
        lines = [str(self.table.coverage) + " finished", *self.table.notes, *self.failures]
        with pl.Config(
            tbl_rows=-1, tbl_cols=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True
        ):
            table = task_view(self.table)._repr_html_()
        return table + "".join(f"<p>{escape(line)}</p>" for line in lines)


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """Two runs beside each other.

    Attributes:
        first: run A.
        second: run B.
        comparison: verdict, methods, settings that differ, notes.
    """

    first: Path
    second: Path
    comparison: Comparison

    @property
    def verdict(self) -> str:
        """One sentence."""
        return self.comparison.verdict

    @property
    def methods(self) -> pl.DataFrame:
        """A row per method: success of A and B, their difference with its 95 % interval, p."""
        return pl.DataFrame(
            [
                {
                    "method": m.name,
                    "tasks": m.tasks,
                    "success_a": m.success[0],
                    "success_b": m.success[1],
                    "difference": m.difference.value,
                    "difference_low": None if m.one_seed else m.difference.low,
                    "difference_high": None if m.one_seed else m.difference.high,
                    "improvement": m.improvement,
                    "p": None if m.one_seed else m.p_corrected,
                }
                for m in self.comparison.methods
            ]
        )

    def show(self, console: Console | None = None) -> None:
        """Print verdict, tables and notes; in a notebook as HTML."""
        console = console or standard_output(highlight=False)
        print_comparison(self.first, self.second, self.comparison, console)

    def _repr_html_(self) -> str:
        return f"<p><b>{escape(self.verdict)}</b></p>" + self.methods._repr_html_()


@dataclass(frozen=True, slots=True)
class StatusResult:
    """How far runs are.

    Attributes:
        progress: one entry per run directory.
    """

    progress: Sequence[RunProgress]

    @property
    def running(self) -> bool:
        """Whether a process works on one of them."""
        return any(run.state == "running" for run in self.progress)

    @property
    def runs(self) -> pl.DataFrame:
        """A row per run directory."""
        return pl.DataFrame(
            [
                {
                    "directory": str(run.directory),
                    "state": run.state,
                    "planned": run.planned,
                    "done": run.done,
                    "running": run.running,
                    "failed": run.failed,
                    "share": run.share,
                    "updates_per_second": run.updates_per_second,
                    "remaining": run.remaining,
                }
                for run in self.progress
            ],
            infer_schema_length=None,
        )

    def show(self, console: Console | None = None) -> None:
        """Print the table; in a notebook as HTML."""
        (console or standard_output()).print(progress_table(self.progress))

    def _repr_html_(self) -> str:
        return self.runs._repr_html_()

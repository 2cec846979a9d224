"""Runs: train, fine-tune and evaluate."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import polars as pl

from bench.api.progress import Progress, progress_console
from bench.api.reading import report
from bench.api.results import RunResult
from bench.api.state import process_state_kept
from bench.experiment import (
    OfflineRequest,
    OnlineRequest,
    SweepRequest,
    build_request,
    command_line,
)
from bench.results import CELL_COLUMNS, final_table
from bench.training.job import Job
from bench.training.online_options import plan_online
from bench.training.options import Plan, plan_offline
from bench.training.run_record import planned_cells
from bench.training.sweep import plan_sweep

__all__ = ["offline", "online", "sweep", "trained"]

_Request = TypeVar("_Request", bound=OfflineRequest)


def offline(
    request: OfflineRequest | None = None, /, *, progress: Progress = "auto", **options: Any
) -> RunResult:
    """Pretrain, fine-tune and evaluate a suite, or data and an environment of your own.

    The same call continues an interrupted run in its directory at the exact step.

    Args:
        request: what to do; or give its fields as keyword arguments.
        progress: `auto`, `log` (lines to the logger `bench.progress`), `none`, or a rich console.
        **options: fields of :class:`bench.OfflineRequest`, such as ``suite="quick"``,
            ``agent=["trqam", "qam"]``, ``seeds=3``.

    Returns:
        The result tables; also where runs were stopped, see :attr:`RunResult.failures`.

    Raises:
        TypeError: an option that there is not.
        ValueError: a value that makes no sense, or a directory that holds another run.
        BenchError: data are missing, a process died, or the directory is in use.
    """
    asked = build_request(OfflineRequest, request, options)
    return _run(plan_offline, asked, command_line(["bench", "offline"], asked), progress)


def online(
    request: OnlineRequest | None = None, /, *, progress: Progress = "auto", **options: Any
) -> RunResult:
    """Continue the offline result of every run in its environment; what is missing is run first.

    Args:
        request: what to do; or give its fields as keyword arguments.
        progress: as in :func:`offline`.
        **options: fields of :class:`bench.OnlineRequest`.

    Returns:
        The result tables of both phases.

    Raises:
        TypeError: an option that there is not.
        ValueError: a value that makes no sense, or a directory that holds another run.
        BenchError: as :func:`offline`.
    """
    asked = build_request(OnlineRequest, request, options)
    return _run(plan_online, asked, command_line(["bench", "online"], asked), progress)


def sweep(
    request: SweepRequest | None = None, /, *, progress: Progress = "auto", **options: Any
) -> RunResult:
    """Run the offline phase at every point of a grid, and write its report.

    Args:
        request: what to do; or give its fields as keyword arguments.
        progress: as in :func:`offline`.
        **options: fields of :class:`bench.SweepRequest`, such as ``over="kl-budget=0.1,0.3,1"``.

    Returns:
        The result tables, with the swept values as `variant`, and the page with figures.

    Raises:
        TypeError: an option that there is not.
        ValueError: nothing to sweep, or as :func:`offline`.
        BenchError: as :func:`offline`.
    """
    asked = build_request(SweepRequest, request, options)
    words = command_line(["bench", "sweep"], asked, repeated=["over"])
    done = _run(plan_sweep, asked, words, progress)
    return replace(report(done.directory), problems=done.problems, asked=done.asked)


def _run(
    planned: Callable[[_Request], Plan], asked: _Request, command: list[str], progress: Progress
) -> RunResult:
    """Run a plan; the command stands in the run's record."""
    console = progress_console(progress)
    with process_state_kept():
        plan = planned(asked)
        job = Job(plan, command, console)
        job.run()
    return trained(job)


def trained(job: Job) -> RunResult:
    """Results in the directory of a job that has ended."""
    rows = [
        {**{name: getattr(cell, name) for name in CELL_COLUMNS}, "phase": phase}
        for cell in planned_cells(job.plan)
        for phase in cell.final_steps
    ]
    directory = job.plan.directory
    return RunResult(
        (directory,),
        final_table([directory]),
        problems=tuple(job.problems),
        asked=pl.DataFrame(rows),
    )

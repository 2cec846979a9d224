"""`bench sweep`: a grid over settings, in one run directory and one table."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from bench.cli._flags import AgentNames
from bench.experiment import SweepRequest

__all__ = ["Sweep"]


@dataclass(frozen=True)
class Sweep(SweepRequest):
    """Run the offline phase at every point of a grid, and write one table and its figures.

    The values of a run are its variant in the tables. Runs that differ in swept settings only
    share data, cloned policies, evaluation episodes and random streams. The same command continues.
    """

    agent: AgentNames = ("trqam",)
    over: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE,VALUE,...")
    ] = ()

    def run(self) -> int:
        """Plan the grid, then list it, or run it and write its report."""
        from bench.training.dry_run import describe
        from bench.training.job import Job
        from bench.training.sweep import plan_sweep

        job = Job(plan_sweep(self))
        if self.dry_run:
            describe(job.plan)
            return 0
        status = job.run()
        from bench.results.report import write_report

        directory = job.plan.directory
        report = write_report([directory], directory / "report")
        job.console.print(f"figures: {report.page}", markup=False, highlight=False)
        return status

"""`bench sweep`: a grid over settings, in one run directory and one table."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from bench.cli._flags import AgentNames, DryRun
from bench.experiment import SweepRequest

__all__ = ["Sweep"]


@dataclass(frozen=True)
class Sweep(DryRun, SweepRequest):
    """Run the offline phase at every point of a grid, and write one table and its figures.

    The values of a run are its variant in the tables. Runs that differ in swept settings only
    share data, cloned policies, evaluation episodes and random streams. The same command continues.
    """

    agent: AgentNames = ("trqam",)
    over: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE,VALUE,...")
    ] = ()

    def run(self) -> int:
        """List the grid, or run it and write its report."""
        from bench.training.request_checks import check_free, check_request

        check_request(self)  # what follows imports torch, which takes seconds
        if self.out is not None and not self.dry_run:
            check_free(self.out)
        if self.dry_run:
            from bench.training.dry_run import describe
            from bench.training.sweep import plan_sweep

            describe(plan_sweep(self), measure=self.measure)
            return 0
        from bench.api.runs import sweep
        from bench.cli._results import show_run

        return show_run(sweep(self))

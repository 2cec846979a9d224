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
    share data, cloned policies, evaluation episodes and random streams. Rerun the command to
    resume.
    """

    agent: AgentNames = ("trqam",)
    over: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE,VALUE,...")
    ] = ()

    def run(self) -> int:
        """List the grid, or run it and write its report."""
        return self.carry_out(_train)


def _train(request: Sweep) -> int:
    from bench.api.runs import sweep
    from bench.cli._results import show_run

    return show_run(sweep(request))

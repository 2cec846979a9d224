"""`bench online`: continue the offline result of every run in its environment."""

from dataclasses import dataclass

from bench.cli._flags import AgentNames, DryRun
from bench.experiment import OnlineRequest

__all__ = ["Online"]


@dataclass(frozen=True)
class Online(DryRun, OnlineRequest):
    """Continue from the offline phase in the environments, and write one table of both phases.

    Missing parts of the offline phase are run first; --steps are its updates. Rerun the command to
    resume; --out may be the run directory of `bench offline`.
    """

    agent: AgentNames = ("trqam",)

    def run(self) -> int:
        """List the cells, or run them and print the table."""
        return self.carry_out(_train)


def _train(request: Online) -> int:
    from bench.api.runs import online
    from bench.cli._results import show_run

    return show_run(online(request))

"""`bench online`: continue the offline result of every run in its environment."""

from dataclasses import dataclass

from bench.cli._flags import AgentNames, DryRun
from bench.experiment import OnlineRequest

__all__ = ["Online"]


@dataclass(frozen=True)
class Online(DryRun, OnlineRequest):
    """Go on from the offline phase in the environments, and write one table of both phases.

    What is missing of the offline phase is run first; --steps are its updates. The same command
    continues; it may be given the run directory of `bench offline`.
    """

    agent: AgentNames = ("trqam",)

    def run(self) -> int:
        """List the cells, or run them and print the table."""
        from bench.training.request_checks import check_free, check_request

        check_request(self)  # what follows imports torch, which takes seconds
        if self.out is not None and not self.dry_run:
            check_free(self.out)
        if self.dry_run:
            from bench.training.dry_run import describe
            from bench.training.online_options import plan_online

            describe(plan_online(self), measure=self.measure)
            return 0
        from bench.api.runs import online
        from bench.cli._results import show_run

        return show_run(online(self))

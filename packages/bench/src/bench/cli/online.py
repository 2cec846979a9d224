"""`bench online`: continue the offline result of every run in its environment."""

from dataclasses import dataclass

from bench.cli._flags import AgentNames
from bench.experiment import OnlineRequest

__all__ = ["Online"]


@dataclass(frozen=True)
class Online(OnlineRequest):
    """Go on from the offline phase in the environments, and write one table of both phases.

    What is missing of the offline phase is run first; --steps are its updates. The same command
    continues; it may be given the run directory of `bench offline`.
    """

    agent: AgentNames = ("trqam",)

    def run(self) -> int:
        """Plan the cells, then list or run them."""
        from bench.training.dry_run import describe
        from bench.training.job import Job
        from bench.training.online_options import plan_online

        plan = plan_online(self)
        if self.dry_run:
            describe(plan)
            return 0
        return Job(plan).run()

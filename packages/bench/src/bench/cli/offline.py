"""`bench offline`: train and evaluate on a fixed data set, and write the table."""

from dataclasses import dataclass

from bench.cli._flags import AgentNames
from bench.experiment import OfflineRequest

__all__ = ["Offline"]


@dataclass(frozen=True)
class Offline(OfflineRequest):
    """Pretrain, fine-tune and evaluate a suite, and write the result table.

    With --dataset and --env it trains on data of your own instead of a suite's (docs/own-data.md).
    The same command on an existing run directory continues it.
    """

    agent: AgentNames = ("trqam",)

    def run(self) -> int:
        """Plan the cells, then list or run them."""
        from bench.training.dry_run import describe
        from bench.training.job import Job
        from bench.training.options import plan_offline

        plan = plan_offline(self)
        if self.dry_run:
            describe(plan)
            return 0
        return Job(plan).run()

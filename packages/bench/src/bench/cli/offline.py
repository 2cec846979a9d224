"""`bench offline`: train and evaluate on a fixed data set, and write the table."""

from dataclasses import dataclass

from bench.cli._flags import AgentNames, DryRun
from bench.experiment import OfflineRequest

__all__ = ["Offline"]


@dataclass(frozen=True)
class Offline(DryRun, OfflineRequest):
    """Pretrain, fine-tune and evaluate a suite, and write the result table.

    With --dataset and --env it trains on data of your own instead of a suite's (docs/own-data.md).
    The same command on an existing run directory continues it.
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
            from bench.training.options import plan_offline

            describe(plan_offline(self), measure=self.measure)
            return 0
        from bench.api.runs import offline
        from bench.cli._results import show_run

        return show_run(offline(self))

"""`bench offline`: train and evaluate on a fixed data set, and write the table."""

from dataclasses import dataclass

from bench.cli._flags import AgentNames, DryRun
from bench.experiment import OfflineRequest

__all__ = ["Offline"]


@dataclass(frozen=True)
class Offline(DryRun, OfflineRequest):
    """Pretrain, fine-tune and evaluate a suite, and write the result table.

    With --dataset and --env it trains on data of your own instead of a suite's (docs/own-data.md).
    Rerun the command on an existing run directory to resume it.
    """

    agent: AgentNames = ("trqam",)

    def run(self) -> int:
        """List the cells, or run them and print the table."""
        return self.carry_out(_train)


def _train(request: Offline) -> int:
    from bench.api.runs import offline
    from bench.cli._results import show_run

    return show_run(offline(request))

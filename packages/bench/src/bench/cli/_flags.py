"""How fields that several requests share look on the command line, and what only it has."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, cast

import tyro

from bench.experiment import OfflineRequest

__all__ = ["AgentNames", "DryRun"]

AgentNames = Annotated[tuple[str, ...], tyro.conf.arg(metavar="AGENT")]


@dataclass(frozen=True)
class DryRun:
    """For commands that train.

    Attributes:
        dry_run: list the cells with their settings and the expected cost, and stop.
        measure: in a dry run, time matrix products and simulators of this machine; by default the
            cost rests on stored rates.
    """

    dry_run: bool = False
    measure: bool = False

    def carry_out(self, train: Callable[[Any], int]) -> int:
        """Show the dry run, or train; returns the exit status.

        Args:
            train: called with the command, to train and to print the results.
        """
        from bench.training.request_checks import check_free, check_request

        request = cast(OfflineRequest, self)
        check_request(request)  # what follows imports torch, which takes seconds
        if not self.dry_run:
            if request.out is not None:
                check_free(request.out)
            return train(self)
        from bench.api.dry_run import dry_run

        if self.measure:
            print("timing matrix products and simulators of this machine ...", file=sys.stderr)
        dry_run(request, measure=self.measure).show()
        return 0

"""How fields that several requests share look on the command line, and what only it has."""

from dataclasses import dataclass
from typing import Annotated

import tyro

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

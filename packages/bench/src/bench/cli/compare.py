"""`bench compare`: what differs between two runs, and whether it matters."""

from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["Compare"]


@dataclass(frozen=True)
class Compare:
    """Say which of two runs is better and whether the seeds support it, and what was set otherwise.

    Attributes:
        first: run directory A.
        second: run directory B.
        mix: average runs of different data, simulators or protocols within A and B all the same.
    """

    first: tyro.conf.Positional[Path]
    second: tyro.conf.Positional[Path]
    mix: bool = False

    def run(self) -> int:
        """Print the comparison; 1 if a cell of either run failed."""
        from bench.api.reading import compare

        found = compare(self.first, self.second, mix=self.mix)
        found.show()
        return 1 if found.comparison.failed else 0

"""What an environment may take: time for one call, memory for its process."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path

from bench.machine import available_memory

__all__ = ["EnvironmentLimits"]

_LEAST_MEMORY = 2 << 30
_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class EnvironmentLimits:
    """Limits of the processes that environments run in; what runs in this process has none.

    Attributes:
        seconds: Time that one call of an environment (its construction, a reset, a step) may take.
            A process that takes longer is killed and the replica it worked for stops.
        memory: Bytes that each process may allocate beyond what it starts with; an allocation
            beyond them fails with a `MemoryError` in the environment. None for an even share of
            three quarters of the memory that is available when the processes start, at least
            2 GiB.
    """

    seconds: float = 300.0
    memory: int | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: A limit is not above zero, or the time is not finite.
        """
        if not (self.seconds > 0.0 and math.isfinite(self.seconds)):
            raise ValueError(
                f"the time limit of an environment must be finite and above 0 s, got {self.seconds}"
            )
        if self.memory is not None and self.memory <= 0:
            raise ValueError(
                f"the memory limit of an environment must be above 0 bytes, got {self.memory}"
            )

    def memory_of_each(self, processes: int) -> int:
        """Bytes that each of so many processes may allocate."""
        if self.memory is not None:
            return self.memory
        return max(_LEAST_MEMORY, int(_SHARE * available_memory()) // max(1, processes))


def limit_memory(allowance: int) -> None:
    """Let allocations of this process fail beyond `allowance` bytes more than it has now.

    Linux counts private writable memory against this limit, which leaves out files that are mapped
    and code. Elsewhere nothing happens.
    """
    status = Path("/proc/self/status")
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        line = next(x for x in status.read_text().splitlines() if x.startswith("VmData:"))
        wanted = int(line.split()[1]) * 1024 + allowance
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        if most != resource.RLIM_INFINITY:
            wanted = min(wanted, most)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))

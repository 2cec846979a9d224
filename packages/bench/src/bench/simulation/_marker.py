"""Numbers that outlive a process: which episode it was working on, and since when."""

from __future__ import annotations

import time
from collections.abc import MutableSequence
from typing import Final, Protocol

__all__ = ["NOT_READY", "NO_MARKER", "Marker", "SharedMarker"]

NOT_READY: Final = -2
_NOTHING = -1


class Marker(Protocol):
    """Told by a host what it is about to do."""

    def enter(self, index: int) -> None:
        """A call of the environment of this episode (or replica) begins."""

    def leave(self) -> None:
        """No environment is being called."""


class _NoMarker:
    def enter(self, index: int) -> None:
        del index

    def leave(self) -> None:
        pass


NO_MARKER: Final[Marker] = _NoMarker()


class SharedMarker:
    """A marker in memory that the parent reads.

    Args:
        shared: Two numbers in shared memory: the episode's index and when its call began.
    """

    def __init__(self, shared: MutableSequence[float]) -> None:
        self._shared = shared
        self._shared[0], self._shared[1] = NOT_READY, 0.0

    @property
    def value(self) -> int:
        """The episode, -1 for none, `NOT_READY` before the process can be given any."""
        return int(self._shared[0])

    @property
    def began(self) -> float:
        """When the call of an environment began, on a clock of that process; 0 for no call."""
        return self._shared[1]

    def enter(self, index: int) -> None:
        """A call of the environment of this episode (or replica) begins."""
        self._shared[0] = index
        self._shared[1] = time.monotonic()

    def leave(self) -> None:
        """No environment is being called."""
        self._shared[1] = 0.0
        self._shared[0] = _NOTHING

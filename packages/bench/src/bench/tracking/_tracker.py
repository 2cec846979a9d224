"""What a tracker is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["TrackedCell", "Tracker"]


@dataclass(frozen=True, slots=True)
class TrackedCell:
    """One run whose curves are shown.

    Attributes:
        name: unique in the run directory and the same in every phase, usable as a path.
        settings: what people filter by.
    """

    name: str
    settings: Mapping[str, Any]


class Tracker(Protocol):
    """Where the curves of a pack's cells go."""

    def log(self, cell: int, group: str, step: int, values: Mapping[str, float]) -> None:
        """Values of the cell of that index at a step; the steps of a group grow."""

    def failed(self, cell: int, step: int, reason: str) -> None:
        """The cell of that index was stopped at a step; nothing more of it will come."""

    def close(self) -> None:
        """Write everything out."""

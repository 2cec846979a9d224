"""The curves of one pack in all trackers that were asked for."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.tracking._tracker import TrackedCell, Tracker

__all__ = ["NAMES", "Curves", "require"]

NAMES = ("tensorboard", "wandb")


def require(names: Sequence[str]) -> None:
    """Refuses trackers that cannot work here, before anything runs.

    Raises:
        ValueError: an extra is not installed, or Weights & Biases has nobody logged in; says which
            command helps.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"--track {name} needs the package {name}, which is not installed: "
                f'pip install "trqam-bench[{name}]"'
            )
    if "wandb" in names and os.environ.get("WANDB_MODE", "online") == "online":
        from bench.tracking._wandb import require_login

        require_login()


@dataclass(slots=True)
class Curves:
    """The curves of one pack.

    Trackers are opened with the first value, so that repeating a finished run writes nothing.

    Attributes:
        names: of trackers, see `NAMES`.
        directory: run directory; trackers keep their files below it.
        cells: of the pack.
        offset: steps that the cells have behind them when the pack's phase begins.
    """

    names: Sequence[str]
    directory: Path
    cells: Sequence[TrackedCell]
    offset: int = 0
    _after: int = field(default=0, init=False)
    _failed: dict[int, tuple[int, str]] = field(default_factory=dict, init=False)
    _trackers: list[Tracker] | None = field(default=None, init=False)

    def restart(self, step: int, failed: Mapping[int, tuple[int, str]] | None = None) -> None:
        """What came after this step of the phase is forgotten: it will come again.

        Args:
            step: of the phase.
            failed: cells that were stopped before, with step and reason.
        """
        self.close()
        self._after = self.offset + step
        self._failed = dict(failed or {})

    def log(self, cell: int, group: str, step: int, values: Mapping[str, float]) -> None:
        """Values of the cell of that index at a step of the phase, `training` or `evaluation`."""
        for tracker in self._opened():
            tracker.log(cell, group, self.offset + step, values)

    def failed(self, cell: int, step: int, reason: str) -> None:
        """The cell of that index was stopped at a step of the phase."""
        for tracker in self._opened():
            tracker.failed(cell, self.offset + step, reason)
        self._failed[cell] = step, reason

    def close(self) -> None:
        """Write everything out, also what an earlier process may have left behind."""
        if self._trackers is None and "wandb" in self.names:
            from bench.tracking._wandb import is_unfinished

            if is_unfinished(self.directory / "wandb", self.cells):
                self._opened()
        trackers, self._trackers = self._trackers or [], None
        for tracker in trackers:
            tracker.close()

    def _opened(self) -> list[Tracker]:
        if self._trackers is None:
            self._trackers = [self._tracker(name) for name in self.names]
            for cell, (step, reason) in self._failed.items():
                for tracker in self._trackers:
                    tracker.failed(cell, self.offset + step, reason)
        return self._trackers

    def _tracker(self, name: str) -> Tracker:
        if name == "tensorboard":
            from bench.tracking._tensorboard import TensorBoard

            return TensorBoard(self.directory / "tensorboard", self.cells, self._after)
        from bench.tracking._wandb import WeightsAndBiases

        assert name == "wandb", name
        return WeightsAndBiases(self.directory / "wandb", self.cells)

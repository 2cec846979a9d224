"""Event files for TensorBoard: `tensorboard --logdir runs/quick/tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from bench.tracking._tracker import TrackedCell

__all__ = ["TensorBoard"]


class TensorBoard:
    """One folder of event files per cell.

    Args:
        directory: of all cells.
        cells: whose curves these are.
        after: last step that stays; a new file tells TensorBoard to drop the later ones of older
            files (`purge_step`), because training goes through them again.
    """

    def __init__(self, directory: Path, cells: Sequence[TrackedCell], after: int) -> None:
        self._writers = [
            SummaryWriter(str(directory / cell.name), purge_step=after + 1) for cell in cells
        ]

    def log(self, cell: int, group: str, step: int, values: Mapping[str, float]) -> None:
        """Append values and write them out: there are few, and somebody is watching."""
        for name, value in values.items():
            self._writers[cell].add_scalar(f"{group}/{name}", value, step)
        self._writers[cell].flush()

    def failed(self, cell: int, step: int, reason: str) -> None:
        """Show under the texts why the cell was stopped."""
        self._writers[cell].add_text("failure", reason, step)
        self._writers[cell].flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers:
            writer.close()

"""Runs on Weights & Biases: one per cell, grouped by run directory.

`WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_MODE` and the rest of its variables work as usual.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from bench.storage import read_json, write_json
from bench.tracking._tracker import TrackedCell

__all__ = ["WeightsAndBiases", "is_unfinished", "require_login"]

_PROJECT = "trqam-bench"
_WRITTEN_SECONDS = 60.0
"""After so long wandb has written to its own file what it was given."""

_log = logging.getLogger(__name__)


def require_login() -> None:
    """Refuses to begin without credentials.

    Raises:
        ValueError: nobody is logged in, or the server refuses.
    """
    try:
        known = wandb.login(prompt=False)
    except wandb.Error as error:
        raise ValueError(f"--track wandb: {error}; or set WANDB_MODE=offline") from error
    if not known:
        raise ValueError("--track wandb: run `wandb login` first, or set WANDB_MODE=offline")


class WeightsAndBiases:
    """One run of Weights & Biases per cell, the same one whenever the cell goes on.

    A file per cell keeps the run's id and what was handed over. Those steps are not handed over
    again: training that goes on from a checkpoint repeats them with the same numbers. wandb writes
    a moment later, so what it was given shortly before a kill may be lost: the file keeps these
    rows, and the next process sends them first. A row may then be there twice, with the same step
    and the same numbers; none is missing. The horizontal axis is `step`, because wandb's own
    counter refuses two rows at one step. A failing service is logged once per cell and never stops
    the training.

    Args:
        directory: where ids are kept, and beside them what wandb itself writes.
        cells: whose curves these are.
    """

    def __init__(self, directory: Path, cells: Sequence[TrackedCell]) -> None:
        self._files = [_file(directory, cell) for cell in cells]
        self._known = [_known(file) for file in self._files]
        self._failed: set[int] = set()
        self._runs: list[Any] = [
            _begun(directory, cell, known["id"])
            for cell, known in zip(cells, self._known, strict=True)
        ]
        for run, known in zip(self._runs, self._known, strict=True):
            for _, row in known["pending"] if run is not None else ():
                run.log(row)

    def log(self, cell: int, group: str, step: int, values: Mapping[str, float]) -> None:
        """Send values."""
        run, known = self._runs[cell], self._known[cell]
        if run is None or step <= known["shown"].get(group, -1):
            return
        row = {"step": step, **{f"{group}/{name}": v for name, v in values.items()}}
        now = time.time()
        recent = [entry for entry in known["pending"] if now - entry[0] < _WRITTEN_SECONDS]
        known["pending"] = [*recent, [now, row]]
        known["shown"][group] = step
        write_json(self._files[cell], known)  # first: a kill in between loses nothing
        try:
            run.log(row)
        except wandb.Error as error:
            self._give_up(cell, error)

    def failed(self, cell: int, step: int, reason: str) -> None:
        """Mark the run as failed, with the reason in its summary."""
        run = self._runs[cell]
        self._failed.add(cell)
        if run is not None:
            try:
                run.summary.update({"failure": reason, "failed_at_step": step})
            except wandb.Error as error:
                self._give_up(cell, error)

    def close(self) -> None:
        """Wait until everything is sent."""
        for cell, run in enumerate(self._runs):
            if run is not None:
                try:
                    run.finish(exit_code=1 if cell in self._failed else 0)
                except wandb.Error as error:
                    self._give_up(cell, error)
                    continue
                self._known[cell]["pending"] = []
                write_json(self._files[cell], self._known[cell])

    def _give_up(self, cell: int, error: wandb.Error) -> None:
        _log.warning("%s is shown no longer: %s", self._files[cell].stem, error)
        self._runs[cell] = None


def is_unfinished(directory: Path, cells: Sequence[TrackedCell]) -> bool:
    """Whether an earlier process ended before wandb had surely written all it was given."""
    files = [_file(directory, cell) for cell in cells]
    return any(_known(file)["pending"] for file in files if file.exists())


def _file(directory: Path, cell: TrackedCell) -> Path:
    return directory / f"{cell.name.replace('/', '--')}.json"


def _known(file: Path) -> dict[str, Any]:
    """Id of a cell's run, the last step of each group, and rows that may not be written yet."""
    if file.exists():
        return {"pending": [], **read_json(file)}
    file.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, Any] = {"id": secrets.token_hex(8), "shown": {}, "pending": []}
    write_json(file, known)
    return known


def _begun(directory: Path, cell: TrackedCell, identifier: str) -> Any:
    try:
        run = wandb.init(
            id=identifier,
            resume="allow",
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            group=directory.parent.name,
            name=cell.name,
            config=dict(cell.settings),
            dir=str(directory.parent),
            reinit="create_new",  # a pack has many cells, each a run of its own
            settings=wandb.Settings(
                quiet=True, silent=True, console="off", x_disable_stats=True, disable_code=True
            ),
        )
        run.define_metric("*", step_metric="step")
    except wandb.Error as error:
        _log.warning("%s is not shown: %s", cell.name, error)
        return None
    return run

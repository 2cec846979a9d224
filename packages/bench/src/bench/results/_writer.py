"""Writing result rows so that nobody ever sees half a table."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from bench.errors import ResultsError
from bench.results._reading import read_table
from bench.results._schema import EVALUATIONS, PHASES, TableSchema
from bench.results._sums import METADATA, with_sum
from bench.storage import require_held, write_bytes

__all__ = ["ResultWriter"]


class ResultWriter:
    """The table of one pack, kept in one parquet file that only this process writes.

    Each flush writes the whole table under a temporary name and renames it (a millisecond for
    the few hundred rows of a run), so a reader or a kill at any moment meets a whole table. It
    holds its own SHA-256. A file that somebody else changes or deletes meanwhile is an error, not
    replaced.

    Args:
        path: the file; if it exists, its rows are kept and new ones follow them.
        schema: `EVALUATIONS` or `TRAINING`.

    Raises:
        ResultsError: the existing file cannot be read.
        FormatVersionError: it is of a newer version.
    """

    def __init__(self, path: Path, schema: TableSchema = EVALUATIONS) -> None:
        self.path = path
        self.schema = schema
        self._frame = read_table(path, schema) if path.exists() else schema.frame([])
        self._pending: list[pl.DataFrame] = []
        self._known = _identity(path)

    @property
    def frame(self) -> pl.DataFrame:
        """All rows, those not yet written included."""
        if self._pending:
            self._frame = pl.concat([self._frame, *self._pending])
            self._pending = []
        return self._frame

    def append(self, rows: Sequence[Mapping[str, Any]], *, flush: bool = True) -> None:
        """Adds rows, and writes the file unless told to wait for the next `flush`.

        Raises:
            ValueError: a row does not fit the schema; no row is added then.
            ResultsError: the file cannot be written; the rows are kept for the next attempt.
        """
        self._pending.append(self.schema.frame(rows))
        if flush:
            self.flush()

    def truncate(self, phase: str, step: int) -> int:
        """Drops what came after a checkpoint: later steps of `phase`, and all later phases.

        Returns:
            How many rows were dropped. The file is rewritten if there were any.

        Raises:
            ValueError: unknown phase.
            ResultsError: the file cannot be written.
        """
        if phase not in PHASES:
            raise ValueError(f"unknown phase {phase!r}, expected one of {PHASES}")
        earlier = PHASES[: PHASES.index(phase)]
        before = self.frame.height
        self._frame = self.frame.filter(
            pl.col("phase").is_in(earlier) | ((pl.col("phase") == phase) & (pl.col("step") <= step))
        )
        dropped = before - self._frame.height
        if dropped:
            self.flush()
        return dropped

    def rewrite(self, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Replaces the rows by what a function makes of them; writes the file if they differ.

        Raises:
            ResultsError: the file cannot be written.
        """
        changed = change(self.frame)
        if not changed.equals(self._frame):
            self._frame = changed
            self.flush()

    def flush(self) -> None:
        """Writes the file.

        Raises:
            ResultsError: it cannot be written (disk full, read-only); the old one is unchanged.
                Or it is not the one that this process wrote or found.
            RunDirectoryLostError: the run directory was renamed or deleted.
        """
        require_held(self.path)
        if self._known is not None and (found := _identity(self.path)) != self._known:
            what = "was deleted" if found is None else "was changed by somebody else"
            raise ResultsError(
                f"the table {self.path} {what} while this process trains; it is not replaced. "
                "Restore it and rerun the command, which resumes from the last checkpoint"
            )
        content = io.BytesIO()
        try:
            self.frame.write_parquet(content, compression="zstd", metadata=METADATA)
            write_bytes(self.path, with_sum(content.getvalue()))
        except (OSError, pl.exceptions.PolarsError) as error:
            raise ResultsError(
                f"the table {self.path} could not be written: {error}; the rows written before "
                "are intact"
            ) from error
        self._known = _identity(self.path)


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells one file from another of the same name; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns

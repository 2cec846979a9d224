"""Writing result rows so that nobody ever sees half a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from bench.errors import FormatVersionError, ResultsError
from bench.results._schema import EVALUATIONS, PHASES, TableSchema
from bench.storage import atomic_path

__all__ = ["ResultWriter"]


class ResultWriter:
    """The table of one pack, kept in one parquet file that only this process writes.

    Each flush writes the whole table under a temporary name and renames it (a millisecond for
    the few hundred rows of a run), so a reader or a kill at any moment meets a whole table.

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
        """
        try:
            with atomic_path(self.path) as temporary:
                self.frame.write_parquet(temporary, compression="zstd")
        except (OSError, pl.exceptions.PolarsError) as error:
            raise ResultsError(
                f"the table {self.path} could not be written: {error}; the rows written before "
                "are intact"
            ) from error


def read_table(path: Path, schema: TableSchema) -> pl.DataFrame:
    """Reads one table file into the current schema.

    Raises:
        ResultsError: it cannot be read, or lacks required columns.
        FormatVersionError: it is of a newer version.
    """
    try:
        found = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ResultsError(
            f"the table {path} cannot be read: {error}; move it away to start a new one"
        ) from error
    missing = {"schema_version", *schema.required} - set(found.columns)
    if missing:
        raise ResultsError(f"{path} is no table of {schema.name}: it lacks {sorted(missing)}")
    require_version(path, schema, found["schema_version"].max())
    return found.select(
        (pl.col(name) if name in found.columns else pl.lit(None).alias(name)).cast(kind)
        for name, kind in schema.columns.items()
    )


def require_version(path: Path, schema: TableSchema, version: Any) -> None:
    """Refuses rows that were written in a newer format.

    Raises:
        FormatVersionError: `version` is above the schema's.
    """
    if version is not None and version > schema.version:
        raise FormatVersionError(
            f"{path} has version {version} of table {schema.name}, this trqam-bench reads up to "
            f"{schema.version}; upgrade trqam-bench to the version named in the run's run.json"
        )

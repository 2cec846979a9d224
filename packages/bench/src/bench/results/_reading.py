"""The one reader of result tables: whole, of a known version, and nothing in it taken on trust."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars as pl

from bench.errors import FormatVersionError, ResultsError
from bench.results._schema import TableSchema
from bench.results._sums import damaged, has_sum, require_whole
from bench.storage import plain_text, require_name

__all__ = ["read_table", "scan_table"]

_NAMES = ("suite", "domain", "task", "agent", "variant", "metric")
# A damaged file of version 0.1, which has no sum, makes polars panic; that is no `Exception`.
_UNREADABLE = (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException)


def read_table(path: Path, schema: TableSchema) -> pl.DataFrame:
    """Reads one table file into the current schema.

    Raises:
        ResultsError: it cannot be read, is damaged, lacks required columns, or holds what no run
            writes.
        FormatVersionError: it is of a newer version.
    """
    return _parsed(path, _content(path), schema)


def scan_table(path: Path, schema: TableSchema) -> pl.LazyFrame:
    """One table file in the current schema, checked now and read where it is needed.

    Raises:
        ResultsError: as `read_table`.
        FormatVersionError: it is of a newer version.
    """
    content = _content(path)
    if "metric" not in schema.columns or not has_sum(content):
        return _parsed(path, content, schema).lazy()
    # Training tables can be larger than memory; their names are few.
    scanned = pl.scan_parquet(
        path,
        schema=dict(schema.columns),
        missing_columns="insert",
        extra_columns="ignore",
        glob=False,
    )
    try:
        names = scanned.select("schema_version", "phase", *_NAMES).unique().collect()
    except _UNREADABLE as error:
        raise damaged(path, str(error)) from error
    _require_known(path, schema, names)
    return scanned


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ResultsError(f"the table {path} is not a regular file")
        content = path.read_bytes()
    except OSError as error:
        raise ResultsError(f"the table {path} cannot be read: {error}") from error
    require_whole(path, content)
    return content


def _parsed(path: Path, content: bytes, schema: TableSchema) -> pl.DataFrame:
    try:
        found = pl.read_parquet(io.BytesIO(content))
        missing = {"schema_version", *schema.required} - set(found.columns)
        if missing:
            raise ResultsError(
                f"{path} is not a table of {schema.name}: it lacks {sorted(missing)}"
            )
        version = found["schema_version"].max()
        if isinstance(version, int | float) and version > schema.version:
            raise _newer(path, schema, version)
        frame = found.select(
            (pl.col(name) if name in found.columns else pl.lit(None).alias(name)).cast(kind)
            for name, kind in schema.columns.items()
        )
    except _UNREADABLE as error:
        raise damaged(path, str(error)) from error
    _require_known(path, schema, frame)
    if "episodes" in schema.columns:
        _require_counts(path, frame)
    return _printable(frame)


def _require_known(path: Path, schema: TableSchema, frame: pl.DataFrame) -> None:
    """Refuses a newer version, and names that no run has."""
    version = frame["schema_version"].max()
    if isinstance(version, int | float) and version > schema.version:
        raise _newer(path, schema, version)
    try:
        for kind in (*_NAMES, "phase"):
            if kind in frame.columns:
                for value in frame[kind].unique():
                    # Null where an earlier version had no such column.
                    if value is not None or kind in schema.required:
                        require_name(kind, value, path)
    except ValueError as error:
        raise ResultsError(str(error)) from error


def _require_counts(path: Path, frame: pl.DataFrame) -> None:
    """Refuses counts that cannot be, as a flipped bit makes them where there is no sum."""
    rate = pl.col("successes") / pl.col("episodes")
    wrong = frame.filter(
        (pl.col("step") < 0)
        | (pl.col("seed") < 0)
        | (pl.col("episodes") < 1)
        | (pl.col("successes") < 0)
        | (pl.col("successes") > pl.col("episodes"))
        | ((rate - pl.col("success_rate")).abs() > 1e-9)
        | (pl.col("success_rate").is_null() != pl.col("successes").is_null())
    )
    if wrong.height:
        row = wrong.row(0, named=True)
        raise damaged(
            path,
            f"seed {row['seed']} at step {row['step']} has {row['successes']} successes in "
            f"{row['episodes']} episodes and a success rate of {row['success_rate']}",
        )


def _printable(frame: pl.DataFrame) -> pl.DataFrame:
    """Free text (reasons of failures, versions) in which nothing acts on a terminal."""
    texts = {}
    for name, kind in frame.schema.items():
        if kind == pl.String and name not in (*_NAMES, "phase"):
            values = [value for value in frame[name].unique() if value is not None]
            if changed := {v: plain for v in values if (plain := plain_text(v)) != v}:
                texts[name] = pl.col(name).replace(changed)
    return frame.with_columns(**texts)


def _newer(path: Path, schema: TableSchema, version: Any) -> FormatVersionError:
    return FormatVersionError(
        f"{path} has version {version} of table {schema.name}, this trqam-bench reads up to "
        f"{schema.version}; upgrade trqam-bench to the version named in the run's run.json"
    )

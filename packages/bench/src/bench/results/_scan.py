"""Reading the tables of many runs as one, while they are being written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from bench.errors import ResultsError
from bench.results._protocol import packs_without_budget, protocol_differences
from bench.results._reading import scan_table
from bench.results._schema import CELL_COLUMNS, EVALUATIONS, TRAINING, TableSchema
from bench.storage import read_run

__all__ = ["planned_cells", "scan_evaluations", "scan_training", "table_files"]

_PLANNED = {name: EVALUATIONS.columns[name] for name in CELL_COLUMNS} | {
    "phase": pl.String(),
    "planned_step": pl.Int64(),
    "pack": pl.String(),
    "run": pl.String(),
    "off_protocol": pl.String(),
    "fixed_lambda": pl.Boolean(),
}


def table_files(runs: Sequence[Path], schema: TableSchema = EVALUATIONS) -> list[Path]:
    """Table files of the runs at or below `runs`, sorted; a file may be given itself.

    Raises:
        ResultsError: a place does not exist, or is a file of another kind.
    """
    found: set[Path] = set()
    for place in runs:
        if place.is_file():
            if place.suffix != ".parquet":
                raise ResultsError(
                    f"{place} is not a table (.parquet); give run directories or their parent"
                )
            found.add(place)
        elif place.is_dir():
            found.update(place.rglob(f"packs/*/{schema.name}.parquet"))
        else:
            raise ResultsError(f"{place} does not exist; give run directories or their parent")
    return sorted(found)


def scan_evaluations(runs: Sequence[Path]) -> pl.LazyFrame:
    """All evaluations of the runs at or below `runs`, lazily, with the column `run` added.

    `run` is the path of the run directory. Columns that an older file lacks are null.

    Raises:
        ResultsError: a place does not exist, or a table cannot be read.
        FormatVersionError: a table is of a newer version.
    """
    return _scan(runs, EVALUATIONS)


def scan_training(runs: Sequence[Path]) -> pl.LazyFrame:
    """All training metrics, as `scan_evaluations`."""
    return _scan(runs, TRAINING)


def planned_cells(runs: Sequence[Path]) -> pl.DataFrame:
    """What the runs were started to do: one row per cell and phase, from each `run.json`.

    Returns:
        The cell columns, `phase`, `planned_step`, `pack`, `run`, `off_protocol` (in what it differs
        from its suite's protocol, "" if in nothing, null if that is unknown) and `fixed_lambda`
        (whether no budget moves it); empty if there is no `run.json`.

    Raises:
        ResultsError: a `run.json` is damaged.
    """
    directories = sorted({path.parent for place in runs for path in place.rglob("run.json")})
    rows: list[dict[str, Any]] = []
    for directory in directories:
        record = read_run(directory)
        differences, unbudgeted = protocol_differences(record), packs_without_budget(record)
        for cell in record.cells:
            row = {name: getattr(cell, name) for name in CELL_COLUMNS} | {
                "pack": cell.pack,
                "run": str(directory),
                "off_protocol": differences.get(cell.pack),
                "fixed_lambda": cell.pack in unbudgeted,
            }
            rows += [
                row | {"phase": phase, "planned_step": step}
                for phase, step in cell.final_steps.items()
            ]
    return pl.DataFrame(rows, schema=_PLANNED)


def _scan(runs: Sequence[Path], schema: TableSchema) -> pl.LazyFrame:
    files = table_files(runs, schema)
    if not files:
        return schema.frame([]).lazy().with_columns(run=pl.lit(None, pl.String))
    return pl.concat(
        [scan_table(file, schema).with_columns(run=pl.lit(_run_of(file))) for file in files]
    )


def _run_of(file: Path) -> str:
    """The run directory of a table, `<run>/packs/<pack>/<table>.parquet`."""
    pack = file.parent
    return str(pack.parent.parent if pack.parent.name == "packs" else file)

"""Result tables, the statistics on them, and what reports are made of."""

from __future__ import annotations

from bench.results._scan import planned_cells, scan_evaluations, scan_training, table_files
from bench.results._schema import (
    CELL_COLUMNS,
    EVALUATIONS,
    PHASES,
    TIMING_COLUMNS,
    TRAINING,
    TableSchema,
    metric_rows,
)
from bench.results._writer import ResultWriter

__all__ = [
    "CELL_COLUMNS",
    "EVALUATIONS",
    "PHASES",
    "TIMING_COLUMNS",
    "TRAINING",
    "ResultWriter",
    "TableSchema",
    "metric_rows",
    "planned_cells",
    "scan_evaluations",
    "scan_training",
    "table_files",
]

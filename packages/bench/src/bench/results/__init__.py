"""Result tables, the statistics on them, and what reports are made of."""

from __future__ import annotations

from bench.results._aggregate import aggregate_table, pairs_table
from bench.results._cells import cell_results, labelled_evaluations, without_stopped
from bench.results._comparison import Comparison, MethodDifference, compare_runs
from bench.results._final import Coverage, FinalTable, final_table
from bench.results._progress import RunProgress, run_progress
from bench.results._published import published_domains
from bench.results._reproduction import DataCheck, check_data, recorded_data
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
from bench.results._scores import is_task, method_label, task_label
from bench.results._setting_names import setting_differences
from bench.results._statistics import (
    Interval,
    bootstrap_interval,
    holm_p_values,
    interquartile_mean,
    mean_over_tasks,
    performance_profile,
    permutation_p_value,
    probability_of_improvement,
    probability_of_improvement_interval,
    wilson_interval,
)
from bench.results._views import (
    aggregate_view,
    domain_view,
    improvement_view,
    markdown_table,
    phase_view,
    print_table,
    print_view,
    task_view,
    write_table,
)
from bench.results._writer import ResultWriter

__all__ = [
    "CELL_COLUMNS",
    "EVALUATIONS",
    "PHASES",
    "TIMING_COLUMNS",
    "TRAINING",
    "Comparison",
    "Coverage",
    "DataCheck",
    "FinalTable",
    "Interval",
    "MethodDifference",
    "ResultWriter",
    "RunProgress",
    "TableSchema",
    "aggregate_table",
    "aggregate_view",
    "bootstrap_interval",
    "cell_results",
    "check_data",
    "compare_runs",
    "domain_view",
    "final_table",
    "holm_p_values",
    "improvement_view",
    "interquartile_mean",
    "is_task",
    "labelled_evaluations",
    "markdown_table",
    "mean_over_tasks",
    "method_label",
    "metric_rows",
    "pairs_table",
    "performance_profile",
    "permutation_p_value",
    "phase_view",
    "planned_cells",
    "print_table",
    "print_view",
    "probability_of_improvement",
    "probability_of_improvement_interval",
    "published_domains",
    "recorded_data",
    "run_progress",
    "scan_evaluations",
    "scan_training",
    "setting_differences",
    "table_files",
    "task_label",
    "task_view",
    "wilson_interval",
    "without_stopped",
    "write_table",
]

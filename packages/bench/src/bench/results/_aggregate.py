"""Statistics over all tasks of a suite: interquartile means, and which method beats which."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from bench.experiment import Phase
from bench.results._cells import COUNTED
from bench.results._final import FinalTable, phases
from bench.results._scores import final_rates
from bench.results._statistics import (
    bootstrap_interval,
    holm_p_values,
    interquartile_mean,
    permutation_p_value,
    probability_of_improvement_interval,
)

__all__ = ["aggregate_table", "method_scores", "pairs_table"]

_LEVEL = 0.05
_SCOPE = {"suite": pl.String(), "phase": pl.String()}
_AGGREGATE: dict[str, pl.DataType] = {
    **_SCOPE,
    "method": pl.String(),
    "tasks": pl.Int64(),
    "runs": pl.Int64(),
    "mean": pl.Float64(),
    "mean_low": pl.Float64(),
    "mean_high": pl.Float64(),
    "iqm": pl.Float64(),
    "iqm_low": pl.Float64(),
    "iqm_high": pl.Float64(),
}
_PAIRS: dict[str, pl.DataType] = {
    **_SCOPE,
    "first": pl.String(),
    "second": pl.String(),
    "tasks": pl.Int64(),
    "first_runs": pl.Int64(),
    "second_runs": pl.Int64(),
    "probability": pl.Float64(),
    "probability_low": pl.Float64(),
    "probability_high": pl.Float64(),
    "difference": pl.Float64(),
    "p": pl.Float64(),
    "p_corrected": pl.Float64(),
    "says": pl.String(),
}


def method_scores(table: FinalTable, suite: str, phase: str) -> dict[str, dict[str, list[float]]]:
    """Method to task to the final success rates of its finished runs.

    Methods that end with pretraining take part in every phase.
    """
    cells = table.cells.filter((pl.col("suite") == suite) & COUNTED)
    first_only = (pl.col("phase") == Phase.PRETRAIN).all().over("agent", "variant")
    return final_rates(cells.filter((pl.col("phase") == phase) | first_only))


def aggregate_table(table: FinalTable) -> pl.DataFrame:
    """Mean and interquartile mean per suite, phase and method over all tasks.

    Returns:
        `suite`, `phase`, `method`, `tasks`, `runs`, and `mean` and `iqm` with `_low` and `_high`,
        the ends of their 95 % intervals by a bootstrap over seeds, stratified by task; null where
        a task has one run. Rates are fractions.
    """
    rows = []
    for suite, phase, scores in _scores_by_scope(table):
        for method, tasks in sorted(scores.items()):
            runs = list(tasks.values())
            mean = bootstrap_interval(runs)
            middle = bootstrap_interval(runs, interquartile_mean)
            row: dict[str, Any] = {
                "suite": suite,
                "phase": phase,
                "method": method,
                "tasks": len(runs),
                "runs": sum(map(len, runs)),
                "mean": mean.value,
                "iqm": middle.value,
            }
            if min(map(len, runs)) > 1:
                row |= {"mean_low": mean.low, "mean_high": mean.high}
                row |= {"iqm_low": middle.low, "iqm_high": middle.high}
            rows.append(row)
    return pl.DataFrame(rows, schema=_AGGREGATE)


def pairs_table(table: FinalTable) -> pl.DataFrame:
    """Every two methods of a suite and phase on their shared tasks.

    A method is called better only if every shared task has at least two runs on both sides, the
    95 % interval leaves out one half, and the permutation test of the mean difference stays below
    5 % after Holm's correction for the number of pairs; probably better, if it does so before.

    Returns:
        `suite`, `phase`, `first`, `second`, `tasks`, `first_runs`, `second_runs`, `probability`
        that a run of the first beats a run of the second with `probability_low` and
        `probability_high` (95 %, bootstrap), `difference` of the means over tasks (a fraction), `p`
        and `p_corrected` of the permutation test, `says`. Intervals and p are null where a task has
        one run on a side.
    """
    rows: list[dict[str, Any]] = []
    for suite, phase, scores in _scores_by_scope(table):
        rows += [{"suite": suite, "phase": phase} | row for row in _pairs(scores)]
    return pl.DataFrame(rows, schema=_PAIRS)


def _scores_by_scope(table: FinalTable) -> list[tuple[str, str, dict[str, dict[str, list[float]]]]]:
    return [
        (suite, phase, method_scores(table, suite, phase))
        for suite in table.tasks["suite"].unique().sort()
        for phase in phases(table)
    ]


def _pairs(scores: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    compared = []
    for first, second in combinations(sorted(scores), 2):
        shared = [task for task in scores[first] if task in scores[second]]
        if shared:
            ours = [scores[first][task] for task in shared]
            compared.append((first, second, ours, [scores[second][task] for task in shared]))
    tested = [index for index, pair in enumerate(compared) if _fewest(*pair[2:]) > 1]
    p_values = {index: permutation_p_value(*compared[index][2:]) for index in tested}
    corrected = dict(zip(tested, holm_p_values(list(p_values.values())), strict=True))
    rows = []
    for index, (first, second, ours, theirs) in enumerate(compared):
        interval = probability_of_improvement_interval(ours, theirs)
        row: dict[str, Any] = {
            "first": first,
            "second": second,
            "tasks": len(ours),
            "first_runs": sum(map(len, ours)),
            "second_runs": sum(map(len, theirs)),
            "probability": interval.value,
            "difference": _difference(ours, theirs),
            "says": "one seed: no claim",
        }
        if index in p_values:
            beyond = interval.low > 0.5 or interval.high < 0.5
            better = first if interval.value > 0.5 else second
            says = "open"
            if beyond and corrected[index] < _LEVEL:
                says = f"{better} is better"
            elif beyond and p_values[index] < _LEVEL:
                says = f"{better} is probably better"
            row |= {"probability_low": interval.low, "probability_high": interval.high}
            row |= {"p": p_values[index], "p_corrected": corrected[index], "says": says}
        rows.append(row)
    return rows


def _fewest(*sides: list[list[float]]) -> int:
    return min(len(runs) for side in sides for runs in side)


def _difference(ours: list[list[float]], theirs: list[list[float]]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return float(np.mean([np.mean(first) - np.mean(second) for first, second in pairs]))

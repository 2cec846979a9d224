"""Statistics over all tasks of a suite: interquartile means, and which method beats which."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl

from bench.results._final import FinalTable
from bench.results._scores import final_rates
from bench.results._statistics import (
    bootstrap_interval,
    holm_p_values,
    interquartile_mean,
    permutation_p_value,
    probability_of_improvement_interval,
)
from bench.results._views import MISSING, percent

__all__ = ["aggregate_view", "improvement_view", "method_scores"]

_LEVEL = 0.05


def method_scores(table: FinalTable, suite: str, phase: str) -> dict[str, dict[str, list[float]]]:
    """Method to task to the final success rates of its finished runs.

    Methods that end with pretraining take part in every phase.
    """
    cells = table.cells.filter((pl.col("suite") == suite) & pl.col("finished"))
    first_only = (pl.col("phase") == "pretrain").all().over("agent", "variant")
    return final_rates(cells.filter((pl.col("phase") == phase) | first_only))


def aggregate_view(table: FinalTable, suite: str, phase: str) -> pl.DataFrame:
    """Mean and interquartile mean per method with stratified bootstrap intervals, as text."""
    rows = []
    for method, tasks in sorted(method_scores(table, suite, phase).items()):
        runs = list(tasks.values())
        mean = bootstrap_interval(runs)
        middle = bootstrap_interval(runs, interquartile_mean)
        several = min(len(task) for task in runs) > 1
        rows.append(
            {
                "method": method,
                "tasks": str(len(runs)),
                "runs": str(sum(len(task) for task in runs)),
                "mean %": percent(mean.value),
                "mean, 95 %": _ends(mean.low, mean.high) if several else MISSING,
                "interquartile mean %": percent(middle.value),
                "interquartile mean, 95 %": _ends(middle.low, middle.high) if several else MISSING,
            }
        )
    return pl.DataFrame(rows)


def improvement_view(table: FinalTable, suite: str, phase: str) -> pl.DataFrame:
    """Probability that a run of one method beats a run of another on their shared tasks, as text.

    A method is called better only if every shared task has at least two runs on both sides, the
    95 % interval leaves out one half, and the permutation test of the mean difference stays below
    5 % after Holm's correction for the number of pairs; probably better, if it does so before.
    """
    scores = method_scores(table, suite, phase)
    compared = []
    for first, second in combinations(sorted(scores), 2):
        shared = [task for task in scores[first] if task in scores[second]]
        if shared:
            ours = [scores[first][task] for task in shared]
            compared.append((first, second, ours, [scores[second][task] for task in shared]))
    p_values = [permutation_p_value(ours, theirs) for *_, ours, theirs in compared]
    corrected = holm_p_values(p_values)
    rows = []
    for (first, second, ours, theirs), p_value, holm in zip(
        compared, p_values, corrected, strict=True
    ):
        interval = probability_of_improvement_interval(ours, theirs)
        fewest = min(len(runs) for runs in ours + theirs)
        beyond = interval.low > 0.5 or interval.high < 0.5
        verdict = "open"
        if fewest == 1:
            verdict = "one seed: no claim"
        elif beyond and p_value < _LEVEL:
            better = first if interval.value > 0.5 else second
            verdict = f"{better} is better" if holm < _LEVEL else f"{better} is probably better"
        rows.append(
            {
                "pair": f"{first} > {second}",
                "tasks": str(len(ours)),
                "probability %": percent(interval.value),
                "95 %": _ends(interval.low, interval.high) if fewest > 1 else MISSING,
                "mean difference": f"{100 * _difference(ours, theirs):+.1f}",
                "p": f"{p_value:.2g}" if fewest > 1 else MISSING,
                "p, corrected": f"{holm:.2g}" if fewest > 1 else MISSING,
                "says": verdict,
            }
        )
    return pl.DataFrame(rows)


def _difference(ours: list[list[float]], theirs: list[list[float]]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return float(np.mean([np.mean(first) - np.mean(second) for first, second in pairs]))


def _ends(low: float, high: float) -> str:
    return f"[{percent(low)}, {percent(high)}]"

"""The result tables: per task, per domain, and what is missing from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.errors import ResultsError
from bench.experiment import Phase
from bench.results._cells import COUNTED, cell_results, labelled_evaluations, require_one_origin
from bench.results._protocol import joined_differences
from bench.results._schema import CELL_COLUMNS, PHASES
from bench.results._statistics import (
    Interval,
    bootstrap_interval,
    interquartile_mean,
    wilson_interval,
)

__all__ = ["Coverage", "FinalTable", "final_table", "phases"]

_METHOD = ("suite", "agent", "variant", "phase")
_MEASURES: dict[str, pl.DataType] = {
    "success": pl.Float64(),
    "success_std": pl.Float64(),
    "success_low": pl.Float64(),
    "success_high": pl.Float64(),
    "interval": pl.String(),
    "iqm": pl.Float64(),
    "best": pl.Float64(),
    "best_std": pl.Float64(),
    "episodes": pl.Int64(),
    "seeds": pl.Int64(),
    "path_kl": pl.Float64(),
    "kl_budget": pl.Float64(),
    "lambda": pl.Float64(),
    "step": pl.Int64(),
    "tasks": pl.Int64(),
    "tasks_planned": pl.Int64(),
    "runs": pl.Int64(),
    "runs_planned": pl.Int64(),
    "simulator": pl.String(),
    "data_source": pl.String(),
    "off_protocol": pl.String(),
}
# Fewer runs of a task than this, and a bootstrap over them is visibly too narrow.
_FEW_SEEDS = 5


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of what was planned is in the table.

    A run is a cell; it counts when every planned phase of it is finished. A task counts when all
    its planned runs do.
    """

    tasks: int
    tasks_planned: int
    runs: int
    runs_planned: int
    failed: tuple[str, ...]
    unfinished: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.runs == self.runs_planned

    def __str__(self) -> str:
        return f"{self.tasks}/{self.tasks_planned} tasks, {self.runs}/{self.runs_planned} runs"


@dataclass(frozen=True, slots=True)
class FinalTable:
    """Results of runs; rates are fractions, `docs/results.md` explains every column.

    Attributes:
        tasks: a row per suite, domain, task, agent, variant and phase.
        domains: the same per domain, and with domain `all` over everything a method ran.
        cells: a row per cell and phase, as `cell_results`.
        coverage: what is missing.
        notes: what a reader of the numbers must know.
    """

    tasks: pl.DataFrame
    domains: pl.DataFrame
    cells: pl.DataFrame
    coverage: Coverage
    notes: tuple[str, ...]


def final_table(
    runs: Sequence[Path], *, unfinished: bool = False, mix: bool = False, resamples: int = 50_000
) -> FinalTable:
    """Summarises the runs at or below `runs`.

    One seed: the interval is Wilson's over episodes and says nothing about other seeds. Several:
    mean, sample standard deviation (n - 1) and a bootstrap interval over seeds.

    Args:
        runs: run directories, their parents, or table files.
        unfinished: also use the last evaluation of cells that have not reached their end; never of
            those that were stopped.
        mix: average rows of different data, simulators or protocols all the same.
        resamples: bootstrap samples.

    Raises:
        ResultsError: nothing to report, or tables that cannot be read.
        MixedOriginError: the rows to be averaged do not measure the same thing.
    """
    evaluations = labelled_evaluations(runs)
    cells = cell_results(runs, evaluations)
    if cells.is_empty():
        raise ResultsError(f"no evaluations in {', '.join(str(run) for run in runs)} yet")
    measured = pl.col("success_rate").is_not_null() & ~pl.col("stopped")
    used = cells.filter(measured if unfinished else COUNTED)
    if not mix:
        require_one_origin(evaluations, used)
    tasks = _summary(cells, used, (*_METHOD, "domain", "task"), resamples)
    domains = _summary(cells, used, (*_METHOD, "domain"), resamples)
    if cells["domain"].n_unique() > 1:
        everything = _summary(cells, used, _METHOD, resamples)
        domains = pl.concat(
            [domains, everything.with_columns(domain=pl.lit("all")).select(domains.columns)]
        )
    coverage = _coverage(cells)
    notes = _notes(cells, used, tasks, coverage, unfinished=unfinished, mix=mix)
    return FinalTable(tasks, domains, cells, coverage, notes)


def _summary(
    cells: pl.DataFrame, used: pl.DataFrame, group: Sequence[str], resamples: int
) -> pl.DataFrame:
    by = list(group)
    measured = {
        key: _measures(part, resamples)
        for key, part in used.partition_by(by, as_dict=True, maintain_order=True).items()
    }
    rows = []
    for key, part in cells.partition_by(by, as_dict=True, maintain_order=True).items():
        counts = {"tasks_planned": part["task"].n_unique(), "runs_planned": part.height}
        rows.append(dict(zip(by, key, strict=True)) | counts | measured.get(key, {}))
    schema = {name: cells.schema[name] for name in by} | _MEASURES
    order = [
        name for name in ("suite", "domain", "task", "phase", "agent", "variant") if name in by
    ]
    when = pl.col("phase").replace_strict(PHASES, range(len(PHASES)), return_dtype=pl.Int8)
    by_time = [when if name == "phase" else pl.col(name) for name in order]
    return pl.DataFrame(rows, schema=schema).sort(by_time).select(*order, *_MEASURES)


def _measures(part: pl.DataFrame, resamples: int) -> dict[str, Any]:
    """Measures of the cells of one group; tasks weigh the same whatever their number of seeds."""
    per_task = [task.sort("seed") for task in part.partition_by("task", maintain_order=True)]
    final = [task["success_rate"].to_numpy() for task in per_task]
    best = [task["best_rate"].to_numpy() for task in per_task]
    interval, kind = rate_interval(part, final, resamples)
    return {
        "success": interval.value,
        "success_std": _spread_over_seeds(part, "success_rate"),
        "success_low": interval.low if kind else None,
        "success_high": interval.high if kind else None,
        "interval": kind,
        "iqm": float(interquartile_mean(final)),
        "best": float(np.mean([np.mean(task) for task in best])),
        "best_std": _spread_over_seeds(part, "best_rate"),
        "episodes": int(part["episodes"].sum()),
        "seeds": part["seed"].n_unique(),
        "path_kl": part["path_kl"].mean(),
        "kl_budget": part["kl_budget"].mean(),
        "lambda": part["lambda"].mean(),
        "step": part["step"].min(),
        "tasks": len(per_task),
        "runs": part.height,
        "simulator": _one_of(part["simulator"]),
        "data_source": _one_of(part["data_source"]),
        "off_protocol": _off_protocol(part["off_protocol"]),
    }


def rate_interval(
    part: pl.DataFrame, scores: Sequence[Any], resamples: int
) -> tuple[Interval, str | None]:
    """Mean over tasks with the interval that the runs support, and what that interval is over.

    Args:
        part: rows with `episodes` and `successes`, one per run.
        scores: per task the success rates of its runs.
        resamples: bootstrap samples, where there are several runs of every task.
    """
    if min(len(task) for task in scores) > 1:
        return bootstrap_interval(scores, resamples=resamples), "bootstrap over seeds"
    mean = float(np.mean([np.mean(task) for task in scores]))
    if max(len(task) for task in scores) == 1 and part["episodes"].n_unique() == 1:
        # Over several tasks this is a little too wide: the rates of the tasks are fixed, not drawn.
        pooled = wilson_interval(int(part["successes"].sum()), int(part["episodes"].sum()))
        return Interval(mean, pooled.low, pooled.high), "Wilson over episodes"
    return Interval(mean, mean, mean), None


def _spread_over_seeds(part: pl.DataFrame, column: str) -> float | None:
    """Sample standard deviation of the seeds' means over tasks; seeds with all tasks only."""
    tasks = part["task"].n_unique()
    seeds = part.group_by("seed").agg(pl.col(column).mean(), tasks=pl.col("task").n_unique())
    whole = seeds.filter(pl.col("tasks") == tasks)[column]
    return float(np.std(whole.to_numpy(), ddof=1)) if len(whole) > 1 else None


def _one_of(values: pl.Series) -> str:
    found = values.fill_null("unknown").unique().sort().to_list()
    return found[0] if len(found) == 1 else "mixed: " + " + ".join(found)


def _off_protocol(values: pl.Series) -> str | None:
    """Null if it is unknown of one of them."""
    return None if values.null_count() else joined_differences(values.to_list())


def _coverage(cells: pl.DataFrame) -> Coverage:
    runs = cells.group_by(*CELL_COLUMNS, maintain_order=True).agg(
        pl.col("finished").all(),
        pl.col("failure").drop_nulls().first(),
        pl.col("failed_at_step").drop_nulls().first(),
        pl.col("phase").filter(~pl.col("finished")).first(),
        pl.col("step").filter(~pl.col("finished")).first(),
        pl.col("planned_step").filter(~pl.col("finished")).first(),
    )
    tasks = runs.group_by("suite", "task").agg(pl.col("finished").all())
    failed, unfinished = [], []
    for row in runs.filter(~pl.col("finished")).iter_rows(named=True):
        label = f"{row['task']}, {row['agent']} {row['variant']}".strip() + f", seed {row['seed']}"
        if row["failure"] is not None:
            failed.append(f"{label}: failed at step {row['failed_at_step']}: {row['failure']}")
        else:
            at = f"at {row['phase']} step {row['step'] or 0} of {row['planned_step']}"
            unfinished.append(f"{label}: {at}")
    return Coverage(
        tasks=int(tasks["finished"].sum()),
        tasks_planned=tasks.height,
        runs=int(runs["finished"].sum()),
        runs_planned=runs.height,
        failed=tuple(failed),
        unfinished=tuple(unfinished),
    )


def _notes(
    cells: pl.DataFrame,
    used: pl.DataFrame,
    tasks: pl.DataFrame,
    coverage: Coverage,
    *,
    unfinished: bool,
    mix: bool,
) -> tuple[str, ...]:
    notes = []
    if not coverage.complete:
        how = "used at their last evaluation" if unfinished else "left out"
        notes.append(f"incomplete: {coverage}; the missing ones are {how}")
    if stopped := cells.filter("stopped").height:
        were = "run was" if stopped == 1 else "runs were"
        notes.append(f"{stopped} {were} stopped before the end and count nowhere as a result")
    if lost := int(used["failed_evaluations"].sum()):
        evaluations = "evaluation" if lost == 1 else "evaluations"
        notes.append(
            f"{lost} {evaluations} on the way failed (column `failure` of the evaluations) and "
            "left gaps in the curves; the numbers here are of later ones"
        )
    seeds = tasks.filter(pl.col("runs") > 0)["seeds"]
    fewest = seeds.min()
    if fewest == 1:
        notes.append(
            "one seed: intervals cover the evaluation episodes only; another seed may well lie "
            "outside, so no difference between methods is supported"
        )
    elif isinstance(fewest, int) and fewest < _FEW_SEEDS:
        notes.append(
            f"{fewest} seeds: bootstrap intervals over fewer than {_FEW_SEEDS} seeds are too narrow"
        )
    for (suite,), part in (
        used.sort("suite", "phase").partition_by("suite", as_dict=True, maintain_order=True).items()
    ):
        other = part.filter(pl.col("off_protocol") != "")
        if other.height:
            some = f", {other.height} of {part.height} runs" if other.height < part.height else ""
            notes.append(
                f"not the suite's protocol ({suite}{some}): "
                f"{joined_differences(other['off_protocol'].to_list())}; no published numbers are "
                "shown beside it"
            )
    idle = used.filter(pl.col("data_source") == "random policy")["domain"].unique().sort()
    if len(idle):
        notes.append(
            f"trained on data of a random policy, not on the benchmark's: {', '.join(idle)}"
        )
    for name in ("data_source", "data_fingerprint", "simulator", "precision"):
        kinds = used.group_by("suite", "domain").agg(
            pl.col(name).fill_null("unknown").unique().sort()
        )
        for row in kinds.filter(pl.col(name).list.len() > 1).sort("domain").iter_rows(named=True):
            how = "averaged (--mix) over" if mix else "the runs differ in"
            notes.append(f"{row['domain']}: {how} {name}: {', '.join(row[name])}")
    return tuple(notes)


def phases(table: FinalTable) -> list[str]:
    """Phases that deserve a table by domain: pretraining only if there is nothing else."""
    found = [phase for phase in PHASES if phase in table.domains["phase"]]
    return [phase for phase in found if phase != Phase.PRETRAIN] or found

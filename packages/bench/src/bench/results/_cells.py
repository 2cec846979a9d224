"""From evaluation rows to one row per cell and phase: final, best, finished or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from bench.errors import MixedOriginError, ResultsError
from bench.results._scan import planned_cells, scan_evaluations
from bench.results._schema import CELL_COLUMNS, TIMING_COLUMNS
from bench.storage import simulator_label

__all__ = [
    "COUNTED",
    "ORIGIN_COLUMNS",
    "cell_results",
    "labelled_evaluations",
    "require_one_origin",
    "without_stopped",
]

# Rows that differ in one of these measure different things.
ORIGIN_COLUMNS = ("data_source", "data_fingerprint", "simulator", "protocol_fingerprint")
COUNTED = pl.col("finished") & pl.col("success_rate").is_not_null()
"""Cells with a result: a run that only trains (`evaluate=None`) ends without one."""
_KEY = (*CELL_COLUMNS, "phase")
# A row that says why a run was stopped. Where only an evaluation failed, and training went on, the
# row has the time that the evaluation took.
_STOP = pl.col("failure").is_not_null() & pl.col("seconds_evaluation").is_null()


def labelled_evaluations(runs: Sequence[Path]) -> pl.DataFrame:
    """All evaluation rows, with the columns `run` and `simulator` (its label) added.

    `kl_budget` is null where lambda is held fixed: a budget is set there, but nothing reads it.

    Rows of several runs that agree in everything but their cost are one measurement (every run of
    an agent evaluates the cloned policy that it starts from) and stand once, under one of the runs.
    What a table says of a stopped run from the step on at which it was stopped is left out: version
    0.1 went on evaluating its lost parameters.

    Raises:
        ResultsError: no table can be found or read, or the same evaluation is there twice with
            different outcomes.
    """
    rows = _each_once(_until_stopped(scan_evaluations(runs).collect()))
    keys = [*_KEY, "run"]
    held = planned_cells(runs).filter("fixed_lambda").select(*keys, "fixed_lambda")
    rows = rows.join(held, on=keys, how="left", nulls_equal=True).with_columns(
        kl_budget=pl.when(pl.col("fixed_lambda").is_null()).then("kl_budget")
    )
    rows = rows.drop("fixed_lambda")
    versions = ["mujoco_version", "ogbench_version"]
    pairs = rows.select(versions).unique()
    labels = [simulator_label(mujoco, ogbench) for mujoco, ogbench in pairs.iter_rows()]
    labelled = pairs.with_columns(simulator=pl.Series(labels, dtype=pl.String))
    return rows.join(labelled, on=versions, how="left", nulls_equal=True)


def _until_stopped(rows: pl.DataFrame) -> pl.DataFrame:
    """Without evaluations of stopped runs from the step on at which they were stopped."""
    stopped_at = pl.when(_STOP).then(pl.coalesce("failed_at_step", "step")).min()
    void = pl.col("step") >= stopped_at.over(*_KEY, "run")
    return rows.filter(_STOP | ~void.fill_null(value=False))


def _each_once(rows: pl.DataFrame) -> pl.DataFrame:
    """Without repeated measurements; a cell that two runs agree on belongs to the later one."""
    content = [name for name in rows.columns if name not in (*TIMING_COLUMNS, "run")]
    several = pl.col("run").n_unique().over(_KEY) > 1
    shared = rows.filter(several)
    once = shared.sort("run").unique(content, keep="first", maintain_order=True)
    kept = pl.concat([rows.filter(~several), once])
    # A failure may well be noted at the step of the last good evaluation, or again on a retry.
    measured = kept.filter(pl.col("success_rate").is_not_null())
    twice = measured.filter(pl.struct(*_KEY, "step").is_duplicated())
    if twice.height:
        first = twice.row(0, named=True)
        # A table from before a column existed has null there, which equals nothing.
        same_place = [pl.col(name).eq_missing(first[name]) for name in (*_KEY, "step")]
        raise _conflict(measured.filter(same_place), content)
    owner = pl.col("run").sort_by("step", "run").last().over(_KEY)
    return pl.concat([rows.filter(~several), once.with_columns(run=owner)])


def _conflict(twice: pl.DataFrame, content: Sequence[str]) -> ResultsError:
    first = twice.row(0, named=True)
    differing = [name for name in content if twice[name].n_unique() > 1]
    outcomes = [
        f"{row['successes']} of {row['episodes']} solved in {row['run']}"
        for row in twice.sort("run").head(4).iter_rows(named=True)
    ]
    what = f", differing in {', '.join(differing[:4])}" if differing else ""
    return ResultsError(
        f"{first['task']}, {first['agent']} {first['variant']}, seed {first['seed']}, "
        f"{first['phase']} step {first['step']} is there {twice.height} times{what}: "
        f"{', '.join(outcomes)}; report these runs one at a time, compare them with "
        "`bench compare`, or give them variants"
    )


def cell_results(runs: Sequence[Path], evaluations: pl.DataFrame | None = None) -> pl.DataFrame:
    """One row per cell and phase, planned ones without any evaluation included.

    Args:
        runs: run directories, their parents, or table files.
        evaluations: `labelled_evaluations(runs)`, if it is at hand.

    Returns:
        The cell columns, `phase`, `run`; of the last evaluation `step`, `episodes`, `successes`,
        `success_rate`, `return_mean`, `length_mean`, `path_kl`, `kl_budget`, `lambda`, the origin
        columns, `precision`, `device`; `best_rate` and `best_step` over all evaluations;
        `evaluations` and `failed_evaluations` (counts), `seconds` (that its pack took in this
        phase), `planned_step`, `off_protocol` (as `planned_cells`), `finished`, `stopped`,
        `failure`, `failed_at_step`. A stopped cell is never finished, whatever was recorded later.

    Raises:
        ResultsError: as `labelled_evaluations`.
    """
    rows = labelled_evaluations(runs) if evaluations is None else evaluations
    planned = planned_cells(runs).drop("pack", "fixed_lambda")
    keys = [*_KEY, "run"]
    joined = (
        _measured(rows)
        .join(_failures(rows), on=keys, how="full", coalesce=True)
        .join(planned, on=keys, how="full", coalesce=True)
        .with_columns(
            # Without a plan (tables without their run.json) the longest run sets the length.
            planned_step=pl.coalesce(
                "planned_step", pl.col("step").max().over("suite", "domain", "phase")
            )
        )
    )
    # Planned by several runs and measured by one of them, see `labelled_evaluations`; what stopped
    # in one of them is not made good by another.
    joined = (
        joined.with_columns(
            pl.col("stopped").fill_null(value=False), pl.col("failed_evaluations").fill_null(0)
        )
        .sort("stopped", "step", "run", descending=[True, True, False], nulls_last=True)
        .unique(list(_KEY), keep="first", maintain_order=True)
    )
    reached = (pl.col("step") >= pl.col("planned_step")).fill_null(value=False)
    # An evaluation that failed before a good one is no longer what ails the run.
    ailing = pl.col("stopped") | (pl.col("failed_at_step") > pl.col("step").fill_null(-1))
    return joined.with_columns(
        finished=reached & ~pl.col("stopped"),
        failure=pl.when(ailing).then("failure"),
        failed_at_step=pl.when(ailing).then("failed_at_step"),
    ).sort(keys)


def _measured(rows: pl.DataFrame) -> pl.DataFrame:
    """The last and the best evaluation of every cell; one that only trains has no success rate."""
    last = [
        "step", "episodes", "successes", "success_rate", "return_mean", "length_mean", "path_kl",
        "kl_budget", "lambda", *ORIGIN_COLUMNS, "precision", "device", "updates_per_second",
        "recorded_at",
    ]  # fmt: skip
    measured = rows.filter(pl.col("failure").is_null()).sort("step")
    return measured.group_by(*_KEY, "run").agg(
        *(pl.col(name).last() for name in last),
        best_rate=pl.col("success_rate").max(),
        best_step=pl.col("step")
        .sort_by("success_rate", nulls_last=False, maintain_order=True)
        .last(),
        evaluations=pl.col("success_rate").count(),
        # The first is what its pack has taken so far, the second of one evaluation.
        seconds=pl.col("seconds_training").max() + pl.col("seconds_evaluation").sum(),
    )


def _failures(rows: pl.DataFrame) -> pl.DataFrame:
    """The last failure of every cell that has one; whatever else failed, a stop ended the run."""
    failed = rows.filter(pl.col("failure").is_not_null())
    return (
        failed.sort(_STOP, "step", descending=[False, False])
        .group_by(*_KEY, "run", maintain_order=True)
        .agg(
            pl.col("failure").last(),
            pl.coalesce("failed_at_step", "step").last().alias("failed_at_step"),
            failed_evaluations=(~_STOP).sum(),
            stopped=_STOP.any(),
        )
    )


def without_stopped(rows: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """Rows of a table, those of runs that were stopped in any phase left out.

    Args:
        rows: with the cell columns.
        cells: `cell_results`.
    """
    return rows.join(cells.filter("stopped"), on=CELL_COLUMNS, how="anti", nulls_equal=True)


def require_one_origin(evaluations: pl.DataFrame, cells: pl.DataFrame) -> None:
    """Refuses to average what was not measured on the same data, simulator and protocol.

    Args:
        evaluations: `labelled_evaluations`.
        cells: the rows of `cell_results` that are about to be averaged.

    Raises:
        MixedOriginError: names the first group, what differs, and the runs.
    """
    # Each phase has its own protocol; rows of different phases are never averaged.
    group = ["suite", "domain", "agent", "variant", "phase"]
    measured = evaluations.filter(pl.col("success_rate").is_not_null())
    used = measured.join(cells.select(*_KEY, "run"), on=[*_KEY, "run"], how="semi")
    # Within a run settings are held equal where they are recorded, whoever hashed them.
    own = pl.col("protocol_fingerprint").sort_by("recorded_at").last().over(*group, "run")
    used = used.with_columns(protocol_fingerprint=own)
    for name in ORIGIN_COLUMNS:
        kinds = used.group_by(group).agg(pl.col(name).fill_null("unknown").unique().sort())
        mixed = kinds.filter(pl.col(name).list.len() > 1).sort(group)
        if mixed.height:
            raise _mixed(used, mixed.row(0, named=True), name)
    budgets = cells.group_by(*group, "task").agg(pl.col("kl_budget").unique().sort())
    mixed = budgets.filter(pl.col("kl_budget").list.len() > 1).sort(group)
    if mixed.height:
        raise _mixed(used, mixed.row(0, named=True), "kl_budget")


def _mixed(rows: pl.DataFrame, group: dict[str, object], name: str) -> MixedOriginError:
    keys = ("domain", "agent", "variant", "phase")
    selected = rows.filter(*(pl.col(key) == group[key] for key in keys))
    lines = [
        f"  {value}: {', '.join(sorted(set(runs))[:4])}"
        for value, runs in selected.group_by(name).agg("run").sort(name).iter_rows()
    ]
    label = " ".join(str(group[key]) for key in keys if group[key])
    return MixedOriginError(
        f"the runs of {label} differ in {name} and are not averaged:\n"
        + "\n".join(lines)
        + "\nreport them separately, or say --mix to average them all the same"
    )

"""What `bench ablate` runs and writes."""

import math
from pathlib import Path

import polars as pl

from bench.ablation.bandit import PROBLEM, Bandit, WarmStart
from bench.ablation.data_quality import plan_data
from bench.ablation.figures import Line, lines_against, tracking_figure
from bench.ablation.points import outcomes, plan_points
from bench.ablation.sensitivity import plan_sensitivity
from bench.ablation.settings import estimator_grid, families, kernel_grid
from bench.ablation.tracking import RULES, Tracking, followed, summary
from bench.ablation.writing import Written, basis_of, success_in_percent, write_results
from bench.agents import TRQAM, TRQAMConfig
from bench.experiment import (
    DataRequest,
    DualRequest,
    InternalVsExternalRequest,
    KernelsRequest,
    SensitivityRequest,
    SqamRequest,
)
from bench.training.options import Plan
from bench.training.request_checks import check_folder
from qlearn import RandomStreams

__all__ = ["SuiteAblation", "dual", "kernels", "plan_ablation", "sqam", "trust_region"]

SuiteAblation = (
    DataRequest | InternalVsExternalRequest | KernelsRequest | SensitivityRequest | SqamRequest
)
"""Requests of ablations that train on a suite."""


def dual(options: DualRequest) -> Written:
    """Follow rules for lambda on a made-up bandit; write table, curves and figure.

    Raises:
        ValueError: an impossible value.
    """
    for name in ("updates", "seeds", "warm_up"):
        if (count := getattr(options, name)) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {count}")
    for name in ("budget", "factor"):
        if not (math.isfinite(value := getattr(options, name)) and value > 0.0):
            raise ValueError(f"--{name} must be positive and finite, got {value}")
    check_folder("--out", options.out)
    tracking = Tracking(options.budget, options.updates, options.factor)
    for rule in RULES.values():  # what a rule refuses, before minutes are spent on the others
        TRQAM(TRQAMConfig(kl_budget=options.budget, **rule), PROBLEM, RandomStreams([0]))
    start = WarmStart.of(Bandit(), tuple(range(options.seeds)), options.warm_up)
    curves = followed(start, tracking)
    directory = options.out or Path("runs/ablate-dual")
    written = write_results(
        directory, "dual", summary(curves, tracking), tracking_figure(curves, tracking)
    )
    curves.write_parquet(directory / "curves.parquet")
    return written


def plan_ablation(options: SuiteAblation) -> Plan:
    """The packs of an ablation on a suite.

    Raises:
        ValueError: an impossible value.
    """
    if isinstance(options, SensitivityRequest):
        return plan_sensitivity(options)
    if isinstance(options, DataRequest):
        return plan_data(options)
    if isinstance(options, KernelsRequest):
        grid = kernel_grid(options.kernels, options.flow_steps, options.endpoint_samples)
        return plan_points(options, "kernels", grid)
    if isinstance(options, SqamRequest):
        grid = estimator_grid(options.estimators, options.penalties, options.path_samples)
        return plan_points(options, "sqam", grid)
    if options.dual == "solve":
        raise ValueError(
            "the weight of an external penalty is descended; leave out --dual solve, which "
            "`bench ablate dual` compares"
        )
    points = families(options.budgets, options.coefficients, options.lambdas, options.temperature)
    return plan_points(options, "internal-vs-external", points)


def trust_region(directory: Path) -> Written:
    """Success against the path KL that each kind of trust region realises; writes both."""
    kind = (
        pl.when(pl.col("variant").str.contains("internal"))
        .then(pl.lit("internal: budget"))
        .when(pl.col("variant").str.contains("external"))
        .then(pl.lit("external: KL penalty"))
        .otherwise(pl.lit("fixed lambda"))
    )
    rows = outcomes(directory).with_columns(kind=kind).sort("domain", "kind", "path_kl")
    lines = [
        Line(label, part["path_kl"].to_list(), *success_in_percent(part))
        for label, part in _groups(rows, "kind")
    ]
    figure = lines_against(
        {"success, %": lines},
        "realised path KL, nats per action",
        note=basis_of(rows),
        logarithmic=True,
    )
    return write_results(
        directory,
        "internal-vs-external",
        rows.drop("agent", "endpoint_kl", "realised_path_kl"),
        figure,
    )


def kernels(directory: Path) -> Written:
    """Success, path KL and endpoint KL of every kernel at several numbers of steps; writes them."""
    rows = outcomes(directory).with_columns(
        kernel=pl.col("variant").str.extract(r"kernel=([^,]+)"),
        steps=pl.col("variant").str.extract(r"flow-steps=(\d+)").cast(pl.Int64),
    )
    rows = rows.sort("domain", "kernel", "steps")
    success: list[Line] = []
    kls: list[Line] = []
    for label, part in _groups(rows, "kernel"):
        steps = part["steps"].to_list()
        success.append(Line(label, steps, *success_in_percent(part)))
        for name, text in (("path_kl", "path KL"), ("endpoint_kl", "endpoint KL")):
            values = part[name].to_list()
            kls.append(
                Line(f"{label}: {text}", steps, values, values, values, name == "endpoint_kl")
            )
    figure = lines_against(
        {"success, %": success, "nats per action": kls},
        "flow steps",
        note=basis_of(rows),
        logarithmic=False,
    )
    order = [
        "domain",
        "kernel",
        "steps",
        "success",
        "success_low",
        "success_high",
        "seeds",
        "episodes",
    ]
    table = rows.select(*order, "path_kl", "endpoint_kl", "lambda")
    return write_results(directory, "kernels", table, figure)


def sqam(directory: Path) -> Written:
    """Success and both path KLs of every estimator against the value penalty; writes them."""
    rows = outcomes(directory).with_columns(
        estimator=pl.col("variant").str.extract(r"estimator=([^,]+)"),
        penalty=pl.col("variant").str.extract(r"value-penalty=([^,]+)").cast(pl.Float64),
    )
    rows = rows.sort("domain", "estimator", "penalty")
    success: list[Line] = []
    kls: list[Line] = []
    for label, part in _groups(rows, "estimator"):
        penalties = part["penalty"].to_list()
        success.append(Line(label, penalties, *success_in_percent(part)))
        for name, text in (("path_kl", "regressed"), ("realised_path_kl", "realised")):
            values = part[name].to_list()
            dashed = name == "realised_path_kl"
            kls.append(Line(f"{label}: {text}", penalties, values, values, values, dashed))
    figure = lines_against(
        {"success, %": success, "path KL, nats per action": kls},
        "weight of the value penalty",
        note=basis_of(rows),
        logarithmic=False,
    )
    order = ["domain", "estimator", "penalty", "success", "success_low", "success_high"]
    order += ["seeds", "episodes", "path_kl", "realised_path_kl", "lambda"]
    return write_results(directory, "sqam", rows.select(order), figure)


def _groups(rows: pl.DataFrame, kind: str) -> list[tuple[str, pl.DataFrame]]:
    """Parts of one kind, and of one domain where there are several, with their labels."""
    parts = rows.partition_by(["domain", kind], as_dict=True, maintain_order=True)
    several = rows["domain"].n_unique() > 1
    return [
        (f"{domain}, {name}" if several else str(name), part)
        for (domain, name), part in parts.items()
    ]

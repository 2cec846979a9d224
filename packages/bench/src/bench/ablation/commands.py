"""What `bench ablate` runs and writes."""

import math
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from bench.ablation.bandit import PROBLEM, Bandit, WarmStart
from bench.ablation.figures import Line, drawn, lines_against, tracking_figure
from bench.ablation.points import outcomes, plan_points
from bench.ablation.settings import estimator_grid, families, kernel_grid
from bench.ablation.tracking import RULES, Tracking, followed, summary
from bench.agents import TRQAM, TRQAMConfig
from bench.experiment import (
    DualRequest,
    InternalVsExternalRequest,
    KernelsRequest,
    SqamRequest,
)
from bench.results import markdown_table
from bench.storage import write_bytes
from bench.training.options import Plan
from bench.training.request_checks import check_folder
from qlearn import RandomStreams

__all__ = ["Written", "as_text", "dual", "kernels", "plan_ablation", "sqam", "trust_region"]

Written = tuple[pl.DataFrame, tuple[Path, ...]]
"""A table, and the files that hold it and its figure."""


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
    written = _write(
        directory, "dual", summary(curves, tracking), tracking_figure(curves, tracking)
    )
    curves.write_parquet(directory / "curves.parquet")
    return written


def plan_ablation(options: InternalVsExternalRequest | KernelsRequest | SqamRequest) -> Plan:
    """The packs of an ablation on a suite.

    Raises:
        ValueError: an impossible value.
    """
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
        Line(label, part["path_kl"].to_list(), *_success(part))
        for label, part in _groups(rows, "kind")
    ]
    figure = lines_against(
        {"success, %": lines},
        "realised path KL, nats per action",
        note=_basis(rows),
        logarithmic=True,
    )
    return _write(
        directory, "internal-vs-external", rows.drop("endpoint_kl", "realised_path_kl"), figure
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
        success.append(Line(label, steps, *_success(part)))
        for name, text in (("path_kl", "path KL"), ("endpoint_kl", "endpoint KL")):
            values = part[name].to_list()
            kls.append(
                Line(f"{label}: {text}", steps, values, values, values, name == "endpoint_kl")
            )
    figure = lines_against(
        {"success, %": success, "nats per action": kls},
        "flow steps",
        note=_basis(rows),
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
    return _write(directory, "kernels", table, figure)


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
        success.append(Line(label, penalties, *_success(part)))
        for name, text in (("path_kl", "regressed"), ("realised_path_kl", "realised")):
            values = part[name].to_list()
            dashed = name == "realised_path_kl"
            kls.append(Line(f"{label}: {text}", penalties, values, values, values, dashed))
    figure = lines_against(
        {"success, %": success, "path KL, nats per action": kls},
        "weight of the value penalty",
        note=_basis(rows),
        logarithmic=False,
    )
    order = ["domain", "estimator", "penalty", "success", "success_low", "success_high"]
    order += ["seeds", "episodes", "path_kl", "realised_path_kl", "lambda"]
    return _write(directory, "sqam", rows.select(order), figure)


def _success(part: pl.DataFrame) -> tuple[list[float], list[float], list[float]]:
    """Success with the ends of its interval, in percent."""
    value, low, high = (
        (100.0 * part[name].fill_null(part["success"])).to_list()
        for name in ("success", "success_low", "success_high")
    )
    return value, low, high


def _basis(rows: pl.DataFrame) -> str:
    """What every point rests on, in words."""

    def counted(column: str, noun: str) -> str:
        found = sorted(set(rows[column].to_list()))
        several = "s" * (found[-1] > 1)
        return f"{' or '.join(map(str, found))} {noun}{several}"

    return (
        f"every point: {counted('seeds', 'seed')}, {counted('episodes', 'evaluation episode')} in "
        "all; bars: 95 %"
    )


def _groups(rows: pl.DataFrame, kind: str) -> list[tuple[str, pl.DataFrame]]:
    """Parts of one kind, and of one domain where there are several, with their labels."""
    parts = rows.partition_by(["domain", kind], as_dict=True, maintain_order=True)
    several = rows["domain"].n_unique() > 1
    return [
        (f"{domain}, {name}" if several else str(name), part)
        for (domain, name), part in parts.items()
    ]


def _write(directory: Path, name: str, table: pl.DataFrame, figure: Figure) -> Written:
    """Keep a table as .md and .csv beside its figure as .svg and .png."""
    directory.mkdir(parents=True, exist_ok=True)
    write_bytes(directory / f"{name}.md", markdown_table(as_text(table)).encode())
    write_bytes(directory / f"{name}.csv", table.write_csv().encode())
    for kind in ("svg", "png"):
        write_bytes(directory / f"{name}.{kind}", drawn(figure, kind))
    kinds = ("md", "csv", "svg", "png")
    return table, tuple(directory / f"{name}.{kind}" for kind in kinds)


def as_text(table: pl.DataFrame) -> pl.DataFrame:
    """A table as people read it: three digits, and a dash for what is not known."""
    return table.with_columns(
        pl.col(column).map_elements(_three_digits, return_dtype=pl.String)
        for column, kind in table.schema.items()
        if kind == pl.Float64
    ).with_columns(pl.all().cast(pl.String).fill_null("-"))


def _three_digits(value: float) -> str:
    return f"{value:.3g}"

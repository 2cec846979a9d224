"""The tasks of a suite learnt from data of several kinds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from bench.ablation.figures import named_values
from bench.ablation.points import outcomes
from bench.ablation.writing import Written, basis_of, success_in_percent, write_results
from bench.data import DatasetName, makeable_kinds, published_kinds
from bench.experiment import DataRequest, is_cloning
from bench.suites import Domain, Suite
from bench.training.custom_task import chosen_suite
from bench.training.options import Plan, plan_offline

__all__ = ["data_quality", "plan_data"]


def plan_data(options: DataRequest) -> Plan:
    """The packs of every kind of data; each kind has cloned policies of its own.

    Raises:
        ValueError: data of the user's own, a kind that a domain does not have, or whatever the
            offline phase refuses.
    """
    if options.dataset is not None or options.env is not None:
        raise ValueError("this compares OGBench's kinds of data; --dataset and --env do not apply")
    named = chosen_suite(options).narrowed(options.domains, options.tasks)
    domains = [other for domain in named.domains for other in _kinds(domain, options.kinds)]
    suite: Suite = replace(named, domains=tuple(domains))
    out = options.out
    if out is None:
        suffix = "" if options.preset == "full" else f"-{options.preset}"
        out = Path("runs") / f"{suite.name}{suffix}-ablate-data"
    request = replace(options, domains=(), tasks=(), out=out)
    return plan_offline(request, chosen=suite)


def _kinds(domain: Domain, asked: Sequence[str]) -> list[Domain]:
    """A domain with data of each kind: the same tasks, chunks and settings."""
    if not domain.source.published:
        raise ValueError(f"domain {domain.name!r} has data of its own, of no known kind")
    parsed = DatasetName.parse(f"{domain.name}-v0")
    made = makeable_kinds(parsed.environment)
    known = dict.fromkeys((parsed.kind, *made, *published_kinds(parsed.environment)))
    for kind in asked:
        if kind not in known:
            raise ValueError(
                f"{parsed.environment} has no data of kind {kind!r}; it has {', '.join(known)}"
            )
    kinds = dict.fromkeys(asked or (parsed.kind, *made))
    return [replace(domain, name=f"{parsed.environment}-{kind}") for kind in kinds]


def data_quality(directory: Path) -> Written:
    """Success from every kind of data; writes table and figure."""
    rows = outcomes(directory, None).filter(pl.col("domain") != "all")
    split = [DatasetName.parse(f"{name}-v0") for name in rows["domain"]]
    rows = rows.with_columns(
        environment=pl.Series([name.environment for name in split], dtype=pl.String),
        data=pl.Series([name.kind for name in split], dtype=pl.String),
        fine_tuned=pl.Series([not is_cloning(agent) for agent in rows["agent"]]),
    ).sort("environment", "data", "fine_tuned", "agent")
    several = rows["environment"].n_unique() > 1
    named = pl.concat_str("environment", "data", separator=" ") if several else pl.col("data")
    rows = rows.with_columns(row=named)
    names = rows["row"].unique(maintain_order=True).to_list()
    series = {
        agent: dict(zip(part["row"], zip(*success_in_percent(part), strict=True), strict=True))
        for (agent,), part in rows.partition_by(
            ["agent"], as_dict=True, maintain_order=True
        ).items()
    }
    figure = named_values(names, series, "success, %", note=basis_of(rows))
    order = ["environment", "data", "agent", "success", "success_low", "success_high"]
    return write_results(
        directory, "data", rows.select(*order, "seeds", "episodes", "path_kl"), figure
    )

"""One agent with one setting changed at a time, the study of arXiv 2601.14234 on QAM."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from bench.ablation.figures import named_values
from bench.ablation.points import Point, grid_point, outcomes, refuse_given
from bench.ablation.writing import Written, basis_of, success_in_percent, write_results
from bench.agents import AGENTS
from bench.experiment import SensitivityRequest, is_cloning
from bench.training.existing_packs import in_existing_packs
from bench.training.options import (
    GridPoint,
    Plan,
    agents_named,
    plan_grid,
    plan_offline,
    resolved_options,
)

__all__ = ["plan_sensitivity", "sensitivity"]

_STRENGTHS = ("inverse_temperature", "kl_budget")
"""What decides how far a policy goes from its reference, of methods that have such a setting."""
_UNCHANGED = "unchanged"
_CHANGED = ("max_gradient_norm", "num_critics", "flow_steps")


def plan_sensitivity(options: SensitivityRequest) -> Plan:
    """The packs of every change; all of them start from the same cloned policies.

    A change that a domain's own settings make already is left out there.

    Raises:
        ValueError: several agents, one without these settings, a setting that is also given by
            itself, an impossible value, or whatever the offline phase refuses.
    """
    strength = _strength(options)
    for option, values in (
        ("num-critics", options.num_critics),
        ("flow-steps", options.flow_steps),
    ):
        for count in values:
            if count < 1:
                raise ValueError(f"--{option} must be at least 1, got {count}")
    for factor in options.factors:
        if not (math.isfinite(factor) and factor > 0.0):
            raise ValueError(f"--factors must be positive and finite, got {factor}")
    refuse_given(options, (*_CHANGED, strength))
    request = resolved_options(options, "ablate-sensitivity")
    base = plan_offline(request)
    # Every domain has values of its own to change, so it is planned by itself, in the same packs.
    request = replace(request, pack=base.largest_pack, processes=base.processes)
    points: list[GridPoint] = []
    configs = {pack.domain.name: base.configs[pack.name] for pack in base.packs}
    for domain, config in configs.items():
        alone = replace(request, domains=(domain,))
        points.append(grid_point(alone, {}, (_UNCHANGED,)))
        for name, point in _changes(options, config, strength):
            points.append(grid_point(alone, point, (name,)))
    return in_existing_packs(plan_grid(base, points, kept=base.pretraining))


def _strength(options: SensitivityRequest) -> str:
    """The name of the agent's strength."""
    agents = agents_named(options.agent)
    if len(agents) != 1 or is_cloning(agents[0]):
        raise ValueError(
            f"this changes the settings of one agent that is fine-tuned, got {' '.join(agents)}"
        )
    settings = AGENTS[agents[0]].settings
    found = [name for name in _STRENGTHS if name in settings]
    if not found or not settings.issuperset(_CHANGED):
        lacking = [name for name in _CHANGED if name not in settings] or [" or ".join(_STRENGTHS)]
        raise ValueError(f"agent {agents[0]!r} has no setting {lacking[0]}; try qam or trqam")
    return found[0]


def _changes(
    options: SensitivityRequest, config: Any, strength: str
) -> Iterator[tuple[str, Point]]:
    """Names of the changes and what they set, beside a domain's settings."""
    if options.unclipped and config.max_gradient_norm is not None:
        yield "max-gradient-norm=none", {"max_gradient_norm": "none"}
    for count in options.num_critics:
        if count != config.num_critics:
            yield f"num-critics={count}", {"num_critics": count}
    for count in options.flow_steps:
        if count != config.flow_steps:
            yield f"flow-steps={count}", {"flow_steps": count}
    for factor in options.factors:
        if factor != 1.0:
            name = f"{strength.replace('_', '-')}=x{factor:g}"
            yield name, {strength: factor * getattr(config, strength)}


def sensitivity(directory: Path) -> Written:
    """Success and path KL of every change; writes table and figure."""
    rows = outcomes(directory, None).rename({"variant": "change"})
    rows = rows.filter(pl.col("domain") != "all", pl.col("change") != "")
    names = sorted(rows["change"].unique(), key=_order)
    place = pl.col("change").replace_strict(names, range(len(names)))
    rows = rows.sort("domain", place)
    series = {
        domain: dict(zip(part["change"], zip(*success_in_percent(part), strict=True), strict=True))
        for (domain,), part in rows.partition_by(["domain"], as_dict=True).items()
    }
    figure = named_values(names, series, "success, %", note=basis_of(rows))
    order = ["domain", "agent", "change", "success", "success_low", "success_high"]
    order += ["seeds", "episodes", "path_kl"]
    return write_results(directory, "sensitivity", rows.select(order), figure)


def _order(change: str) -> tuple[str, float]:
    """Changes of a setting together, from small to large; the unchanged agent first."""
    if change == _UNCHANGED:
        return "", 0.0
    setting, _, value = change.partition("=")
    number = value.removeprefix("x")
    return setting, float(number) if number != "none" else math.inf

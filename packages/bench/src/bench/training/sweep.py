"""From the options of `bench sweep` to the packs of every point of its grid, or one clear error."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from bench.agents import AGENTS
from bench.experiment import (
    CLONING,
    OfflineRequest,
    SweepRequest,
    given_settings,
    is_cloning,
    protocol_options,
)
from bench.recorded import current_name, stored_name
from bench.suites import unknown
from bench.training.existing_packs import in_existing_packs
from bench.training.options import (
    GridPoint,
    Plan,
    agents_named,
    plan_grid,
    plan_offline,
    resolved_options,
)
from bench.training.settings import parse_overrides

__all__ = ["plan_sweep"]

_MOST_POINTS = 1_000
_SCHEDULE = protocol_options(OfflineRequest)
_OF_CLONING = tuple(name for name, option in _SCHEDULE.items() if option.cloning)


def plan_sweep(options: SweepRequest) -> Plan:
    """Check every option and lay out the packs of the whole grid in one run directory.

    A pack gets as variant the swept values that concern its agent, so an agent that has none of the
    swept settings runs once, and so does behaviour cloning unless its own settings are swept.

    Raises:
        ValueError: nothing to sweep, an unknown name, an impossible value, or a value that is also
            given by itself.
    """
    offline: OfflineRequest = options
    agents = tuple(dict.fromkeys((*agents_named(offline.agent), CLONING)))
    axes = _axes(options.over, agents, offline)
    if (count := math.prod(map(len, axes.values()))) > _MOST_POINTS:
        raise ValueError(f"--over makes {count:,} points; at most {_MOST_POINTS:,} are planned")
    # What a point is not told it has in common with the first: without the swept settings there may
    # be nothing that can be planned.
    first = {name: values[0] for name, values in axes.items() if name not in _SCHEDULE}
    base = resolved_options(_at(offline, first), "-".join(["sweep", *axes]).replace("_", "-"))
    offline = replace(offline, out=base.out, pack=base.pack)
    points = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    whole = plan_grid(
        plan_offline(base),
        [
            GridPoint(
                _at(offline, point),
                ", ".join(f"{name.replace('_', '-')}={value}" for name, value in point.items()),
                partial(_variant, point=point),
            )
            for point in points
        ],
    )
    return in_existing_packs(whole)


def _axes(
    texts: Sequence[str], agents: Sequence[str], offline: OfflineRequest
) -> dict[str, tuple[str, ...]]:
    """Setting to its values as texts, spelled the same way however they were given."""
    if not texts:
        raise ValueError("give the settings to sweep, for example: --over kl-budget=0.1,0.3,1,3")
    known = {field for agent in agents for field in AGENTS[agent].settings} | {*_SCHEDULE}
    axes: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, separator, listed = text.partition("=")
        kinds = [AGENTS[agent].config for agent in agents]
        name = current_name(name.strip().replace("-", "_"), kinds)
        values = [value.strip() for value in listed.split(",")]
        if not separator or "" in values:
            raise ValueError(f"--over takes name=value,value,..., got {text!r}")
        others = [agent for agent, entry in AGENTS.items() if name in entry.settings]
        if name not in known and others:
            raise ValueError(
                f"{name.replace('_', '-')} is no setting of {', '.join(agents)}; with --agent it "
                f"can be swept for {', '.join(others)}"
            )
        if name not in known:
            raise ValueError(unknown("setting to sweep", name, sorted(known)))
        if name in axes:
            raise ValueError(f"{name} is swept twice; give all its values in one --over")
        if name in _given(offline, kinds):
            raise ValueError(f"{name} is both swept and set; drop one of the two")
        axes[name] = tuple(_canonical(name, value, agents) for value in values)
        for place, value in enumerate(axes[name]):
            if value in axes[name][:place]:
                option = name.replace("_", "-")
                raise ValueError(f"--over {option} lists {value} twice; list each value once")
    return axes


def _given(offline: OfflineRequest, kinds: Sequence[type[Any]]) -> set[str]:
    """Settings that the command fixes."""
    alone = {name for name in _SCHEDULE if getattr(offline, name) is not None}
    alone |= given_settings(offline).keys()
    names = (text.partition("=")[0].strip().replace("-", "_") for text in offline.set)
    return alone | {current_name(name, kinds) for name in names}


def _canonical(name: str, text: str, agents: Sequence[str]) -> str:
    if name in _SCHEDULE:
        try:
            return str(int(text))
        except ValueError:
            raise ValueError(f"{name.replace('_', '-')} must be int, got {text!r}") from None
    agent = next(agent for agent in agents if name in AGENTS[agent].settings)
    value = parse_overrides(AGENTS[agent].config, agent, [f"{name}={text}"])[name]
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _at(offline: OfflineRequest, point: Mapping[str, str]) -> OfflineRequest:
    """The options of one point of the grid."""
    protocol: dict[str, Any] = {n: int(v) for n, v in point.items() if n in _SCHEDULE}
    texts = [f"{name}={value}" for name, value in point.items() if name not in _SCHEDULE]
    return replace(offline, set=(*offline.set, *texts), **protocol)


def _variant(agent: str, point: Mapping[str, str]) -> tuple[str, ...]:
    # What cloning depends on, the agents that start from its flows depend on too.
    concerns = (
        {*_OF_CLONING, *AGENTS[CLONING].settings}
        if AGENTS[agent].pretrained or is_cloning(agent)
        else {}
    )
    own = {*concerns, *AGENTS[agent].settings} | ({*_SCHEDULE} if not is_cloning(agent) else set())
    kind = AGENTS[agent].config
    return tuple(
        # As in version 0.1: folders are named so.
        f"{stored_name(kind, name).replace('_', '-')}={value}"
        for name, value in point.items()
        if name in own
    )

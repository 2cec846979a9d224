"""Checks of what a command was given, before anything is made or trained for it."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from typing import Any

from bench.agents import Problem
from bench.agents.settings import setting_range, tried_with
from bench.training.cost import operations_of, rehearse
from bench.training.rehearsal import rehearse_life

__all__ = ["check_ranges"]

_WIDEST = 1 << 17
_REHEARSED: set[object] = set()  # kinds of settings whose whole life has been seen


def check_ranges(
    agent: str, config: Any, horizon: int, as_typed: Callable[[str], str] = str
) -> None:
    """Refuse values that the agent cannot use, before anything is made or trained for it.

    Args:
        agent: name in the registry.
        config: its settings.
        horizon: actions of a chunk.
        as_typed: how the user wrote a setting's name.

    Raises:
        ValueError: a value that is not finite, out of its range, or refused by the agent.
    """
    for entry in fields(config):
        name, value = as_typed(entry.name), getattr(config, entry.name)
        if isinstance(value, tuple) and not all(1 <= width <= _WIDEST for width in value):
            widths = ",".join(map(str, value))
            raise ValueError(
                f"{name} must be widths from 1 to {_WIDEST:,}, got {widths} (agent {agent!r})"
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not (allowed := setting_range(type(config), entry.name)).holds(value):
            finite = "" if math.isfinite(value) else "a finite number, "
            expected = allowed if math.isinf(allowed.least) else f"{finite}{allowed}"
            raise ValueError(f"{name} must be {expected}, got {value} (agent {agent!r})")
    if (refusal := _refusal(agent, replace(config, **tried_with(config)), horizon)) is not None:
        raise ValueError(f"agent {agent!r} rejects its settings: {refusal}")


@cache
def _refusal(agent: str, config: Any, horizon: int) -> str | None:
    """What an agent says of its settings; the points of a sweep have many in common."""
    problem, kind = Problem(1, 1, horizon), (agent, operations_of(config), horizon)
    try:
        if kind in _REHEARSED:
            rehearse(agent, config, problem)
        else:
            rehearse_life(agent, config, problem)
    except ValueError as error:
        return str(error)
    _REHEARSED.add(kind)
    return None

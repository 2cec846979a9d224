"""Checks of what a command was given, before anything is made or trained for it."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from bench.agents import Problem
from bench.training.cost import rehearse
from bench.training.settings import setting_range

__all__ = ["check_folder", "check_ranges"]


def check_ranges(
    agent: str, config: Any, horizon: int, spelled: Callable[[str], str] = str
) -> None:
    """Refuse values that the agent cannot use, before anything is made or trained for it.

    Args:
        agent: name in the registry.
        config: its settings.
        horizon: actions of a chunk.
        spelled: how the user wrote a setting's name.

    Raises:
        ValueError: a value that is not finite, out of its range, or refused by the agent.
    """
    for entry in fields(config):
        name, value = spelled(entry.name), getattr(config, entry.name)
        if isinstance(value, tuple) and min(value, default=1) < 1:
            widths = ",".join(map(str, value))
            raise ValueError(f"{name} must be widths of 1 or more, got {widths} (agent {agent!r})")
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not (allowed := setting_range(entry.name)).holds(value):
            finite = "" if math.isfinite(value) else "a finite number, "
            expected = allowed if math.isinf(allowed.least) else f"{finite}{allowed}"
            raise ValueError(f"{name} must be {expected}, got {value} (agent {agent!r})")
    narrow = {f.name: (1,) for f in fields(config) if f.name.endswith("_hidden")}
    try:
        rehearse(agent, replace(config, **narrow), Problem(1, 1, horizon))
    except ValueError as error:
        raise ValueError(f"agent {agent!r} refuses its settings: {error}") from error


def check_folder(option: str, path: Path | None) -> None:
    """Refuse a folder that is a file, or would have to lie in one.

    Raises:
        ValueError: it cannot be a folder.
    """
    if path is None:
        return
    there = next((place for place in (path, *path.absolute().parents) if place.exists()), None)
    if there is not None and not there.is_dir():
        raise ValueError(f"{option} {path}: {there} is a file, expected a folder")

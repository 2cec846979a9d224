"""Settings and environments that a run directory names, checked before anything is made of them."""

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.agents import AGENTS
from bench.agents.settings import SettingRange, setting_range
from bench.errors import ResultsError
from bench.extensions import is_reference
from bench.recorded import stored_name

__all__ = ["require_trusted", "stored_config"]

_MOST = 65_536  # wider layers are no settings of a run
_MOST_LAYERS = 256


def stored_config(agent: str, values: object, where: Path) -> Any:
    """The settings of an agent as a `run.json` holds them.

    Names that this version does not know are left out: an earlier version may have had them. Agents
    from outside check their settings themselves.

    Args:
        agent: its name there.
        values: setting to value.
        where: the run directory, for errors.

    Raises:
        ResultsError: no such agent, or a value of another type or out of its range.
        ValueError: the agent is of a module that the user did not name.
    """
    if is_reference(agent) and not AGENTS.is_known(agent):
        raise ValueError(_not_trusted(f"agent {agent}", agent, f"--agent {agent}", where))
    if agent not in AGENTS:
        raise ResultsError(
            f"{where} holds runs of agent {agent!r}, which is not installed here; expected one of "
            f"{', '.join(AGENTS)}"
        )
    kind = AGENTS[agent].config
    if not isinstance(values, Mapping):
        raise ResultsError(f"{where} has invalid settings of {agent}")
    ours = kind.__module__.partition(".")[0] == "bench"
    found = {}
    for name, hint in typing.get_type_hints(kind).items():
        if (stored := stored_name(kind, name)) in values:
            value = values[stored]
            found[name] = tuple(value) if isinstance(value, list) else value
            if ours and not _fits(found[name], hint, setting_range(kind, name)):
                raise ResultsError(
                    f"{where} has {stored}={value!r} for {agent}, which is out of range"
                )
    try:
        return kind(**found)
    except (TypeError, ValueError) as error:
        raise ResultsError(f"{where} has settings that {agent} rejects: {error}") from error


def require_trusted(environment: str, allowed: str | None, where: Path) -> None:
    """Refuses to import a module only because a run directory names it.

    Args:
        environment: id as the run has it, `module:Name-v0` or a registered one.
        allowed: the id that the user gave.
        where: the run directory.

    Raises:
        ValueError: it names a module and the user did not.
    """
    if allowed is not None and allowed != environment:
        raise ValueError(f"--env {allowed} is not the environment of {where}, {environment}")
    if ":" in environment and allowed is None:
        raise ValueError(_not_trusted(environment, environment, f"--env {environment}", where))


def _not_trusted(what: str, reference: str, option: str, where: Path) -> str:
    return (
        f"{where} was trained with {what}; to make it, the Python module "
        f"{reference.rpartition(':')[0]!r} is imported, which runs its code. If you trust it, add "
        f"{option}"
    )


def _fits(value: object, hint: Any, allowed: SettingRange) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return isinstance(value, str) and value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument, allowed) for argument in arguments)
    if origin is tuple:
        return (
            isinstance(value, tuple)
            and len(value) <= _MOST_LAYERS
            and all(type(width) is int and 1 <= width <= _MOST for width in value)
        )
    if hint is int:
        return type(value) is int and allowed.holds(value)
    if hint is float:
        return type(value) in (int, float) and allowed.holds(value)  # type: ignore[arg-type]
    return type(value) is hint

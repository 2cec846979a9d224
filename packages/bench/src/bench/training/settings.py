"""Agent settings: defaults, then the suite's values for the domain, then the user's."""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from bench.recorded import current_name
from bench.suites import Domain, Setting, unknown

__all__ = ["parse_overrides", "resolve"]


def resolve(config: type[Any], agent: str, domain: Domain, overrides: Mapping[str, Setting]) -> Any:
    """The agent's config for a domain.

    Args:
        config: the agent's settings dataclass.
        agent: its name, for the domain's agent-specific values.
        domain: whose values apply where the agent has a setting of that name; those that go with
            one of the user's values, such as `cgql-l mode=mse`, before the agent's usual ones.
        overrides: the user's values; each must be a setting of the agent.

    Raises:
        ValueError: an override is no setting of the agent, or a value is refused.
    """
    known = {f.name for f in fields(config)}

    def current(given: Mapping[str, Setting]) -> dict[str, Setting]:
        return {current_name(name, [config]): value for name, value in given.items()}

    overrides = current(overrides)
    for name in overrides:
        if name not in known:
            raise ValueError(unknown(f"setting of agent {agent!r}", name, known))
    usual = current(domain.settings)
    values = {name: value for name, value in usual.items() if name in known}
    values |= current(domain.agents.get(agent, {}))
    for name, value in overrides.items():
        values |= current(domain.agents.get(f"{agent} {name}={value}", {}))
    values |= overrides
    return config(**values)


def parse_overrides(config: type[Any], agent: str, texts: Sequence[str]) -> dict[str, Setting]:
    """Settings from ``name=value`` texts, parsed by the types of the config's fields.

    Raises:
        ValueError: no ``=``, an unknown name (with the nearest ones), or a value of another type.
    """
    hints = typing.get_type_hints(config)
    parsed: dict[str, Setting] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        name = current_name(name.strip().replace("-", "_"), [config])
        if not separator:
            raise ValueError(f"a setting is given as name=value, got {text!r}")
        if name not in hints:
            raise ValueError(unknown(f"setting of agent {agent!r}", name, hints))
        parsed[name] = _parse(name, hints[name], value.strip())
    return parsed


def _parse(name: str, kind: Any, text: str) -> Setting:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        if text not in arguments:
            raise ValueError(f"{name} must be one of {', '.join(arguments)}, got {text!r}")
        return text
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none":
            return None
        (kind,) = (a for a in arguments if a is not type(None))
        return _parse(name, kind, text)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if origin is tuple:
            return tuple(int(part) for part in text.replace("x", ",").split(","))
        return kind(text)  # type: ignore[no-any-return]
    except (ValueError, KeyError):
        wanted = (
            "true or false"
            if kind is bool
            else "widths such as 512,512"
            if origin is tuple
            else kind.__name__
        )
        raise ValueError(f"{name} must be {wanted}, got {text!r}") from None

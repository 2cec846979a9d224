"""Agent settings: defaults, then the suite's values for the domain, then the user's."""

import inspect
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from bench.suites import Domain, Setting, unknown

__all__ = ["SettingRange", "meanings", "parse_overrides", "resolve", "setting_range"]


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
    for name in overrides:
        if name not in known:
            raise ValueError(unknown(f"setting of agent {agent!r}", name, known))
    values = {name: value for name, value in domain.settings.items() if name in known}
    values |= domain.agents.get(agent, {})
    for name, value in overrides.items():
        values |= domain.agents.get(f"{agent} {name}={value}", {})
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
        name = name.strip().replace("-", "_")
        if not separator:
            raise ValueError(f"a setting is given as name=value, got {text!r}")
        if name not in hints:
            raise ValueError(unknown(f"setting of agent {agent!r}", name, hints))
        parsed[name] = _parse(name, hints[name], value.strip())
    return parsed


def meanings(config: type[Any]) -> dict[str, str]:
    """What the docstrings of a class and of those that it extends say of each setting."""
    meanings: dict[str, str] = {}
    for kind in reversed(config.__mro__):
        section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:")[2]
        found = re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", section, re.MULTILINE)
        meanings |= {name: " ".join(text.replace("``", "`").split()) for name, text in found}
    return meanings


@dataclass(frozen=True, slots=True)
class SettingRange:
    """Which numbers a setting may be; all of them are finite.

    Attributes:
        least: smallest one.
        most: largest one.
        above: whether ``least`` itself is refused.
    """

    least: float = 0.0
    most: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is one of them."""
        low = value > self.least if self.above else value >= self.least
        return math.isfinite(value) and low and value <= self.most

    def __str__(self) -> str:
        if math.isinf(self.least):
            return "finite"
        if self.above:
            return f"above {self.least:g}" + (
                "" if math.isinf(self.most) else f", to {self.most:g}"
            )
        return f"{self.least:g} " + ("or more" if math.isinf(self.most) else f"to {self.most:g}")


_COUNTS = {
    "best_of", "bridge_steps", "budget_steps", "critics", "dual_samples", "dual_states",
    "flow_steps", "target_every",
}  # fmt: skip
_MOST = {
    "best_of": 10_000, "critics": 1_000, "dual_samples": 10_000, "dual_states": 10_000,
    "flow_steps": 1_000,
}  # fmt: skip
"""Above these memory or time have no end."""
_POSITIVE = {
    "budget_end", "kl_budget", "lambda_initial", "lambda_max", "lambda_min", "lambda_scale",
    "max_gradient_norm", "temperature",
}  # fmt: skip
_SHARES = {"discount", "expectile", "target_rate"}


def setting_range(name: str) -> SettingRange:
    """The range of a setting that is a number, of whatever agent."""
    if name in ("pessimism", "target_entropy"):
        return SettingRange(-math.inf)
    if name in _COUNTS:
        return SettingRange(1.0, _MOST.get(name, math.inf))
    if name in _POSITIVE:
        return SettingRange(above=True)
    if name in _SHARES:
        return SettingRange(most=1.0)
    if name == "dual_ema":
        return SettingRange(most=1.0, above=True)
    # A cap at the budget or below it could only let lambda fall.
    return SettingRange(1.0, above=True) if name == "dual_clip" else SettingRange()


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

"""`bench agents`: the methods, their papers and their settings."""

import math
import sys
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

__all__ = ["Agents"]


@dataclass(frozen=True)
class Agents:
    """List the agents, or the settings of one with their meaning and the values of the suites.

    Attributes:
        agent: show the settings of this agent.
    """

    agent: Annotated[str | None, tyro.conf.Positional] = None

    def run(self) -> int:
        """Print the list or the settings."""
        from rich.console import Console
        from rich.padding import Padding
        from rich.table import Table

        from bench.agents import AGENTS
        from bench.agents.settings import setting_meanings
        from bench.suites import unknown

        # A pipe has no width of its own.
        console = Console(width=None if sys.stdout.isatty() else 100, markup=False, highlight=False)
        if self.agent is None:
            table = Table("agent", "method", "paper")
            for name, entry in AGENTS.items():
                table.add_row(name, entry.summary, entry.paper)
            console.print(table)
            console.print("`bench agents NAME` explains the settings of one")
            return 0
        if self.agent not in AGENTS:
            raise ValueError(unknown("agent", self.agent, AGENTS))
        entry = AGENTS[self.agent]
        console.print(f"{self.agent}: {entry.summary} ({entry.paper})")
        console.print("settings (--set name=value), and the suites that use another value:\n")
        hints, told = get_type_hints(entry.config), setting_meanings(entry.config)
        for field in fields(entry.config):
            default = "required" if field.default is MISSING else _text(field.default)
            values = _values(entry.config, field.name, hints[field.name])
            console.print(f"{field.name} = {default}  [{values}]")
            console.print(Padding(told.get(field.name, ""), (0, 0, 0, 4), expand=False))
            for line in _suite_values(self.agent, entry.config, field.name):
                console.print(Padding(line, (0, 0, 0, 4), expand=False))
        return 0


def _values(config: type[Any], name: str, kind: Any) -> str:
    """What a setting of a type may be."""
    from bench.agents.settings import setting_range

    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(arguments)
    if origin is tuple:
        return "widths: 512,512"
    if type(None) in arguments:
        (kind,) = (a for a in arguments if a is not type(None))
        return f"none, or {_values(config, name, kind)}"
    if kind is bool:
        return "true, false"
    allowed = setting_range(config, name)
    number = "integer" if kind is int else "number"
    if math.isinf(allowed.least):
        return number
    return f"{number}, {allowed}" if math.isinf(allowed.most) else str(allowed)


def _suite_values(agent: str, config: type[Any], setting: str) -> list[str]:
    """A line for each suite that departs from a setting's default.

    Then one for each choice of the user, such as `mode=mse`, with which it departs from that.
    """
    from bench.suites import SUITES
    from bench.training.settings import parse_overrides, resolve

    default = next(field.default for field in fields(config) if field.name == setting)
    lines = []
    for suite in SUITES.values():
        usual = [getattr(resolve(config, agent, d, {}), setting) for d in suite.domains]
        keys = dict.fromkeys(key for d in suite.domains for key in d.agents)
        choices = [key.removeprefix(f"{agent} ") for key in keys if key.startswith(f"{agent} ")]
        for choice in ("", *choices):
            overrides = parse_overrides(config, agent, [choice] if choice else [])
            if setting in overrides:
                continue
            found: dict[str, list[str]] = {}
            for domain, value in zip(suite.domains, usual, strict=True):
                other = value if choice else default
                value = getattr(resolve(config, agent, domain, overrides), setting)
                if value != other:
                    found.setdefault(_text(value), []).append(domain.name)
            said = [
                value if len(names) == len(suite.domains) else f"{value} ({', '.join(names)})"
                for value, names in found.items()
            ]
            if said:
                when = f", with {choice}" if choice else ""
                lines.append(f"{suite.name}{when}: {'; '.join(said)}")
    return lines


def _text(value: Any) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)

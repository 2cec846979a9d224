"""What a field of a request says of itself: which number of the protocol or of a run it is.

Options, their ranges and the names in reports all come from here; a new option for a number of the
protocol is one field, made by :func:`protocol_option`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from bench.recorded import current_name

__all__ = [
    "ProtocolOption",
    "SettingOption",
    "current_flags",
    "flag",
    "given_settings",
    "given_values",
    "online_option",
    "protocol_option",
    "protocol_options",
    "recorded_as",
    "recorded_options",
    "setting_option",
    "setting_options",
]


@dataclass(frozen=True, slots=True)
class ProtocolOption:
    """An option that replaces a number of the suite's protocol.

    Attributes:
        name: field of :class:`bench.suites.TrainingProtocol`, or of its online phase.
        online: whether it is one of the online phase.
        least: smallest value.
        most: largest value.
        cloning: whether behaviour cloning depends on it.
    """

    name: str
    online: bool = False
    least: float = -math.inf
    most: float = math.inf
    cloning: bool = False


@dataclass(frozen=True, slots=True)
class SettingOption:
    """An option that gives a setting of agents, which `--set` reaches as well.

    Attributes:
        name: of the setting.
        feature: what an agent without that setting lacks.
    """

    name: str
    feature: str


def protocol_option(name: str, *, least: int = 1, cloning: bool = False) -> Any:
    """A field that replaces a number of the protocol; None keeps that of the suite."""
    option = ProtocolOption(name, least=least, cloning=cloning)
    return field(default=None, metadata={"protocol": option, "recorded": f"protocol.{name}"})


def online_option(name: str, *, least: float = -math.inf, most: float = math.inf) -> Any:
    """A field that replaces one of the protocol's online phase; None keeps that of the suite."""
    option = ProtocolOption(name, online=True, least=least, most=most)
    return field(default=None, metadata={"protocol": option, "recorded": f"online.protocol.{name}"})


def setting_option(name: str, feature: str) -> Any:
    """A field that gives the setting of that name; see :class:`SettingOption`."""
    return field(default=None, metadata={"setting": SettingOption(name, feature)})


def recorded_as(name: str, default: Any = None, *, formerly: str | None = None) -> Any:
    """A field that a `run.json` holds under another name, dots between its levels."""
    former = {} if formerly is None else {"formerly": formerly}
    return field(default=default, metadata={"recorded": name, **former})


def flag(name: str) -> str:
    """The option of a field, as it is typed."""
    return f"--{name.replace('_', '-')}"


def current_flags(arguments: Sequence[str], request: type[Any]) -> list[str]:
    """Words of a command line, with today's names of the options that had others.

    Each of those is warned of.
    """
    words: list[str] = []
    for place, word in enumerate(arguments):
        if word == "--":
            return words + list(arguments[place:])
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            given = name[2:].replace("-", "_")
            new = current_name(given, [request], "--{}")
            name = name if new == given else flag(new)
        words.append(f"{name}{equals}{value}")
    return words


def protocol_options(request: Any) -> dict[str, ProtocolOption]:
    """The fields of a request, or of its class, that replace numbers of the protocol, by name."""
    return {f.name: f.metadata["protocol"] for f in fields(request) if "protocol" in f.metadata}


def setting_options(request: Any) -> dict[str, SettingOption]:
    """The fields of a request, or of its class, that give settings of agents, by name."""
    return {f.name: f.metadata["setting"] for f in fields(request) if "setting" in f.metadata}


def given_values(request: Any, *, online: bool) -> dict[str, Any]:
    """What a request replaces in the protocol, or in its online phase, by the names there."""
    return {
        option.name: value
        for name, option in protocol_options(request).items()
        if option.online is online and (value := getattr(request, name)) is not None
    }


def given_settings(request: Any) -> dict[str, Any]:
    """Settings of agents that a request fixes by options of their own."""
    return {
        option.name: value
        for name, option in setting_options(request).items()
        if (value := getattr(request, name)) is not None
    }


def recorded_options(*requests: type[Any]) -> Mapping[str, str]:
    """Option by the name under which a `run.json` holds its value."""
    return {
        entry.metadata["recorded"]: flag(entry.name)
        for request in requests
        for entry in fields(request)
        if "recorded" in entry.metadata
    }

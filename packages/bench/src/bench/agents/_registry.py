"""Agents by name: those of this package, of installed ones, and of a module of the user's."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from bench.extensions import installed, is_reference, load_installed, load_reference

__all__ = ["GROUP", "AgentEntry", "Registry"]

GROUP = "trqam.agents"
"""Entry points of agents in other distributions."""

_METHODS = ("noise", "update", "acting_noise", "act", "state_dict", "load_state_dict")


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """One line of the registry.

    Attributes:
        summary: what the method does, in one line.
        paper: where it is from.
        config: dataclass of its settings, with the published defaults.
        agent: class taking ``(config, problem, streams)``.
        pretrained: whether it starts from a behaviour-cloned flow.
        online_only: whether it learns in the online phase alone.
        exportable: whether its acting is a program of torch.export: no gradients in it.
    """

    summary: str
    paper: str
    config: type[Any]
    agent: type[Any]
    pretrained: bool = True
    online_only: bool = False
    exportable: bool = True

    @property
    def settings(self) -> frozenset[str]:
        """Names of its settings."""
        return frozenset(field.name for field in fields(self.config))

    @property
    def fine_tunes_diffusion(self) -> bool:
        """Whether it takes a cloned policy whose network predicts noise."""
        return self.pretrained and "prediction" in self.settings

    @classmethod
    def of(cls, name: str, found: Any) -> AgentEntry:
        """The entry of an object from outside: an entry itself, or an agent's class.

        Of a class, the settings are what its ``__init__`` annotates as ``config``, the summary is
        the docstring's first line, and the class attributes ``pretrained`` (by default: whether it
        has ``start_from``), ``online_only`` and ``exportable`` are those of the entry.

        Raises:
            ValueError: it is neither, or lacks something; says what.
        """
        if isinstance(found, AgentEntry):
            return found
        if not isinstance(found, type):
            raise ValueError(
                f"agent {name!r} is {type(found).__name__} {found!r}; expected a class of agents "
                "or a bench.agents.AgentEntry"
            )
        missing = [method for method in _METHODS if not callable(getattr(found, method, None))]
        if missing:
            raise ValueError(f"agent {name!r} has no method {', '.join(missing)}")
        constructor: Any = inspect.getattr_static(found, "__init__")
        config = typing.get_type_hints(constructor).get("config")
        if not (isinstance(config, type) and is_dataclass(config)):
            raise ValueError(
                f"agent {name!r}: annotate the first argument of its __init__, config, with the "
                f"dataclass of its settings; found {config}"
            )
        pretrained = bool(getattr(found, "pretrained", hasattr(found, "start_from")))
        entry = cls(
            (inspect.getdoc(found) or found.__name__).partition("\n")[0].rstrip("."),
            found.__module__,
            config,
            found,
            pretrained=pretrained,
            online_only=bool(getattr(found, "online_only", False)),
            exportable=bool(getattr(found, "exportable", True)),
        )
        lacking = {"actor_hidden", "actor_layer_norm"} - entry.settings if pretrained else set()
        if lacking:
            raise ValueError(
                f"agent {name!r} starts from a cloned flow, whose sizes are the settings "
                f"actor_hidden and actor_layer_norm; {config.__name__} has no "
                f"{', '.join(sorted(lacking))} (or set pretrained = False on the class)"
            )
        return entry


class Registry(Mapping[str, AgentEntry]):
    """Agents by name.

    Known are those of this package, the entry points of the group ``trqam.agents``, and any name of
    the form ``module:attribute``, which is imported when it is asked for and not listed.

    Args:
        own: agents of this package.
    """

    def __init__(self, own: Mapping[str, AgentEntry]) -> None:
        self._own = dict(own)
        self._found: dict[str, AgentEntry] = {}

    def __getitem__(self, name: str) -> AgentEntry:
        """The entry of that name.

        Raises:
            KeyError: there is none.
            ValueError: it is from outside and cannot be used; says why.
        """
        if name in self._own:
            return self._own[name]
        if name not in self._found:
            if name in installed(GROUP):
                found = load_installed(GROUP, name)
            elif is_reference(name):
                found = load_reference(name)
            else:
                raise KeyError(name)
            self._found[name] = AgentEntry.of(name, found)
        return self._found[name]

    def is_known(self, name: str) -> bool:
        """Whether the entry of that name is at hand without importing `module:attribute`."""
        return name in self._found or name in self._own or name in installed(GROUP)

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (name for name in installed(GROUP) if name not in self._own)

    def __len__(self) -> int:
        return len(self._own.keys() | installed(GROUP).keys())

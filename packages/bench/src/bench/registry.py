"""Agents by name: those of this package, of installed ones, and of a module of the user's.

Plain data: an agent is imported, and torch with it, when its class or its settings are asked for.
A new agent of this package is its file, its line here and its page in docs/agents.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any

from bench.experiment import CLONING
from bench.extensions import installed, is_reference, load_installed, load_reference

__all__ = ["AGENTS", "GROUP", "AgentEntry", "Registry"]

GROUP = "trqam.agents"
"""Entry points of agents in other distributions."""

_METHODS = ("noise", "update", "acting_noise", "act", "state_dict", "load_state_dict")


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """One line of the registry: what others know of a method without its code.

    Attributes:
        summary: what the method does, in one line.
        paper: where it is from.
        source: class taking ``(config, problem, streams)``, or `module:class`, imported on demand.
        pretrained: whether it starts from a behaviour-cloned flow.
        online_only: whether it learns in the online phase alone.
        exportable: whether its acting is a program of torch.export: no gradients in it.
        colour: of its lines in figures; None takes one that is left.
        reads_leaves: whether it takes observations of images and named leaves, which a policy of
            the user's own and encoding critics read; others have networks over one vector.
    """

    summary: str
    paper: str
    source: type[Any] | str
    pretrained: bool = True
    online_only: bool = False
    exportable: bool = True
    colour: str | None = None
    reads_leaves: bool = False

    @property
    def agent(self) -> type[Any]:
        """The class."""
        return _loaded(self.source) if isinstance(self.source, str) else self.source

    @property
    def config(self) -> type[Any]:
        """Dataclass of its settings: what the class, or its ``__init__``, annotates as config."""
        config: type[Any] = _config_of(self.agent)
        return config

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

        Of a class, the summary is the docstring's first line, and the class attributes
        ``pretrained`` (by default: whether it has ``start_from``), ``online_only``, ``exportable``,
        ``colour`` and ``reads_leaves`` are those of the entry.

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
        config = _config_of(found)
        if not (isinstance(config, type) and is_dataclass(config)):
            raise ValueError(
                f"agent {name!r}: annotate the first argument of its __init__, config, with the "
                f"dataclass of its settings; found {config}"
            )
        entry = cls(
            (inspect.getdoc(found) or found.__name__).partition("\n")[0].rstrip("."),
            found.__module__,
            found,
            pretrained=bool(getattr(found, "pretrained", hasattr(found, "start_from"))),
            online_only=bool(getattr(found, "online_only", False)),
            exportable=bool(getattr(found, "exportable", True)),
            colour=getattr(found, "colour", None),
            reads_leaves=bool(getattr(found, "reads_leaves", False)),
        )
        lacking = {"actor_hidden", "actor_layer_norm"} - entry.settings
        if entry.pretrained and lacking:
            raise ValueError(
                f"agent {name!r} starts from a cloned flow, whose sizes are the settings "
                f"actor_hidden and actor_layer_norm; {config.__name__} has no "
                f"{', '.join(sorted(lacking))} (or set pretrained = False on the class)"
            )
        return entry


@cache
def _loaded(reference: str) -> type[Any]:
    found: type[Any] = load_reference(reference)
    return found


def _config_of(agent: type[Any]) -> Any:
    """What a class annotates as `config`, itself or in its constructor; None if it does not."""
    for kind in agent.__mro__:
        annotated = inspect.get_annotations(kind, eval_str=False).get("config")
        if annotated is not None:
            names = vars(sys.modules[kind.__module__])
            return names.get(annotated) if isinstance(annotated, str) else annotated
        if "__init__" in vars(kind):
            constructor: Any = inspect.getattr_static(kind, "__init__")
            return typing.get_type_hints(constructor).get("config")
    return None


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

    def colours(self) -> dict[str, str]:
        """Colour of every agent at hand that has one; nothing is imported for it."""
        entries = {**self._found, **self._own}
        return {name: e.colour for name, e in entries.items() if e.colour is not None}

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (name for name in installed(GROUP) if name not in self._own)

    def __len__(self) -> int:
        return len(self._own.keys() | installed(GROUP).keys())


def _own(summary: str, paper: str, source: str, colour: str, **special: bool) -> AgentEntry:
    return AgentEntry(summary, paper, f"bench.agents.{source}", colour=colour, **special)


_TRQAM, _SQAM, _QAM = "arXiv 2605.27079", "arXiv 2610.10437", "arXiv 2601.14234"
_FQL = "arXiv 2502.02538"

AGENTS = Registry(
    {
        CLONING: _own(
            "behaviour cloning of a flow policy by flow matching",
            "arXiv 2210.02747", "bc:BC", "#757575", reads_leaves=True,
        ),
        "trqam": _own(
            "adjoint matching inside a path-space KL trust region",
            _TRQAM, "trqam:TRQAM", "#0072B2", reads_leaves=True,
        ),
        "sqam": _own(
            "TRQAM with the scalar adjoint and a penalty on overrated actions",
            _SQAM, "sqam:SQAM", "#00A6A6", reads_leaves=True,
        ),
        "qam": _own(
            "adjoint matching at a fixed temperature",
            _QAM, "qam:QAM", "#D55E00", reads_leaves=True,
        ),
        "qam-e": _own(
            "QAM, its actions edited by a small soft actor-critic",
            _QAM, "qam_edit:QAMEdit", "#E69F00",
        ),
        "qam-f": _own(
            "QAM, distilled into a one-step policy that climbs the critic",
            _QAM, "qam_fql:QAMFQL", "#B2182B",
        ),
        "fql": _own(
            "one-step policy that climbs the critic, held at a cloned flow",
            _FQL, "fql:FQL", "#009E73",
        ),
        "ifql": _own(
            "implicit Q-learning, then the best of many samples of a cloned flow",
            _FQL, "ifql:IFQL", "#8BC34A",
        ),
        "dsrl": _own(
            "soft actor-critic on the noise that a cloned flow starts from",
            "arXiv 2506.15799", "dsrl:DSRL", "#7B3294",
        ),
        "cgql-l": _own(
            "cloned flow guided by a critic on noisy actions (LINEX, MSE or none)",
            _QAM, "cgql:CGQL", "#CC79A7", exportable=False,
        ),
        "qc": _own(
            "best of N chunks of a cloned flow, in the critic's target too (QC; BFN with H = 1)",
            "arXiv 2507.07969", "qc:QC", "#3F51B5",
        ),
        "qgf": _own(
            "cloned flow guided by an implicit critic's gradient, when acting only",
            "arXiv 2606.11087", "qgf:QGF", "#C51B7D", exportable=False,
        ),
        "rql": _own(
            "flow whose every step climbs a critic on unfinished actions, found by reversing it",
            "arXiv 2606.17551", "rql:RQL", "#00695C",
        ),
        "rebrac": _own(
            "TD3 with a squared distance to the data's actions",
            "arXiv 2305.09836", "rebrac:ReBRAC", "#7F3B08", pretrained=False,
        ),
        "rlpd": _own(
            "soft actor-critic on half offline, half online batches",
            "arXiv 2302.02948", "rlpd:RLPD", "#56B4E9", pretrained=False, online_only=True,
        ),
    }
)  # fmt: skip

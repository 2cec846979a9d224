"""Settings of agents: the fields that most configs share, and what a field says of itself.

A field made by :func:`setting` carries its meaning and its range. They are checked and printed from
there (`bench agents NAME`); nothing outside of a config repeats them.
"""

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar, runtime_checkable

from bench.recorded import FORMER

__all__ = [
    "MOST_SAMPLES",
    "ActorCriticSettings",
    "Discounted",
    "FlowAgentSettings",
    "FlowSizes",
    "Sampling",
    "SettingRange",
    "TrustRegion",
    "discount_of",
    "hidden_widths",
    "setting",
    "setting_meanings",
    "setting_range",
    "tried_with",
    "unread_settings",
    "widest_layer",
]

_Value = TypeVar("_Value")
_Config = TypeVar("_Config")

MOST_SAMPLES = 65_536
"""More of anything that is drawn or counted at every update is no setting of a run."""
_ENOUGH = 4
"""Repetitions of a computation after which another one shows nothing new."""


@dataclass(frozen=True, slots=True)
class SettingRange:
    """Which numbers a setting may be; all of them are finite.

    Attributes:
        least: smallest one.
        most: largest one.
        above: whether ``least`` itself is refused.
    """

    least: float = -math.inf
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


@dataclass(frozen=True, slots=True)
class _About:
    """What a field says of its setting; see :func:`setting`."""

    meaning: str
    values: SettingRange
    repeats: bool


def setting(
    default: _Value,
    meaning: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float = math.inf,
    repeats: bool = False,
    added: str | None = None,
    formerly: str | None = None,
) -> _Value:
    """A field of a config.

    A config that inherits the field may give it another default by a plain assignment; meaning and
    range stay.

    Args:
        default: usually the published value.
        meaning: for people, with the unit.
        least: smallest number that it may be; any finite one by default.
        above: number that it must exceed, instead of ``least``.
        most: largest number that it may be.
        repeats: it counts repetitions of one computation (steps, samples), so settings are tried
            with few of them.
        added: version of the packages in which it appeared, if not in the first; its default
            changes no numbers. See :mod:`bench.recorded`.
        formerly: its name in version 0.1, if it was another.
    """
    bound = above if above is not None else -math.inf if least is None else least
    about = _About(meaning, SettingRange(bound, most, above is not None), repeats)
    metadata: dict[str, Any] = {"setting": about}
    metadata |= {} if added is None else {"added": added}
    metadata |= {} if formerly is None else {"formerly": formerly}
    result: _Value = field(default=default, metadata=metadata)
    return result


def setting_range(config: type[Any], name: str) -> SettingRange:
    """The numbers that a setting may be: any finite one where the field does not say."""
    about = _about(config, name)
    return SettingRange() if about is None else about.values


def setting_meanings(config: type[Any]) -> dict[str, str]:
    """What each setting means, by name: from its field, else from a docstring's `Attributes`."""
    documented: dict[str, str] = {}
    for kind in reversed(config.__mro__):
        section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:")[2]
        found = re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", section, re.MULTILINE)
        documented |= {name: " ".join(text.replace("``", "`").split()) for name, text in found}
    told = {entry.name: _about(config, entry.name) for entry in fields(config)}
    meanings = {name: documented.get(name, "") for name in told}
    return meanings | {name: about.meaning for name, about in told.items() if about is not None}


def tried_with(config: Any) -> dict[str, Any]:
    """Values that make trying the other settings cheap: narrow layers and few repetitions."""
    narrow: dict[str, Any] = dict.fromkeys(hidden_widths(config), (1,))
    for entry in fields(config):
        about = _about(type(config), entry.name)
        if about is not None and about.repeats:
            narrow[entry.name] = min(getattr(config, entry.name), _ENOUGH)
    return narrow


def _about(config: type[Any], name: str) -> _About | None:
    """What the field says, or one that it takes the place of."""
    for kind in config.__mro__:
        found = getattr(kind, "__dataclass_fields__", {}).get(name)
        if found is not None and "setting" in found.metadata:
            about: _About = found.metadata["setting"]
            return about
    return None


@runtime_checkable
class FlowSizes(Protocol):
    """Sizes of the behaviour-cloned flow policy that an agent starts from."""

    @property
    def actor_hidden(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""

    @property
    def actor_layer_norm(self) -> bool:
        """LayerNorm in them."""


@runtime_checkable
class Discounted(Protocol):
    """Settings of an agent that learns from rewards."""

    @property
    def discount(self) -> float:
        """Per environment step."""


@runtime_checkable
class Sampling(Protocol):
    """Settings of an agent that compares several actions before it plays one."""

    @property
    def num_action_samples(self) -> int:
        """How many."""


@runtime_checkable
class TrustRegion(Protocol):
    """Settings of an agent that is held at a KL budget."""

    @property
    def kl_budget(self) -> float:
        """Nats per action."""

    def with_budget(self: _Config, budget: float) -> _Config:
        """The same with this budget throughout."""


@runtime_checkable
class _PartlyUnread(Protocol):
    @property
    def unread(self) -> Mapping[str, str]: ...


def discount_of(config: object) -> float:
    """Discount per environment step; 1 for an agent that reads no rewards."""
    return config.discount if isinstance(config, Discounted) else 1.0


def unread_settings(config: object) -> Mapping[str, str]:
    """Settings that do nothing beside the others, and why: the config's property ``unread``."""
    return config.unread if isinstance(config, _PartlyUnread) else {}


def hidden_widths(config: Any) -> dict[str, tuple[int, ...]]:
    """The settings that are widths of hidden layers, by name."""
    values = {entry.name: getattr(config, entry.name) for entry in fields(config)}
    return {name: value for name, value in values.items() if isinstance(value, tuple)}


def widest_layer(config: Any) -> int:
    """Width of the widest hidden layer; 1 where there is none."""
    return max((width for widths in hidden_widths(config).values() for width in widths), default=1)


@dataclass(frozen=True, slots=True)
class ActorCriticSettings:
    """Settings of an actor and an ensemble of critics; the defaults are the published ones."""

    actor_hidden: tuple[int, ...] = setting(
        (512, 512, 512, 512), "widths of the policies' hidden layers"
    )
    critic_hidden: tuple[int, ...] = setting(
        (512, 512, 512, 512), "widths of the hidden layers of the critics, and of a value network"
    )
    critic_layer_norm: bool = setting(True, "LayerNorm in the critics and in a value network")
    num_critics: int = setting(
        10,
        "size of the critic ensemble",
        least=1,
        most=1_000,
        repeats=True,
        formerly=FORMER["num_critics"],
    )
    discount: float = setting(
        0.995,
        "per environment step; published: 0.995 in the code of TRQAM, 0.99 in that of QAM",
        least=0,
        most=1,
    )
    rho: float = setting(
        0.5,
        "pessimism: the critic's target is `mean(Q) - rho * std(Q)` over the target ensemble",
        formerly=FORMER["rho"],
    )
    learning_rate: float = setting(3e-4, "Adam's step size", least=0)
    tau: float = setting(
        0.005,
        "EMA rate of the target critic and of every other moving average",
        least=0,
        most=1,
        formerly=FORMER["tau"],
    )
    max_gradient_norm: float | None = setting(
        None,
        "global-norm clip over all parameters of a run together; none: no clip",
        above=0,
    )


@dataclass(frozen=True, slots=True)
class FlowAgentSettings(ActorCriticSettings):
    """Those of an agent with a flow policy."""

    actor_layer_norm: bool = setting(False, "LayerNorm in the policies")
    flow_steps: int = setting(
        10,
        "Euler steps `K` of the flow, and of the memoryless SDE in adjoint matching",
        least=1,
        most=1_000,
        repeats=True,
    )
    num_action_samples: int = setting(
        1,
        "actions sampled when acting; the one with the best mean critic value is played",
        least=1,
        most=10_000,
        repeats=True,
        formerly=FORMER["num_action_samples"],
    )

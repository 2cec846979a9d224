"""Every agent's settings in every domain, from a command's options, or one clear error."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.agents import AGENTS, BCConfig
from bench.agents.adjoint_matching import on_a_perceptron
from bench.agents.settings import unread_settings
from bench.experiment import (
    CLONING,
    OfflineRequest,
    flag,
    given_settings,
    is_cloning,
    setting_options,
)
from bench.recorded import current_name
from bench.suites import Domain, unknown
from bench.training.setting_checks import check_ranges
from bench.training.settings import parse_overrides, resolve

__all__ = ["settings_by_agent"]


def settings_by_agent(
    options: OfflineRequest, domains: Sequence[Domain], agents: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Agent to domain to settings; first behaviour cloning's, whether asked for or not.

    Raises:
        ValueError: a setting is unknown, given twice, out of its range, or of no use here.
    """
    given = _Given.of(options, agents)
    given.check(agents)

    def resolved(agent: str) -> dict[str, Any]:
        config = AGENTS[agent].config
        overrides = parse_overrides(config, agent, given.of_agent(agent))
        found = {domain.name: resolve(config, agent, domain, overrides) for domain in domains}
        for domain in domains:
            tried = found[domain.name]
            if domain.networks is not None:  # adapters are asked for later, of the module itself
                tried = on_a_perceptron(tried)
            check_ranges(agent, tried, domain.chunk_length, given.as_typed)
            given.check_read(found[domain.name])
        return found

    settings = {CLONING: resolved(CLONING)}
    for agent in agents:
        if not is_cloning(agent):
            _check_start(agent, settings[CLONING].values())
            settings[agent] = resolved(agent)
    return settings


@dataclass(frozen=True, slots=True)
class _Given:
    """Settings as they were typed.

    Attributes:
        own: by options of their own, name to value.
        texts: by `--set`.
        options: the options of their own, by the setting's name: flag, and what an agent without
            the setting lacks.
    """

    own: dict[str, Any]
    texts: tuple[str, ...]
    options: dict[str, tuple[str, str]]

    @classmethod
    def of(cls, options: OfflineRequest, agents: Sequence[str]) -> "_Given":
        found = {o.name: (flag(name), o.feature) for name, o in setting_options(options).items()}
        kinds = [AGENTS[agent].config for agent in agents]
        texts = tuple(_current(text, kinds) for text in options.set)
        return cls(given_settings(options), texts, found)

    def as_typed(self, name: str) -> str:
        """A setting's name as it was typed."""
        if name in self.own:
            return self.options[name][0]
        return next((t.partition("=")[0] for t in self.texts if _name(t) == name), name)

    def of_agent(self, agent: str) -> list[str]:
        """What concerns an agent, as name=value."""
        known = AGENTS[agent].settings
        own = [f"{name}={value}" for name, value in self.own.items() if name in known]
        return [*(text for text in self.texts if _name(text) in known), *own]

    @property
    def names(self) -> list[str]:
        """What was given."""
        return [*self.own, *map(_name, self.texts)]

    def check_read(self, config: Any) -> None:
        """Refuse what would do nothing beside the other settings."""
        unread = unread_settings(config)
        for name in self.names:
            if name in unread:
                given, reason = self.as_typed(name), unread[name]
                raise ValueError(f"{given} does not apply: {reason}; leave out one of the two")

    def check(self, agents: Sequence[str]) -> None:
        """Refuse what concerns none of the agents, or is said twice."""
        known = sorted({name for agent in agents for name in AGENTS[agent].settings})
        for name in self.own:
            if name not in known:
                who = f"agent {agents[0]!r} has" if len(agents) == 1 else "these agents have"
                option, feature = self.options[name]
                raise ValueError(f"{who} no {feature}; {option} does not apply")
        names = [*self.own]
        for text in self.texts:
            name = _name(text)
            if not name or "=" not in text:
                raise ValueError(f"--set takes name=value, got {text!r}")
            if name not in known:
                raise ValueError(unknown(f"setting of {', '.join(agents)}:", name, known))
            if name in names:
                raise ValueError(f"{name} was given twice")
            names.append(name)


def _check_start(agent: str, clones: Iterable[BCConfig]) -> None:
    """Refuse a clone whose network predicts what the agent does not know of."""
    entry = AGENTS[agent]
    if (
        not entry.fine_tunes_diffusion
        and entry.pretrained
        and any(c.prediction == "noise" for c in clones)
    ):
        known = [name for name, other in AGENTS.items() if other.fine_tunes_diffusion]
        known.remove(CLONING)
        raise ValueError(
            f"agent {agent!r} starts from a flow policy, but prediction=noise clones a diffusion "
            f"policy, which only {', '.join(known)} fine-tune"
        )


def _current(text: str, kinds: Sequence[type[Any]]) -> str:
    """The text with today's name of its setting."""
    name, (_, equals, value) = _name(text), text.partition("=")
    new = current_name(name, kinds)
    return text if new == name else f"{new}{equals}{value}"


def _name(text: str) -> str:
    return text.partition("=")[0].strip().replace("-", "_")

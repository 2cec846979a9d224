"""What can fail at the end of a run fails before it begins."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.agents import AGENTS, BC, Problem
from bench.agents.settings import tried_with
from bench.suites import SUITES
from bench.training.rehearsal import rehearse_life
from bench.training.setting_checks import _refusal, check_ranges
from bench.training.settings import resolve
from qlearn import RandomStreams

PROBLEM = Problem(3, 2, 2)


def config_of(agent: str) -> Any:
    config = resolve(AGENTS[agent].config, agent, SUITES["quick"].domains[0], {})
    return replace(config, **tried_with(config))


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_has_a_life(agent: str) -> None:
    rehearse_life(agent, config_of(agent), PROBLEM)


class Forgetful(BC):
    """Acts by something that no checkpoint holds."""

    def __init__(self, config: Any, problem: Problem, streams: RandomStreams) -> None:
        super().__init__(config, problem, streams)
        self.drawn = streams.normal(1, problem.chunk_dim)

    def act(self, observations: Any, noise: Any) -> Tensor:
        return super().act(observations, noise) + self.drawn


class Misshapen(BC):
    def act(self, observations: Any, noise: Any) -> Tensor:
        return super().act(observations, noise)[..., :1]


class Unstorable(BC):
    def load_state_dict(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("Missing key(s) in state_dict")


class Following(BC):
    def act(self, observations: Any, noise: Any) -> Tensor:
        with torch.enable_grad():
            actions = super().act(observations, noise).requires_grad_()
            (gradient,) = torch.autograd.grad(actions.square().sum(), actions)
        return actions - gradient


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Forgetful, "goes on differently after a checkpoint"),
        (Misshapen, r"acts in tensors of shape \(1, 2, 1\), expected \(1, 2, 4\)"),
        (Unstorable, "agent 'theirs' cannot be resumed: "),
        (Following, "is registered as exportable, but acts by gradients"),
    ],
)
def test_an_agent_without_a_whole_life_is_refused_at_once(
    kind: type[BC], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {**AGENTS, "theirs": replace(AGENTS["bc"], source=kind)}
    for module in ("cost", "rehearsal"):
        monkeypatch.setattr(f"bench.training.{module}.AGENTS", known)
    monkeypatch.setattr("bench.training.setting_checks._REHEARSED", set())
    _refusal.cache_clear()
    with pytest.raises(ValueError, match=said):
        check_ranges("theirs", config_of("bc"), 4)
    _refusal.cache_clear()

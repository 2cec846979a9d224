"""An agent with made-up data, ready to be updated again and again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from bench.agents import AGENTS, Agent, Problem
from bench.agents.learning import update_on
from bench.experiment import Mode, is_captured, is_compiled
from bench.suites import unknown
from bench.training.capture import CapturedUpdates
from bench.training.compilation import compile_agent
from bench.training.precision import autocast
from qlearn import ChunkSampler, EpisodeData, RandomStreams

__all__ = ["Workload", "agent_config"]

_EPISODES, _EPISODE_STEPS, _DISCOUNT = 100, 100, 0.99


@dataclass(slots=True)
class Workload:
    """Everything of one training loop except its end.

    Attributes:
        agent: what is trained.
        streams: its random numbers.
        sampler: replay on the training device.
        batch: chunks per update and replica.
        precision: see :mod:`bench.training.precision`.
    """

    agent: Agent
    streams: RandomStreams
    sampler: ChunkSampler
    batch: int
    precision: str = "float32"

    @classmethod
    def build(
        cls,
        agent: str,
        config: Any,
        problem: Problem,
        replicas: int,
        batch: int,
        device: torch.device,
        precision: str = "float32",
    ) -> "Workload":
        """Random episodes, random parameters; everything on ``device``."""
        streams = RandomStreams(range(replicas), device)
        made = RandomStreams([0], device)
        rows = _EPISODES * (_EPISODE_STEPS + 1)
        terminals = torch.arange(1, rows + 1, device=device) % (_EPISODE_STEPS + 1) == 0
        data = EpisodeData.from_rows(
            made.normal(rows, problem.observation_dim)[0],
            made.uniform(rows, problem.action_dim)[0].mul_(2.0).sub_(1.0),
            terminals,
            rewards=-made.uniform(rows),
        )
        sampler = ChunkSampler(data, problem.horizon, _DISCOUNT, tasks=[0] * replicas)
        built = AGENTS[agent].agent(config, problem, streams)
        return cls(built, streams, sampler, batch, precision)

    def update(self) -> Mapping[str, Tensor]:
        """Sample a batch, draw the noise, update."""
        batch = self.sampler.sample(self.streams, self.batch)
        # Inside of the update, since autocast keeps the parameters' copies until its end.
        with autocast(self.precision, self.streams.device):
            return update_on(self.agent, batch, self.streams)

    def prepared(self, mode: Mode = "eager", per_call: int = 1) -> Callable[[], object]:
        """A function that performs updates in some way, done with what comes before the first.

        Args:
            mode: which.
            per_call: updates in a captured graph.

        Raises:
            ValueError: there are no graphs on the device.
            BenchError: there is no compiler for it, or it refuses the capture.
        """
        if is_compiled(mode):
            compile_agent(self.agent)
        if not is_captured(mode):
            return self.update
        launch = CapturedUpdates(self.update, self.streams, per_call)
        for _ in range(launch.eager_calls):
            launch()
        return launch


def agent_config(agent: str, width: int, critics: int, flow_steps: int) -> Any:
    """An agent's settings with these sizes, where it has them.

    Raises:
        ValueError: no agent of that name.
    """
    if agent not in AGENTS:
        raise ValueError(unknown("agent", agent, AGENTS))
    hidden = (width,) * 4
    sizes = {
        "actor_hidden": hidden,
        "critic_hidden": hidden,
        "num_critics": critics,
        "flow_steps": flow_steps,
    }
    config = AGENTS[agent].config
    return config(**{f.name: sizes[f.name] for f in fields(config) if f.name in sizes})

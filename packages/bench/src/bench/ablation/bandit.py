"""A contextual bandit on made-up data, small enough to train a real TRQAM agent on in seconds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench.agents import BC, TRQAM, BCConfig, Problem, TRQAMConfig
from bench.agents.learning import update_on
from bench.agents.losses import critic_loss
from qlearn import ChunkBatch, RandomStreams

__all__ = ["PROBLEM", "Bandit", "WarmStart"]

PROBLEM = Problem(observation_dim=2, action_dim=2, horizon=2)
_SMALL: dict[str, Any] = {
    "actor_hidden": (64, 64),
    "learning_rate": 1e-3,
}
_CRITICS: dict[str, Any] = {"critic_hidden": (64, 64), "num_critics": 2, "tau": 0.01}


@dataclass(frozen=True, slots=True)
class Bandit:
    """One-chunk episodes: at ``s ~ N(0, I)`` the data act on either side of a curve.

    The data's chunks are ``+-0.5 (sin s_0, cos s_1, ...) + 0.2 noise``; the reward is minus the
    squared distance of the chunk from ``0.3 (tanh s_1, tanh s_0, ...)``, summed over the chunk.

    Attributes:
        batch_size: rows per update and run.
    """

    batch_size: int = 64

    def batch(self, streams: RandomStreams) -> ChunkBatch:
        """Chunks of the data, each the whole of its episode."""
        rows, size = self.batch_size, PROBLEM.chunk_dim
        states = streams.normal(rows, PROBLEM.observation_dim)
        side = torch.where(streams.uniform(rows, 1) < 0.5, -1.0, 1.0)
        centre = torch.cat([states[..., :1].sin(), states[..., 1:].cos()], -1).repeat(1, 1, 2)
        actions = (0.5 * side * centre + 0.2 * streams.normal(rows, size)).clamp(-1.0, 1.0)
        best = 0.3 * states.flip(-1).tanh().repeat(1, 1, 2)
        return ChunkBatch(
            observations=states,
            actions=actions,
            rewards=-(actions - best).square().sum(-1),
            masks=torch.zeros_like(states[..., 0]),
            valid=torch.ones_like(states[..., 0]),
            next_observations=states,
        )


@dataclass(frozen=True, slots=True)
class WarmStart:
    """A cloned policy and a critic of the bandit's rewards, from which trust regions start.

    Attributes:
        bandit: the data.
        seeds: one run per seed.
        state: of a TRQAM agent, without what moves lambda.
    """

    bandit: Bandit
    seeds: tuple[int, ...]
    state: Mapping[str, Tensor]

    @classmethod
    def of(cls, bandit: Bandit, seeds: tuple[int, ...], updates: int) -> "WarmStart":
        """Clone the data's policy and fit the critic, ``updates`` updates each."""
        streams = RandomStreams(seeds).spawn("warm start")
        clone = BC(BCConfig(**_SMALL), PROBLEM, streams)
        for _ in range(updates):
            update_on(clone, bandit.batch(streams), streams)
        agent = TRQAM(TRQAMConfig(**_SMALL, **_CRITICS), PROBLEM, streams)
        adam = torch.optim.Adam(agent.critic.parameters(), lr=1e-3)
        for _ in range(updates):
            batch = bandit.batch(streams)
            loss = critic_loss(
                agent.critic,
                agent.target_critic,
                batch,
                batch.actions,
                rho=0.0,
                discount=0.0,
                horizon=PROBLEM.horizon,
            ).sum()
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        agent.start_from(clone.flow)
        agent.target_critic.load_state_dict(agent.critic.state_dict())
        state = {k: v.clone() for k, v in agent.state_dict().items() if not k.startswith("dual.")}
        return cls(bandit, seeds, state)

    def agent(self, **settings: Any) -> TRQAM:
        """A TRQAM agent that starts here."""
        config = TRQAMConfig(**{**_SMALL, **_CRITICS, **settings})
        agent = TRQAM(config, PROBLEM, RandomStreams(self.seeds))
        agent.load_state_dict(self.state, strict=False)
        return agent

    def held(self, streams: RandomStreams) -> ChunkBatch:
        """A batch that moves neither critic nor reference: both losses are masked by `valid`."""
        batch = self.bandit.batch(streams)
        return replace(batch, valid=torch.zeros_like(batch.valid))

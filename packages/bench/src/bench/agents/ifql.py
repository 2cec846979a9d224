"""Implicit flow Q-learning (IFQL): IQL with a flow policy, arXiv 2502.02538.

The flow variant of IDQL (arXiv 2304.10573). A value network regresses the upper expectile of the
critic over the data's actions (IQL, arXiv 2110.06169), so the critic never sees an action outside
the data. Acting takes the best of many samples of a behaviour-cloned flow. With
``d = mean_i Q'_i(s, a) - rho std_i Q'_i(s, a) - V(s)``, V minimises ``E |kappa - 1{d < 0}| d^2``,
and the critic's target is ``R + discount^H mask V(s')``.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.agents.acting import best_of, flow_action
from bench.agents.losses import cloning_loss, take_step
from bench.agents.networks import FlowPolicy, critic_ensemble, flow_actor
from bench.agents.noise import Noise, normal, uniform
from bench.agents.problem import Problem
from bench.agents.settings import FlowAgentSettings, setting
from bench.recorded import FORMER
from qlearn import (
    MLP,
    ChunkBatch,
    Learner,
    RandomStreams,
    expectile_loss,
    pessimistic_value,
    td_loss,
    td_target,
)

__all__ = ["IFQL", "IFQLConfig"]


@dataclass(frozen=True, slots=True)
class IFQLConfig(FlowAgentSettings):
    """Settings of IFQL; the defaults are the published ones unless noted."""

    expectile: float = setting(
        0.9,
        "`kappa`, weight of a value below its target; `1 - kappa` above it",
        least=0,
        most=1,
    )
    from_scratch: bool = setting(
        False,
        "leave the behaviour-cloned flow aside and start the policy untrained; the published runs "
        "did so by mistake (the checkpoint's names did not match); default off",
    )
    num_action_samples: int = setting(
        32,
        "actions sampled when acting; the one with the best smallest critic value is played",
        least=1,
        most=10_000,
        repeats=True,
        formerly=FORMER["num_action_samples"],
    )


class IFQL(nn.Module):
    """IFQL for a pack of independent runs; every tensor's replica axis is ``R``.

    Args:
        config: settings.
        problem: sizes.
        streams: one random stream per replica; they draw the initial parameters.
    """

    def __init__(self, config: IFQLConfig, problem: Problem, streams: RandomStreams) -> None:
        super().__init__()
        self.config, self.problem = config, problem
        self.flow = flow_actor(
            problem, config.actor_hidden, streams, layer_norm=config.actor_layer_norm
        )
        self.critic = critic_ensemble(
            problem,
            config.num_critics,
            config.critic_hidden,
            streams,
            layer_norm=config.critic_layer_norm,
        )
        self.value = MLP(
            streams.replicas,
            problem.observation_dim,
            config.critic_hidden,
            1,
            layer_norm=config.critic_layer_norm,
            streams=streams,
        )
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.to(streams.device)
        self.learner = Learner(
            self.named_parameters(),
            targets=[(self.target_critic, self.critic)],
            replicas=streams.replicas,
            learning_rate=config.learning_rate,
            learning_rates=problem.learning_rates,
            target_rate=config.tau,
            max_gradient_norm=config.max_gradient_norm,
        )

    def start_from(self, flow: FlowPolicy) -> None:
        """Take a behaviour-cloned flow as the policy."""
        if not self.config.from_scratch:
            self.flow.load_state_dict(flow.state_dict())

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update on ``batch`` chunks consumes."""
        size = self.problem.chunk_dim
        return {
            "bc_x0": normal(batch, size),
            "bc_t": uniform(batch),
        }

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and diagnostics ``(R,)`` of one batch, all from the parameters as they are."""
        config, observations = self.config, batch.observations

        # Value: the upper expectile of the target critic over the data's actions.
        with torch.no_grad():
            qs = self.target_critic(observations, batch.actions)
            value_target = pessimistic_value(qs, config.rho)
        value = self.value(observations).squeeze(-1)
        error = expectile_loss(value_target - value, config.expectile)
        value_loss = (error * self.value_weights(batch)).mean(-1)

        # Critic: TD towards the value of the next observation.
        with torch.no_grad():
            target = td_target(
                batch.rewards,
                batch.masks,
                self.value(batch.next_observations).squeeze(-1),
                discount=config.discount,
                horizon=self.problem.horizon,
            )
        td = td_loss(self.critic(observations, batch.actions), target, batch.valid)

        # Policy: behaviour cloning.
        cloning = cloning_loss(self.flow, batch, noise)
        return {"value_loss": value_loss, "critic_loss": td, "flow_loss": cloning}

    def value_weights(self, batch: ChunkBatch) -> Tensor:
        """Weights ``(R, B)`` in the value network's loss: as published, cut chunks count too."""
        return torch.ones_like(batch.valid)

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of value, critic and policy; metrics are ``(R,)``."""
        losses = self.losses(batch, noise)
        total = losses["value_loss"] + losses["critic_loss"] + losses["flow_loss"]
        return take_step(self.learner, losses, total)

    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)`` of the flow, before any choice among them."""
        return flow_action(self.flow.field(observations), noise, self.config.flow_steps)

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting on ``rows`` observations consumes."""
        return {"flow": normal(rows, self.config.num_action_samples, self.problem.chunk_dim)}

    @torch.no_grad()
    def act(self, observations: Float[Tensor, "R n O"], noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)``, the best sample by the critics' minimum."""
        return best_of(
            noise["flow"],
            observations,
            policy=self.sample,
            value=lambda o, a: self.critic(o, a).amin(-2),
        )

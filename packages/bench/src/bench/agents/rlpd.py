"""Reinforcement learning with prior data (RLPD), arXiv 2302.02948.

Soft actor-critic (arXiv 1812.05905) with a LayerNorm critic ensemble, from scratch on the online
phase, every batch half from the data set and half from the environment (`qlearn.BalancedSampler`).
The policy minimises ``alpha log p(a|s) - (mean_i Q_i(s, a) - rho std_i Q_i(s, a))``; where asked
to, it also minimises ``-w log p(a'|s)`` of the data's actions ``a'``.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.agents.losses import critic_loss, entropy_losses, take_step
from bench.agents.networks import FlowPolicy, critic_ensemble
from bench.agents.noise import Noise, normal
from bench.agents.problem import Problem
from bench.agents.settings import ActorCriticSettings, setting
from qlearn import (
    ChunkBatch,
    EntropyTemperature,
    GaussianActor,
    Learner,
    RandomStreams,
    frozen,
    pessimistic_value,
)

__all__ = ["RLPD", "RLPDConfig"]


@dataclass(frozen=True, slots=True)
class RLPDConfig(ActorCriticSettings):
    """Settings of RLPD; the defaults are the published ones unless noted."""

    target_entropy: float = setting(-0.5, "in nats per component of the action chunk")
    cloning_weight: float = setting(
        0.0,
        "weight of minus the log-probability of the data's actions",
        least=0,
        added="0.2",
    )


class RLPD(nn.Module):
    """RLPD for a pack of independent runs; every tensor's replica axis is ``R``.

    Args:
        config: settings.
        problem: sizes.
        streams: one random stream per replica; they draw the initial parameters.
    """

    def __init__(self, config: RLPDConfig, problem: Problem, streams: RandomStreams) -> None:
        super().__init__()
        self.config, self.problem = config, problem
        self.critic = critic_ensemble(
            problem,
            config.num_critics,
            config.critic_hidden,
            streams,
            layer_norm=config.critic_layer_norm,
        )
        self.actor = GaussianActor(
            streams.replicas,
            problem.observation_dim,
            problem.chunk_dim,
            config.actor_hidden,
            streams=streams,
        )
        self.temperature = EntropyTemperature(streams.replicas)
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
        """Nothing to take: the policy is no flow."""

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update on ``batch`` chunks consumes."""
        size = self.problem.chunk_dim
        return {
            "next_action": normal(batch, size),
            "action": normal(batch, size),
        }

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and diagnostics ``(R,)`` of one batch, all from the parameters as they are."""
        config, observations = self.config, batch.observations

        # Critic: TD towards the policy's next chunk, pessimistic over the ensemble.
        next_action = self.sample(batch.next_observations, noise["next_action"])
        td = critic_loss(
            self.critic,
            self.target_critic,
            batch,
            next_action,
            rho=config.rho,
            discount=config.discount,
            horizon=self.problem.horizon,
        )

        # Policy: soft actor-critic.
        law = self.actor(observations)
        action, log_prob = law.sample(noise["action"])
        values = pessimistic_value(frozen(self.critic)(observations, action), config.rho)
        entropy = entropy_losses(
            log_prob, self.temperature, config.target_entropy * self.problem.chunk_dim
        )
        actor_loss = entropy.pop("entropy_loss") - values.mean(-1)
        losses = {"critic_loss": td, "actor_loss": actor_loss, **entropy}
        if config.cloning_weight > 0.0:
            losses["cloning_loss"] = -(law.log_prob(batch.actions) * batch.valid).mean(-1)
        return losses

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of critic, policy and temperature; metrics are ``(R,)``."""
        losses = self.losses(batch, noise)
        total = losses["critic_loss"] + losses["actor_loss"] + losses["alpha_loss"]
        if "cloning_loss" in losses:
            total = total + self.config.cloning_weight * losses["cloning_loss"]
        return take_step(self.learner, losses, total)

    @torch.no_grad()
    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)`` of the policy."""
        action: Tensor = self.actor(observations).sample(noise)[0]
        return action

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting on ``rows`` observations consumes."""
        return {"action": normal(rows, self.problem.chunk_dim)}

    def act(self, observations: Float[Tensor, "R n O"], noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)``, sampled: the policy explores by itself."""
        return self.sample(observations, noise["action"])

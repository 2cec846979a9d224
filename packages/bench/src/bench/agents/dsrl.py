"""Diffusion steering via reinforcement learning (DSRL), arXiv 2506.15799.

The behaviour-cloned flow is left as it is; a tanh-Gaussian policy chooses the noise that it starts
from. A second critic on noise is distilled from the critic on actions, so that no gradient runs
through the flow. Soft actor-critic on noise, with its entropy held at a target: with
``a = flow(s, c tanh u)`` and the critic on noise ``Qz(s, z) ~ Q(s, flow(s, z))``, u minimises
``alpha log p(u|s) - mean_i Qz_i(s, c tanh u)``.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.agents.acting import best_of, flow_action
from bench.agents.losses import cloning_loss, critic_loss, entropy_losses, take_step
from bench.agents.networks import FlowPolicy, critic_ensemble, flow_actor
from bench.agents.noise import Noise, normal, uniform
from bench.agents.problem import Problem
from bench.agents.settings import FlowAgentSettings, setting
from qlearn import (
    ChunkBatch,
    EntropyTemperature,
    GaussianActor,
    Learner,
    RandomStreams,
    frozen,
    td_loss,
)

__all__ = ["DSRL", "DSRLConfig"]


@dataclass(frozen=True, slots=True)
class DSRLConfig(FlowAgentSettings):
    """Settings of DSRL; the defaults are the published ones unless noted."""

    noise_scale: float = setting(1.0, "bound of the chosen noise, per component", least=0)
    target_entropy: float = setting(
        -0.5, "of the noise before scaling, in nats per component of the action chunk"
    )


class DSRL(nn.Module):
    """DSRL for a pack of independent runs; every tensor's replica axis is ``R``.

    Args:
        config: settings.
        problem: sizes.
        streams: one random stream per replica; they draw the initial parameters.
    """

    def __init__(self, config: DSRLConfig, problem: Problem, streams: RandomStreams) -> None:
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
        self.noise_critic = critic_ensemble(
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
        self.target_flow = copy.deepcopy(self.flow).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.to(streams.device)
        self.learner = Learner(
            self.named_parameters(),
            targets=[(self.target_critic, self.critic), (self.target_flow, self.flow)],
            replicas=streams.replicas,
            learning_rate=config.learning_rate,
            learning_rates=problem.learning_rates,
            target_rate=config.tau,
            max_gradient_norm=config.max_gradient_norm,
        )

    def start_from(self, flow: FlowPolicy) -> None:
        """Take a behaviour-cloned flow as the one to steer."""
        for policy in (self.flow, self.target_flow):
            policy.load_state_dict(flow.state_dict())

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update on ``batch`` chunks consumes."""
        size = self.problem.chunk_dim
        return {
            "next_latent": normal(batch, size),
            "distill": normal(batch, size),
            "bc_x0": normal(batch, size),
            "bc_t": uniform(batch),
            "latent": normal(batch, size),
        }

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and diagnostics ``(R,)`` of one batch, all from the parameters as they are."""
        config, observations = self.config, batch.observations

        # Critic on actions: TD towards the steered flow's next chunk, pessimistic.
        next_action = self.sample(batch.next_observations, noise["next_latent"])
        td = critic_loss(
            self.critic,
            self.target_critic,
            batch,
            next_action,
            rho=config.rho,
            discount=config.discount,
            horizon=self.problem.horizon,
        )

        # Critic on noise: the critic on actions after the flow, member by member.
        with torch.no_grad():
            action = self.steer(observations, noise["distill"])
            value_of_action = self.critic(observations, action)
        distill = td_loss(self.noise_critic(observations, noise["distill"]), value_of_action)

        # Flow: behaviour cloning goes on.
        cloning = cloning_loss(self.flow, batch, noise)

        # Policy on noise: soft actor-critic.
        latent, log_prob = self.actor(observations).sample(noise["latent"])
        value = frozen(self.noise_critic)(observations, config.noise_scale * latent).mean(-2)
        entropy = entropy_losses(
            log_prob, self.temperature, config.target_entropy * self.problem.chunk_dim
        )
        actor_loss = entropy.pop("entropy_loss") - value.mean(-1)
        return {
            "critic_loss": td,
            "distill_loss": distill,
            "flow_loss": cloning,
            "actor_loss": actor_loss,
            **entropy,
        }

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of both critics, flow and policy; metrics are ``(R,)``."""
        losses = self.losses(batch, noise)
        total = losses["critic_loss"] + losses["distill_loss"] + losses["flow_loss"]
        total = total + losses["actor_loss"] + losses["alpha_loss"]
        return take_step(self.learner, losses, total)

    def steer(self, observations: Tensor, latent: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)``: the end of the averaged flow from ``latent``."""
        return flow_action(self.target_flow.field(observations), latent, self.config.flow_steps)

    @torch.no_grad()
    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)`` from noise chosen by the policy."""
        latent: Tensor = self.actor(observations).sample(noise)[0]
        return self.steer(observations, self.config.noise_scale * latent)

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting on ``rows`` observations consumes."""
        return {"latent": normal(rows, self.config.num_action_samples, self.problem.chunk_dim)}

    @torch.no_grad()
    def act(self, observations: Float[Tensor, "R n O"], noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)``, the best sample by the critics' mean."""
        return best_of(
            noise["latent"],
            observations,
            policy=self.sample,
            value=lambda o, a: self.critic(o, a).mean(-2),
        )

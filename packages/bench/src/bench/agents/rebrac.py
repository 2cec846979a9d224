"""Revisited behaviour-regularised actor-critic (ReBRAC), arXiv 2305.09836.

TD3+BC (arXiv 2106.06860) with LayerNorm and deep networks: a deterministic policy climbs the
critic, scaled by its own magnitude, and is held at the data's actions by a squared distance. Target
actions are smoothed by clipped noise. With ``q = mean_i Q_i(s, pi(s)) - rho std_i Q_i(s, pi(s))``
the policy minimises ``-E q / E|q| + w E ||pi(s) - a||^2``.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.agents.losses import critic_loss, take_step
from bench.agents.networks import FlowPolicy, critic_ensemble
from bench.agents.noise import Noise, normal
from bench.agents.problem import Problem
from bench.agents.settings import MOST_SAMPLES, ActorCriticSettings, setting
from qlearn import (
    MLP,
    ChunkBatch,
    Learner,
    RandomStreams,
    frozen,
    pessimistic_value,
)

__all__ = ["ReBRAC", "ReBRACConfig"]


@dataclass(frozen=True, slots=True)
class ReBRACConfig(ActorCriticSettings):
    """Settings of ReBRAC; the defaults are the published ones unless noted."""

    actor_layer_norm: bool = setting(False, "LayerNorm in the policy")
    cloning_weight: float = setting(
        0.01,
        "weight of the squared distance to the data's actions; published: 0, which is TD3, and a "
        "value for every domain",
        least=0,
    )
    target_noise: float = setting(0.2, "standard deviation of the noise on target actions", least=0)
    target_noise_clip: float = setting(0.5, "bound of that noise", least=0)
    acting_noise_std: float = setting(
        0.0,
        "standard deviation of the noise on played actions, with the same bound; the published "
        "code plays with `target_noise`, online and in evaluation; default none",
        least=0,
    )
    target_every: int = setting(
        1,
        "the moving averages move at every update of this multiple; published: 2",
        least=1,
        most=MOST_SAMPLES,
        added="0.2",
    )


class ReBRAC(nn.Module):
    """ReBRAC for a pack of independent runs; every tensor's replica axis is ``R``.

    Args:
        config: settings.
        problem: sizes.
        streams: one random stream per replica; they draw the initial parameters.
    """

    def __init__(self, config: ReBRACConfig, problem: Problem, streams: RandomStreams) -> None:
        super().__init__()
        self.config, self.problem = config, problem
        self.critic = critic_ensemble(
            problem,
            config.num_critics,
            config.critic_hidden,
            streams,
            layer_norm=config.critic_layer_norm,
        )
        self.actor = MLP(
            streams.replicas,
            problem.observation_dim,
            config.actor_hidden,
            problem.chunk_dim,
            layer_norm=config.actor_layer_norm,
            streams=streams,
        )
        # A hundredth of the variance in the last layer: the first actions are near zero.
        with torch.no_grad():
            self.actor.kernels[-1].mul_(0.1)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.to(streams.device)
        self.learner = Learner(
            self.named_parameters(),
            targets=[(self.target_critic, self.critic), (self.target_actor, self.actor)],
            replicas=streams.replicas,
            learning_rate=config.learning_rate,
            learning_rates=problem.learning_rates,
            target_rate=config.tau,
            target_every=config.target_every,
            max_gradient_norm=config.max_gradient_norm,
        )

    def start_from(self, flow: FlowPolicy) -> None:
        """Nothing to take: the policy is no flow."""

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update on ``batch`` chunks consumes."""
        size = self.problem.chunk_dim
        return {
            "next_action": normal(batch, size),
        }

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and diagnostics ``(R,)`` of one batch, all from the parameters as they are."""
        config, observations = self.config, batch.observations

        # Critic: TD towards the target policy's next chunk with noise, pessimistic.
        next_action = self.perturbed(
            self.target_actor, batch.next_observations, noise["next_action"], config.target_noise
        )
        td = critic_loss(
            self.critic,
            self.target_critic,
            batch,
            next_action,
            rho=config.rho,
            discount=config.discount,
            horizon=self.problem.horizon,
        )

        # Policy: valuable, on the critic's own scale, and near the data.
        action = self.actor(observations).tanh()
        values = pessimistic_value(frozen(self.critic)(observations, action), config.rho)
        scale = values.detach().abs().mean(-1)
        distance = (action - batch.actions).square().sum(-1)
        return {
            "critic_loss": td,
            "q_loss": -values.mean(-1) / scale,
            "cloning_loss": (distance * batch.valid).mean(-1),
        }

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of critic and policy; metrics are ``(R,)``."""
        losses = self.losses(batch, noise)
        total = losses["critic_loss"] + losses["q_loss"]
        total = total + self.config.cloning_weight * losses["cloning_loss"]
        return take_step(self.learner, losses, total)

    @torch.no_grad()
    def perturbed(self, actor: MLP, observations: Tensor, noise: Tensor, std: float) -> Tensor:
        """Action chunks ``(R, B, D)`` of a policy plus bounded noise, clipped to [-1, 1]."""
        bound = self.config.target_noise_clip
        action: Tensor = actor(observations).tanh()
        return (action + (std * noise).clamp(-bound, bound)).clamp(-1.0, 1.0)

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting on ``rows`` observations consumes."""
        return {"action": normal(rows, self.problem.chunk_dim)}

    def act(self, observations: Float[Tensor, "R n O"], noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)``."""
        std = self.config.acting_noise_std
        return self.perturbed(self.actor, observations, noise["action"], std)

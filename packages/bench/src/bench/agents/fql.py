"""Flow Q-learning (FQL), arXiv 2502.02538.

A flow clones the data's behaviour. A one-step policy is distilled from it and climbs the critic at
the same time, so that no gradient ever runs through the flow's steps. The one-step policy ``mu``
acts; it minimises ``alpha mean (mu(s, z) - flow(s, z))^2 - mean_i Q_i(s, mu(s, z))``, z ~ N(0, I).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.agents.acting import best_of, flow_action
from bench.agents.losses import cloning_loss, critic_loss, one_step_losses, take_step
from bench.agents.networks import FlowPolicy, critic_ensemble, flow_actor
from bench.agents.noise import Noise, normal, uniform
from bench.agents.problem import Problem
from bench.agents.settings import FlowAgentSettings, setting
from qlearn import ChunkBatch, Learner, OneStepActor, RandomStreams

__all__ = ["FQL", "FQLConfig"]


@dataclass(frozen=True, slots=True)
class FQLConfig(FlowAgentSettings):
    """Settings of FQL; the defaults are the published ones unless noted."""

    distill_weight: float = setting(
        100.0, "`alpha`, weight of the distance between one-step policy and flow", least=0
    )


class FQL(nn.Module):
    """FQL for a pack of independent runs; every tensor's replica axis is ``R``.

    Args:
        config: settings.
        problem: sizes.
        streams: one random stream per replica; they draw the initial parameters.
    """

    def __init__(self, config: FQLConfig, problem: Problem, streams: RandomStreams) -> None:
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
        self.one_step = OneStepActor(
            streams.replicas,
            problem.observation_dim,
            problem.chunk_dim,
            config.actor_hidden,
            layer_norm=config.actor_layer_norm,
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
        """Take a behaviour-cloned flow as the teacher."""
        self.flow.load_state_dict(flow.state_dict())

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update on ``batch`` chunks consumes."""
        size = self.problem.chunk_dim
        return {
            "next_action": normal(batch, size),
            "bc_x0": normal(batch, size),
            "bc_t": uniform(batch),
            "distill": normal(batch, size),
        }

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and diagnostics ``(R,)`` of one batch, all from the parameters as they are."""
        config, observations = self.config, batch.observations

        # Critic: TD towards the one-step policy's next chunk, pessimistic over the ensemble.
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

        # Teacher: behaviour cloning.
        cloning = cloning_loss(self.flow, batch, noise)

        # One-step policy: close to the flow from the same noise, and valuable.
        flow = self.flow.field(observations)
        distill, value = one_step_losses(
            self.one_step,
            flow_action(flow, noise["distill"], config.flow_steps),
            self.critic,
            observations,
            noise["distill"],
        )
        return {
            "critic_loss": td,
            "flow_loss": cloning,
            "distill_loss": distill,
            "q_loss": value,
        }

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of critic, flow and one-step policy; metrics are ``(R,)``."""
        losses = self.losses(batch, noise)
        total = losses["critic_loss"] + losses["flow_loss"]
        total = total + self.config.distill_weight * losses["distill_loss"] + losses["q_loss"]
        return take_step(self.learner, losses, total)

    @torch.no_grad()
    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)`` of the one-step policy."""
        action: Tensor = self.one_step(observations, noise)
        return action.clamp(-1.0, 1.0)

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting on ``rows`` observations consumes."""
        return {"flow": normal(rows, self.config.num_action_samples, self.problem.chunk_dim)}

    @torch.no_grad()
    def act(self, observations: Float[Tensor, "R n O"], noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)``, the best sample by the critics' mean."""
        return best_of(
            noise["flow"],
            observations,
            policy=self.sample,
            value=lambda o, a: self.critic(o, a).mean(-2),
        )

"""Best of N chunks of a cloned flow: Q-chunking (QC), arXiv 2507.07969; BFN with chunks of one.

The flow policy is cloned and never sees the critic. It proposes N chunks; the one that the critic
values most is played, and is also the next action of the critic's own target, so the critic learns
the value of that choice.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.agents.acting import best_of, flow_action
from bench.agents.losses import cloning_loss, critic_loss, take_step
from bench.agents.networks import FlowPolicy, critic_ensemble, flow_actor
from bench.agents.noise import Noise, normal, uniform
from bench.agents.problem import Problem
from bench.agents.settings import FlowAgentSettings, setting
from qlearn import ChunkBatch, Learner, RandomStreams, pessimistic_value

__all__ = ["QC", "QCConfig"]


@dataclass(frozen=True, slots=True)
class QCConfig(FlowAgentSettings):
    """Settings of QC; the defaults are the published ones unless noted."""

    num_critics: int = 2
    rho: float = setting(
        0.0,
        "pessimism of `mean(Q) - rho * std(Q)` in the critic's target and in the choice among "
        "chunks; published: the mean, 0, or the minimum, which is 1 with two critics",
    )
    num_action_samples: int = setting(
        32,
        "chunks `N` among which the critic chooses, in its target and when acting; published: 32 "
        "with chunks of 5, 4 with single actions",
        least=1,
        most=10_000,
        repeats=True,
    )


class QC(nn.Module):
    """QC for a pack of independent runs; every tensor's replica axis is ``R``.

    Args:
        config: settings.
        problem: sizes.
        streams: one random stream per replica; they draw the initial parameters.
    """

    def __init__(self, config: QCConfig, problem: Problem, streams: RandomStreams) -> None:
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
        """Take a behaviour-cloned flow as the one that proposes."""
        self.flow.load_state_dict(flow.state_dict())

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update on ``batch`` chunks consumes."""
        size = self.problem.chunk_dim
        return {
            "next_action": normal(batch, self.config.num_action_samples, size),
            "bc_x0": normal(batch, size),
            "bc_t": uniform(batch),
        }

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and diagnostics ``(R,)`` of one batch, all from the parameters as they are."""
        config = self.config

        # Critic: TD towards the best of N next chunks, chosen by the critic that is trained.
        td = critic_loss(
            self.critic,
            self.target_critic,
            batch,
            self.choose(batch.next_observations, noise["next_action"]),
            rho=config.rho,
            discount=config.discount,
            horizon=self.problem.horizon,
        )

        # Flow: behaviour cloning.
        return {"critic_loss": td, "flow_loss": cloning_loss(self.flow, batch, noise)}

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of critic and flow; metrics are ``(R,)``."""
        losses = self.losses(batch, noise)
        return take_step(self.learner, losses, losses["critic_loss"] + losses["flow_loss"])

    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)`` of the flow, before any choice among them."""
        return flow_action(self.flow.field(observations), noise, self.config.flow_steps)

    @torch.no_grad()
    def choose(self, observations: Tensor, noise: Tensor) -> Tensor:
        """The best ``(R, B, D)`` of the chunks from ``noise (R, B, N, D)``."""
        return best_of(
            noise,
            observations,
            policy=self.sample,
            value=lambda o, a: pessimistic_value(self.critic(o, a), self.config.rho),
        )

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting on ``rows`` observations consumes."""
        return {"flow": normal(rows, self.config.num_action_samples, self.problem.chunk_dim)}

    def act(self, observations: Float[Tensor, "R n O"], noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)``, the best sample."""
        return self.choose(observations, noise["flow"])

"""QAM with a one-step policy (QAM-F), arXiv 2601.14234.

QAM's fine-tuned flow (`fast`) is the teacher of a policy that turns noise into an action in one
evaluation and also climbs the critic, as in FQL (arXiv 2502.02538). This one-step policy ``mu``
acts; it minimises ``alpha mean (mu(s, z) - flow(s, z))^2 - mean_i Q_i(s, mu(s, z))``, z ~ N(0, I).
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adjoint import LeanAdjoint
from bench.agents.acting import best_of, flow_action
from bench.agents.adjoint_matching import adjoint_losses, adjoint_noise
from bench.agents.losses import cloning_loss, critic_loss, one_step_losses, take_step
from bench.agents.networks import critic_ensemble, flow_actor
from bench.agents.noise import Noise, normal, uniform
from bench.agents.problem import Problem
from flowsde import MemorylessEuler
from qlearn import ChunkBatch, FlowActor, Learner, OneStepActor, RandomStreams

__all__ = ["QAMFQL", "QAMFQLConfig"]


@dataclass(frozen=True, slots=True)
class QAMFQLConfig:
    """Settings of QAM-F; the defaults are the published ones unless noted.

    Attributes:
        actor_hidden: widths of the flow policies' hidden layers.
        actor_layer_norm: LayerNorm in the flow policies.
        critic_hidden: widths of the critics' hidden layers.
        critic_layer_norm: LayerNorm in the critics.
        critics: size of the critic ensemble.
        flow_steps: Euler steps ``K`` of the flow, for acting and for the memoryless SDE.
        discount: per environment step.
        pessimism: ``rho`` of ``mean(Q) - rho * std(Q)`` over the target ensemble.
        learning_rate: Adam's step size.
        target_rate: EMA rate of the target critic and of the reference policy.
        max_gradient_norm: global-norm clip over all parameters of a run together; None: no clip.
        clip_terminal: take the critic's gradient through ``clip(a, -1, 1)``.
        adjoint_time: time of the base velocity in the adjoint, ``t + h`` as published or ``t``.
        inverse_temperature: ``tau`` of ``p(a|s) ~ p_slow(a|s) exp(tau Q(s,a))``; published: 0.3,
            and a value for every domain.
        distill_weight: weight of the distance between one-step policy and flow; 0 does without the
            one-step policy, which is QAM (the published default, and the published choice for some
            domains).
        best_of: actions sampled when acting; the one with the best mean critic value is played.
    """

    actor_hidden: tuple[int, ...] = (512, 512, 512, 512)
    actor_layer_norm: bool = False
    critic_hidden: tuple[int, ...] = (512, 512, 512, 512)
    critic_layer_norm: bool = True
    critics: int = 10
    flow_steps: int = 10
    discount: float = 0.995
    pessimism: float = 0.5
    learning_rate: float = 3e-4
    target_rate: float = 0.005
    max_gradient_norm: float | None = 1.0
    clip_terminal: bool = True
    adjoint_time: Literal["shifted", "consistent"] = "shifted"
    inverse_temperature: float = 1.0
    distill_weight: float = 30.0
    best_of: int = 1


class QAMFQL(nn.Module):
    """QAM-F for a pack of independent runs; every tensor's replica axis is ``R``.

    Args:
        config: settings.
        problem: sizes.
        streams: one random stream per replica; they draw the initial parameters.
    """

    def __init__(self, config: QAMFQLConfig, problem: Problem, streams: RandomStreams) -> None:
        super().__init__()
        self.config, self.problem = config, problem
        self.kernel = MemorylessEuler(config.flow_steps, adjoint_time=config.adjoint_time)
        self.estimator = LeanAdjoint(self.kernel)
        self.slow = flow_actor(
            problem, config.actor_hidden, streams, layer_norm=config.actor_layer_norm
        )
        self.critic = critic_ensemble(
            problem,
            config.critics,
            config.critic_hidden,
            streams,
            layer_norm=config.critic_layer_norm,
        )
        self.fast = copy.deepcopy(self.slow)
        self.target_slow = copy.deepcopy(self.slow).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.one_step: OneStepActor | None = None
        if config.distill_weight > 0.0:
            self.one_step = OneStepActor(
                streams.replicas,
                problem.observation_dim,
                problem.chunk_dim,
                config.actor_hidden,
                layer_norm=config.actor_layer_norm,
                streams=streams,
            )
        self.to(streams.device)
        self.learner = Learner(
            self.named_parameters(),
            targets=[(self.target_critic, self.critic), (self.target_slow, self.slow)],
            learning_rate=config.learning_rate,
            target_rate=config.target_rate,
            max_gradient_norm=config.max_gradient_norm,
        )

    def start_from(self, flow: FlowActor) -> None:
        """Take a behaviour-cloned flow as reference and as the policy to fine-tune."""
        for policy in (self.slow, self.target_slow, self.fast):
            policy.load_state_dict(flow.state_dict())

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update on ``batch`` chunks consumes."""
        size, steps = self.problem.chunk_dim, self.config.flow_steps
        return {
            "next_action": normal(batch, size),
            "bc_x0": normal(batch, size),
            "bc_t": uniform(batch),
            **adjoint_noise(batch, size, steps),
            "distill": normal(batch, size),
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
            pessimism=config.pessimism,
            discount=config.discount,
            horizon=self.problem.horizon,
        )

        # Reference: behaviour cloning goes on during fine-tuning.
        cloning = cloning_loss(self.slow, batch, noise)

        # Fine-tuned policy: adjoint matching along its own memoryless path.
        matching, _ = adjoint_losses(
            self.estimator,
            fine=self.fast.field(observations),
            base=self.target_slow.field(observations),
            reward=lambda action: (
                config.inverse_temperature * self.target_critic(observations, action).mean(-2)
            ),
            noise=noise,
            clip=config.clip_terminal,
            horizon=self.problem.horizon,
        )
        losses = {"critic_loss": td, "flow_loss": cloning, **matching}
        if self.one_step is None:
            return losses

        # One-step policy: close to the fine-tuned flow from the same noise, and valuable.
        flow = self.fast.field(observations)
        distill, value = one_step_losses(
            self.one_step,
            flow_action(flow, noise["distill"], config.flow_steps),
            self.critic,
            observations,
            noise["distill"],
        )
        return losses | {"distill_loss": distill, "q_loss": value}

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of critic, reference, flow and one-step policy; metrics are ``(R,)``."""
        losses = self.losses(batch, noise)
        total = losses["critic_loss"] + losses["flow_loss"] + losses["adjoint_loss"]
        if self.one_step is not None:
            total = total + self.config.distill_weight * losses["distill_loss"] + losses["q_loss"]
        return take_step(self.learner, losses, total)

    @torch.no_grad()
    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)`` of the one-step policy, or of the flow without one."""
        if self.one_step is None:
            return flow_action(self.fast.field(observations), noise, self.config.flow_steps)
        action: Tensor = self.one_step(observations, noise)
        return action.clamp(-1.0, 1.0)

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting on ``rows`` observations consumes."""
        return {"flow": normal(rows, self.config.best_of, self.problem.chunk_dim)}

    @torch.no_grad()
    def act(self, observations: Float[Tensor, "R n O"], noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)``, the best of ``config.best_of`` by the critics' mean."""
        return best_of(
            noise["flow"],
            observations,
            policy=self.sample,
            value=lambda o, a: self.critic(o, a).mean(-2),
        )

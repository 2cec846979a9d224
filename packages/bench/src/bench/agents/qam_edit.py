"""QAM with an edit policy (QAM-E), arXiv 2601.14234.

QAM's fine-tuned flow (`fast`) proposes an action. A tanh-Gaussian policy reads it and adds a small
edit, ``a = clip(a_flow + scale * tanh(u), -1, 1)``, trained to climb the critic with its entropy
held at a target: it minimises ``alpha log p(tanh u|s, a_flow) - mean_i Q_i(s, a)``.
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
from bench.agents.losses import cloning_loss, critic_loss, entropy_losses, take_step
from bench.agents.networks import critic_ensemble, flow_actor
from bench.agents.noise import Noise, normal, uniform
from bench.agents.problem import Problem
from flowsde import MemorylessEuler
from qlearn import (
    ChunkBatch,
    EntropyTemperature,
    FlowActor,
    GaussianActor,
    Learner,
    RandomStreams,
    frozen,
)

__all__ = ["QAMEdit", "QAMEditConfig"]


@dataclass(frozen=True, slots=True)
class QAMEditConfig:
    """Settings of QAM-E; the defaults are the published ones unless noted.

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
        edit_scale: largest edit of an action component; 0 does without the edit policy, which is
            QAM (the published default, and the published choice for some domains).
        target_entropy: of the edit before scaling, in nats per component of the action chunk.
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
    edit_scale: float = 0.1
    target_entropy: float = -0.5
    best_of: int = 1


class QAMEdit(nn.Module):
    """QAM-E for a pack of independent runs; every tensor's replica axis is ``R``.

    Args:
        config: settings.
        problem: sizes.
        streams: one random stream per replica; they draw the initial parameters.
    """

    def __init__(self, config: QAMEditConfig, problem: Problem, streams: RandomStreams) -> None:
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
        self.edit: GaussianActor | None = None
        if config.edit_scale > 0.0:
            self.edit = GaussianActor(
                streams.replicas,
                problem.observation_dim + problem.chunk_dim,
                problem.chunk_dim,
                config.actor_hidden,
                streams=streams,
            )
            self.temperature = EntropyTemperature(streams.replicas)
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
            "next_edit": normal(batch, size),
            "edit_base": normal(batch, size),
            "edit": normal(batch, size),
        }

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and diagnostics ``(R,)`` of one batch, all from the parameters as they are."""
        config, observations = self.config, batch.observations

        # Critic: TD towards the policy's next chunk, pessimistic over the ensemble.
        next_action = self.sample(batch.next_observations, noise["next_action"], noise["next_edit"])
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
        if self.edit is None:
            return losses

        # Edit policy: a soft actor-critic step around the flow's action.
        flow = flow_action(self.fast.field(observations), noise["edit_base"], config.flow_steps)
        edit, log_prob = self.edit(observations, flow).sample(noise["edit"])
        edited = (flow + config.edit_scale * edit).clamp(-1.0, 1.0)
        losses["edit_q_loss"] = -frozen(self.critic)(observations, edited).mean((-2, -1))
        entropy = entropy_losses(
            log_prob, self.temperature, config.target_entropy * self.problem.chunk_dim
        )
        return losses | {f"edit_{name}": value for name, value in entropy.items()}

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of critic, reference, fine-tuned flow and edit policy; metrics are ``(R,)``."""
        losses = self.losses(batch, noise)
        total = losses["critic_loss"] + losses["flow_loss"] + losses["adjoint_loss"]
        if self.edit is not None:
            total = total + losses["edit_q_loss"] + losses["edit_entropy_loss"]
            total = total + losses["edit_alpha_loss"]
        return take_step(self.learner, losses, total)

    @torch.no_grad()
    def sample(self, observations: Tensor, noise: Tensor, edit_noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)``: the flow's, edited."""
        flow = flow_action(self.fast.field(observations), noise, self.config.flow_steps)
        if self.edit is None:
            return flow
        edit: Tensor = self.edit(observations, flow).sample(edit_noise)[0]
        return (flow + self.config.edit_scale * edit).clamp(-1.0, 1.0)

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting on ``rows`` observations consumes."""
        shape = (rows, self.config.best_of, self.problem.chunk_dim)
        return {"flow": normal(*shape), "edit": normal(*shape)}

    @torch.no_grad()
    def act(self, observations: Float[Tensor, "R n O"], noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)``, the best of ``config.best_of`` by the critics' mean."""
        return best_of(
            torch.cat((noise["flow"], noise["edit"]), dim=-1),
            observations,
            policy=lambda o, x: self.sample(o, *x.chunk(2, dim=-1)),
            value=lambda o, a: self.critic(o, a).mean(-2),
        )

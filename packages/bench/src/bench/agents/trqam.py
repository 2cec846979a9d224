"""Trust Region Q-Adjoint Matching (TRQAM), arXiv 2605.27079.

A behaviour-cloned flow policy (`slow`) is the reference. A second flow policy (`fast`) is fine-tuned
towards ``p(a|s) ~ p_slow(a|s) exp(Q(s,a)/lambda)`` by adjoint matching, and projected dual descent
moves lambda so that the path-space KL between the two stays at a budget.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adjoint import lean_adjoint, matching_loss, terminal_gradient
from bench.agents.acting import best_of
from bench.agents.noise import Noise, normal, uniform
from bench.agents.problem import Problem
from flowsde import MemorylessEuler, flow_matching_loss, ode_sample, sample_path, velocities_along
from qlearn import (
    ChunkBatch,
    CriticEnsemble,
    FlowActor,
    Learner,
    RandomStreams,
    pessimistic_value,
    td_loss,
    td_target,
)
from trustregion import DualDescent, path_kl

__all__ = ["TRQAM", "TRQAMConfig"]


@dataclass(frozen=True, slots=True)
class TRQAMConfig:
    """Settings of TRQAM; the defaults are the published ones.

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
        target_rate: EMA rate ``tau`` of the target critic and of the reference policy.
        max_gradient_norm: global-norm clip over all parameters of a run together.
        clip_terminal: take the critic's gradient through ``clip(a, -1, 1)``.
        adjoint_time: time of the base velocity in the adjoint, ``t + h`` as published or ``t``.
        kl_budget: path-space KL (nats, per action of a chunk) that the trust region allows.
        dual_rate: step size of the dual descent on lambda.
        dual_ema: averaging rate of the KL estimate.
        dual_clip: KL estimates are capped at this multiple of the budget.
        lambda_min: lower bound of the dual variable.
        lambda_max: upper bound of the dual variable.
        lambda_scale: lambda in the control problem is this multiple of the dual variable.
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
    max_gradient_norm: float = 1.0
    clip_terminal: bool = True
    adjoint_time: Literal["shifted", "consistent"] = "shifted"
    kl_budget: float = 1.0
    dual_rate: float = 0.01
    dual_ema: float = 0.1
    dual_clip: float = 2.0
    lambda_min: float = 0.01
    lambda_max: float = 100.0
    lambda_scale: float = 3.0
    best_of: int = 1


class TRQAM(nn.Module):
    """TRQAM for a pack of independent runs; every tensor's replica axis is ``R``.

    Args:
        config: settings.
        problem: sizes.
        streams: one random stream per replica; they draw the initial parameters.
    """

    def __init__(self, config: TRQAMConfig, problem: Problem, streams: RandomStreams) -> None:
        super().__init__()
        self.config, self.problem = config, problem
        sizes = (streams.replicas, problem.observation_dim, problem.chunk_dim)
        self.kernel = MemorylessEuler(config.flow_steps, adjoint_time=config.adjoint_time)
        self.slow = FlowActor(
            *sizes, config.actor_hidden, layer_norm=config.actor_layer_norm, streams=streams
        )
        self.critic = CriticEnsemble(
            streams.replicas,
            config.critics,
            problem.observation_dim + problem.chunk_dim,
            config.critic_hidden,
            layer_norm=config.critic_layer_norm,
            streams=streams,
        )
        self.fast = copy.deepcopy(self.slow)
        self.target_slow = copy.deepcopy(self.slow).requires_grad_(False)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.dual = DualDescent(
            streams.replicas,
            budget=config.kl_budget,
            rate=config.dual_rate,
            ema=config.dual_ema,
            clip=config.dual_clip,
            bounds=(config.lambda_min, config.lambda_max),
            scale=config.lambda_scale,
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
            "sde_x0": normal(batch, size),
            "sde_steps": normal(steps, batch, size),
        }

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and diagnostics ``(R,)`` of one batch, all from the parameters as they are."""
        config = self.config
        observations, valid = batch.observations, batch.valid
        fast = self.fast.field(observations)
        base = self.target_slow.field(observations)

        # Critic: TD towards the fine-tuned policy's next chunk, pessimistic over the ensemble.
        with torch.no_grad():
            next_action = self.sample(self.fast, batch.next_observations, noise["next_action"])
            next_qs = self.target_critic(batch.next_observations, next_action)
            target = td_target(
                batch.rewards,
                batch.masks,
                pessimistic_value(next_qs, config.pessimism),
                discount=config.discount,
                horizon=self.problem.horizon,
            )
        critic_loss = td_loss(self.critic(observations, batch.actions), target, valid)

        # Reference: behaviour cloning goes on during fine-tuning.
        flow_losses = flow_matching_loss(
            self.slow.field(observations), batch.actions, noise["bc_x0"], noise["bc_t"]
        )
        flow_loss = (flow_losses * valid).mean(-1)

        # Fine-tuned policy: adjoint matching along its own memoryless path.
        with torch.no_grad():
            path = sample_path(
                self.kernel,
                fast,
                noise["sde_x0"],
                noise["sde_steps"].movedim(1, 0),
                final_velocity=base,
            )
            base_velocities = velocities_along(self.kernel, base, path)
        terminal = -terminal_gradient(
            lambda action: self.target_critic(observations, action).mean(-2),
            path.sample,
            clip=(-1.0, 1.0) if config.clip_terminal else None,
        )
        adjoints = lean_adjoint(self.kernel, base, path, terminal)
        velocities = velocities_along(self.kernel, fast, path)
        lam = self.dual.lambda_.unsqueeze(-1)
        matching = matching_loss(self.kernel, velocities, base_velocities, adjoints, lam)
        kl = path_kl(self.kernel, velocities.detach(), base_velocities)

        return {
            "critic_loss": critic_loss,
            "flow_loss": flow_loss,
            "adjoint_loss": matching.mean(-1),
            "path_kl": kl.mean(-1) / self.problem.horizon,
        }

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of critic, reference, fine-tuned policy and dual; metrics are ``(R,)``."""
        losses = self.losses(batch, noise)
        total = losses["critic_loss"] + losses["flow_loss"] + losses["adjoint_loss"]
        report = self.learner.step(total)
        dual = self.dual.update(losses["path_kl"])
        metrics = {name: loss.detach() for name, loss in losses.items()}
        return metrics | dual | {"total_loss": total.detach(), "gradient_norm": report.norm}

    def sample(self, policy: FlowActor, observations: Tensor, noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)`` in [-1, 1] from the flow ODE started at ``noise``."""
        steps = self.config.flow_steps
        return ode_sample(policy.field(observations), noise, steps).clamp(-1.0, 1.0)

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting on ``rows`` observations consumes."""
        return {"flow": normal(rows, self.config.best_of, self.problem.chunk_dim)}

    @torch.no_grad()
    def act(self, observations: Float[Tensor, "R n O"], noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)``, the best of ``config.best_of`` by the critics' mean."""
        return best_of(
            noise["flow"],
            observations,
            policy=lambda o, x: self.sample(self.fast, o, x),
            value=lambda o, a: self.critic(o, a).mean(-2),
        )

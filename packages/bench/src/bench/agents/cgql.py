"""Classifier-guidance Q-learning (CGQL, CGQL-M, CGQL-L), a baseline of arXiv 2601.14234.

A behaviour-cloned flow is left as it is and guided, step by step, by the gradient of a critic on
noisy actions ``Q(s, x_t, t)``. The right guidance at time t is that of
``log E[exp(tau Q(s, a)) | x_t] / tau``; three ways to approximate it:

- `simple`: the critic on clean actions, evaluated at the noisy one;
- `mse`: regress ``Q(s, a)`` on the noisy action, which gives ``E[Q | x_t]``;
- `linex`: regress with the LINEX loss, whose minimum is the right quantity.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adjoint import terminal_gradient
from bench.agents.acting import best_of
from bench.agents.losses import cloning_loss, critic_loss, take_step
from bench.agents.networks import FlowPolicy, critic_ensemble, flow_actor
from bench.agents.noise import Noise, normal, uniform
from bench.agents.problem import Problem
from bench.agents.settings import FlowAgentSettings, setting
from flowsde import LinearInterpolant, VelocityField, ode_sample
from qlearn import ChunkBatch, Learner, RandomStreams, td_loss

__all__ = ["CGQL", "CGQLConfig"]


@dataclass(frozen=True, slots=True)
class CGQLConfig(FlowAgentSettings):
    """Settings of CGQL; the defaults are the published ones unless noted."""

    mode: Literal["linex", "mse", "simple"] = setting(
        "linex",
        "how the noisy critic is learnt: LINEX loss, MSE, or no noisy critic; published: `simple`",
    )
    inverse_temperature: float = setting(
        1.0, "`tau` of `p(a|s) ~ p_flow(a|s) exp(tau Q(s,a))`", least=0
    )
    guidance: float = setting(0.1, "scale of the guidance", least=0)
    noisy_weight: float = setting(0.001, "weight of the noisy critic's loss", least=0)
    linex_clip: float = setting(
        5.0, "exponent above which the LINEX loss goes on without the exponential", least=0
    )
    linex_tail: Literal["linear", "published"] = setting(
        "linear",
        "how it goes on: `linear`, by its tangent; `published`, by a line that jumps at the clip "
        "and lacks the term that keeps the critic from growing",
    )
    guidance_critic: Literal["target", "online"] = setting(
        "target",
        "whose gradient guides; the published code always takes `online`, whatever its own "
        "setting says",
    )


class CGQL(nn.Module):
    """CGQL for a pack of independent runs; every tensor's replica axis is ``R``.

    Args:
        config: settings.
        problem: sizes.
        streams: one random stream per replica; they draw the initial parameters.
    """

    def __init__(self, config: CGQLConfig, problem: Problem, streams: RandomStreams) -> None:
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
            timed=True,
        )
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
        """Take a behaviour-cloned flow as the one to guide."""
        for policy in (self.flow, self.target_flow):
            policy.load_state_dict(flow.state_dict())

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update on ``batch`` chunks consumes."""
        size = self.problem.chunk_dim
        return {
            "next_action": normal(batch, size),
            "noisy_x0": normal(batch, size),
            "noisy_t": uniform(batch),
            "bc_x0": normal(batch, size),
            "bc_t": uniform(batch),
        }

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and diagnostics ``(R,)`` of one batch, all from the parameters as they are."""
        config, observations = self.config, batch.observations

        # Critic: TD towards the guided flow's next chunk, pessimistic over the ensemble.
        next_action = self.sample(batch.next_observations, noise["next_action"])
        td = critic_loss(
            lambda o, a: self.critic(o, a, _at(1.0, a)),
            lambda o, a: self.target_critic(o, a, _at(1.0, a)),
            batch,
            next_action,
            rho=config.rho,
            discount=config.discount,
            horizon=self.problem.horizon,
        )

        # Flow: behaviour cloning.
        losses = {"critic_loss": td, "flow_loss": cloning_loss(self.flow, batch, noise)}
        if config.mode == "simple":
            return losses

        # Noisy critic: what the target critic says of the clean action, seen at a noisy one.
        t = noise["noisy_t"]
        noisy = LinearInterpolant().interpolate(noise["noisy_x0"], batch.actions, t)
        clean_qs = self.target_critic(observations, batch.actions, _at(1.0, batch.actions))
        noisy_qs = self.critic(observations, noisy, t.unsqueeze(-1))
        if config.mode == "mse":
            return losses | {"noisy_loss": td_loss(noisy_qs, clean_qs, batch.valid)}
        linex = self.linex(noisy_qs, clean_qs) * batch.valid.unsqueeze(-2)
        return losses | {"noisy_loss": linex.mean((-2, -1))}

    def linex(self, noisy_qs: Tensor, clean_qs: Tensor) -> Tensor:
        """``exp(delta) + tau Q(x_t, t)`` per element, ``delta = tau (Q(a) - Q(x_t, t))``.

        Its minimum over ``Q(x_t, t)`` is ``log E[exp(tau Q(a)) | x_t] / tau``.
        """
        config = self.config
        tau, clip = config.inverse_temperature, config.linex_clip
        delta = tau * (clean_qs - noisy_qs)
        below = delta.clamp(max=clip).exp()
        if config.linex_tail == "published":
            return torch.where(delta > clip, delta, below + tau * noisy_qs)
        tangent = math.exp(clip) * (1.0 + delta - clip)
        return torch.where(delta > clip, tangent, below) + tau * noisy_qs

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of critic and flow; metrics are ``(R,)``."""
        losses = self.losses(batch, noise)
        total = losses["critic_loss"] + losses["flow_loss"]
        if "noisy_loss" in losses:
            total = total + self.config.noisy_weight * losses["noisy_loss"]
        return take_step(self.learner, losses, total)

    def guided(self, observations: Tensor) -> VelocityField:
        """The flow plus ``guidance / t * (tau (1 - t) grad_x Q(s, x, t) + x)``, for ``t > 0``."""
        config, flow = self.config, self.target_flow.field(observations)
        critic = self.target_critic if config.guidance_critic == "target" else self.critic

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            time = t.expand(x.shape[:-1]).unsqueeze(-1)
            seen = torch.ones_like(time) if config.mode == "simple" else time
            score = terminal_gradient(lambda a: critic(observations, a, seen).mean(-2), x)
            pull = config.inverse_temperature * (1.0 - time) * score + x
            return flow(x, t) + config.guidance / time * pull

        return velocity

    @torch.no_grad()
    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)`` of the guided flow."""
        steps, flow = self.config.flow_steps, self.target_flow.field(observations)
        if self.config.inverse_temperature == 0.0:
            return ode_sample(flow, noise, steps).clamp(-1.0, 1.0)
        # The guidance is singular at t = 0, so the first step goes without it.
        x = ode_sample(flow, noise, 1, t1=1.0 / steps)
        if steps > 1:
            x = ode_sample(self.guided(observations), x, steps - 1, t0=1.0 / steps)
        return x.clamp(-1.0, 1.0)

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
            value=lambda o, a: self.critic(o, a, _at(1.0, a)).mean(-2),
        )


def _at(t: float, actions: Tensor) -> Tensor:
    """The critics' time input ``(..., 1)``; 1 stands for a clean action."""
    return actions.new_full((*actions.shape[:-1], 1), t)

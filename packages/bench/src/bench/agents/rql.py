"""Reversal Q-learning (RQL), arXiv 2606.17551: the steps of a flow as actions of a longer problem.

In the expanded problem a state is ``(s, x, f)``, an action that the flow has brought to time f. The
critic ``Q(s, x, f)`` values it; at f = 1 that is the value of the action x. Where the data's action
stood at time f is found by running the flow backwards from it, and as nothing random and no reward
lies between, its target is that of the finished action: ``R + discount^H mask Q'(s', x_0, 0)`` with
fresh noise x_0. Every step of the flow then climbs the critic at the point that it leads to, with
no gradient through more than that one step.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.agents.acting import best_of, flow_action
from bench.agents.losses import take_step
from bench.agents.networks import FlowPolicy, critic_ensemble, flow_actor
from bench.agents.noise import Noise, normal, uniform
from bench.agents.problem import Problem
from bench.agents.settings import FlowAgentSettings, setting
from flowsde import LinearInterpolant, VelocityField
from qlearn import (
    ChunkBatch,
    Learner,
    RandomStreams,
    ema_update,
    expectile_loss,
    frozen,
    pessimistic_value,
    td_target,
)

__all__ = ["RQL", "RQLConfig"]


@dataclass(frozen=True, slots=True)
class RQLConfig(FlowAgentSettings):
    """Settings of RQL; the defaults are the published ones unless noted."""

    rho: float = setting(
        0.5,
        "pessimism of `mean(Q) - rho * std(Q)` over the target ensemble; published: 0, and for "
        "most domains 0.5",
    )
    cloning_weight: float = setting(
        1.0, "`alpha`, weight of flow matching to the data's actions; published for every domain",
        least=0,
    )  # fmt: skip
    expectile: float = setting(
        0.5,
        "`kappa`, weight of a value below its target; `1 - kappa` above it; published for every "
        "domain",
        least=0,
        most=1,
    )
    flow_tau: float = setting(0.001, "EMA rate of the flow that acts", least=0, most=1)


class RQL(nn.Module):
    """RQL for a pack of independent runs; every tensor's replica axis is ``R``.

    Args:
        config: settings.
        problem: sizes.
        streams: one random stream per replica; they draw the initial parameters.
    """

    def __init__(self, config: RQLConfig, problem: Problem, streams: RandomStreams) -> None:
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
            targets=[(self.target_critic, self.critic)],
            replicas=streams.replicas,
            learning_rate=config.learning_rate,
            learning_rates=problem.learning_rates,
            target_rate=config.tau,
            max_gradient_norm=config.max_gradient_norm,
        )

    def start_from(self, flow: FlowPolicy) -> None:
        """Take a behaviour-cloned flow as the policy."""
        for policy in (self.flow, self.target_flow):
            policy.load_state_dict(flow.state_dict())

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update on ``batch`` chunks consumes."""
        size = self.problem.chunk_dim
        return {
            "next_x0": normal(batch, size),
            "reverse_t": uniform(batch),
            "bc_x0": normal(batch, size),
            "bc_t": uniform(batch),
        }

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and diagnostics ``(R,)`` of one batch, all from the parameters as they are."""
        config, observations = self.config, batch.observations

        # Critic: an expectile of the return, at points of the flow that ends in the data's action.
        with torch.no_grad():
            start = torch.zeros_like(noise["reverse_t"]).unsqueeze(-1)
            next_qs = self.target_critic(batch.next_observations, noise["next_x0"], start)
            target = td_target(
                batch.rewards,
                batch.masks,
                pessimistic_value(next_qs, config.rho),
                discount=config.discount,
                horizon=self.problem.horizon,
            )
        field = self.flow.field(observations)
        x, f = self.reverse(field, batch.actions, self.spans(noise["reverse_t"]))
        missing = target.unsqueeze(-2) - self.critic(observations, x, f.unsqueeze(-1))
        td = expectile_loss(missing, config.expectile) * batch.valid.unsqueeze(-2)

        # Flow: matching to the data, and one step ahead of every noised action up the critic.
        x0, t = noise["bc_x0"], noise["bc_t"]
        noised = LinearInterpolant().interpolate(x0, batch.actions, t)
        velocity = field(noised, t)
        error = (velocity - (batch.actions - x0)).square().mean(-1)
        step = (1.0 - t).clamp(max=1.0 / config.flow_steps)
        ahead = noised + step.unsqueeze(-1) * velocity
        value = frozen(self.critic)(observations, ahead, (t + step).unsqueeze(-1)).mean(-2)
        return {
            "critic_loss": td.mean((-2, -1)),
            "flow_loss": (error * batch.valid).mean(-1),
            "actor_loss": -(value * batch.valid).mean(-1),
        }

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of critic and flow; metrics are ``(R,)``."""
        losses = self.losses(batch, noise)
        total = losses["critic_loss"] + losses["actor_loss"]
        total = total + self.config.cloning_weight * losses["flow_loss"]
        # Like the learner's own targets, from the parameters of before the step.
        ema_update(
            list(self.target_flow.parameters()),
            list(self.flow.parameters()),
            self.config.flow_tau,
        )
        return take_step(self.learner, losses, total)

    def spans(self, uniform_numbers: Float[Tensor, "R B"]) -> Float[Tensor, "R B"]:
        """How far back each row of a batch goes: half of them anywhere, the others whole steps.

        The first half is uniform on [0, 1), the second on 0, 1/K, ..., 1.
        """
        steps, half = self.config.flow_steps, uniform_numbers.shape[-1] // 2
        whole = (uniform_numbers[..., half:] * (steps + 1)).floor().clamp(max=steps) / steps
        return torch.cat([uniform_numbers[..., :half], whole], dim=-1)

    @torch.no_grad()
    def reverse(
        self, field: VelocityField, actions: Tensor, spans: Tensor
    ) -> tuple[Float[Tensor, "R B D"], Float[Tensor, "R B"]]:
        """Where a flow that ends in ``actions (R, B, D)`` was ``spans (R, B)`` before, and when.

        Every row takes all K Euler steps, each of its own length.
        """
        x, f = actions, torch.ones_like(spans)
        step = spans / self.config.flow_steps
        for _ in range(self.config.flow_steps):
            x = x - step.unsqueeze(-1) * field(x, f)
            f = f - step
        return x, f

    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)`` of the averaged flow."""
        return flow_action(self.target_flow.field(observations), noise, self.config.flow_steps)

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
            value=lambda o, a: self.critic(o, a, torch.ones_like(a[..., :1])).mean(-2),
        )

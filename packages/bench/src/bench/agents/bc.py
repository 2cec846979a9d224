"""Behaviour cloning (BC) of a flow policy by flow matching; the start of every fine-tuning.

Flow matching, arXiv 2210.02747, with the linear interpolant: the velocity is regressed on
``a - x_0`` at ``x_t = (1 - t) x_0 + t a``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.agents.acting import flow_action
from bench.agents.diffusion import PolicyPrediction, policy_field
from bench.agents.losses import cloning_loss, take_step
from bench.agents.networks import FlowPolicy, flow_actor
from bench.agents.noise import Noise, normal, uniform
from bench.agents.problem import Observed, Problem
from bench.agents.settings import FlowSizes, setting
from qlearn import ChunkBatch, Learner, RandomStreams

__all__ = ["BC", "BCConfig", "cloned_flow"]


@dataclass(frozen=True, slots=True)
class BCConfig:
    """Settings of behaviour cloning."""

    actor_hidden: tuple[int, ...] = setting(
        (512, 512, 512, 512), "widths of the flow policy's hidden layers"
    )
    actor_layer_norm: bool = setting(False, "LayerNorm in the flow policy")
    flow_steps: int = setting(
        10, "Euler steps of the flow when acting", least=1, most=1_000, repeats=True
    )
    learning_rate: float = setting(3e-4, "Adam's step size", least=0)
    max_gradient_norm: float | None = setting(
        1.0, "global-norm clip per run; none: no clip", above=0
    )
    prediction: PolicyPrediction = setting(
        "velocity",
        "of the policy's network: `velocity`, a flow policy, or `noise`, a diffusion one",
    )


class BC(nn.Module):
    """Behaviour cloning for a pack of independent runs; no rewards are read."""

    def __init__(self, config: BCConfig, problem: Problem, streams: RandomStreams) -> None:
        super().__init__()
        self.config, self.problem = config, problem
        self.flow = flow_actor(
            problem, config.actor_hidden, streams, layer_norm=config.actor_layer_norm
        ).to(streams.device)
        self.learner = Learner(
            self.named_parameters(),
            replicas=streams.replicas,
            learning_rate=config.learning_rate,
            learning_rates=problem.learning_rates,
            max_gradient_norm=config.max_gradient_norm,
        )

    def start_from(self, flow: FlowPolicy) -> None:
        """Continue from an already cloned flow."""
        self.flow.load_state_dict(flow.state_dict())

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update on ``batch`` chunks consumes."""
        return {"bc_x0": normal(batch, self.problem.chunk_dim), "bc_t": uniform(batch)}

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Flow-matching loss ``(R,)``."""
        mask = self.problem.mask(batch.actions.device)
        loss = cloning_loss(self.flow, batch, noise, self.config.prediction, mask=mask)
        return {"flow_loss": loss}

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One Adam step; metrics are ``(R,)``."""
        losses = self.losses(batch, noise)
        return take_step(self.learner, losses, losses["flow_loss"])

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting on ``rows`` observations consumes."""
        return {"flow": normal(rows, self.problem.chunk_dim)}

    @torch.no_grad()
    def act(self, observations: Observed, noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)`` in [-1, 1] from the flow ODE."""
        field = policy_field(self.flow, observations, self.config.prediction)
        return self.problem.counted(flow_action(field, noise["flow"], self.config.flow_steps))


def cloned_flow(config: FlowSizes, problem: Problem, streams: RandomStreams) -> FlowPolicy:
    """The network that a cloned flow is loaded into, to start an agent of these settings from."""
    return flow_actor(problem, config.actor_hidden, streams, layer_norm=config.actor_layer_norm)

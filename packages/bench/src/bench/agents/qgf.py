"""Q-guided flow (QGF), arXiv 2606.11087: guidance of a cloned flow when it acts, and no sooner.

Training is that of :mod:`bench.agents.ifql`: a clone, and a critic that sees the data's actions
alone. Acting adds the critic's gradient to the velocity of every Euler step, taken where the flow
is heading, ``a = clip(x + (1 - t) v(s, x, t))``, as if the Jacobian of that in x were the identity.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adjoint import terminal_gradient
from bench.agents.acting import best_of
from bench.agents.ifql import IFQL, IFQLConfig
from bench.agents.settings import setting
from flowsde import VelocityField, ode_sample
from qlearn import ChunkBatch, pessimistic_value

__all__ = ["QGF", "QGFConfig"]


@dataclass(frozen=True, slots=True)
class QGFConfig(IFQLConfig):
    """Settings of QGF; the defaults are the published ones unless noted."""

    num_critics: int = 2
    rho: float = setting(
        1.0,
        "pessimism of `mean(Q) - rho * std(Q)` wherever critics are asked; published: their "
        "minimum, which is 1 with two critics",
    )
    from_scratch: bool = setting(
        False, "leave the behaviour-cloned flow aside and clone beside the critic, as published"
    )
    num_action_samples: int = setting(
        1,
        "actions sampled when acting; the one that the target critics value most is played",
        least=1,
        most=10_000,
        repeats=True,
    )
    guidance: float = setting(
        0.04,
        "weight of the critic's gradient in the velocity; published: the best of nine from 0.004 "
        "to 0.12 for every task",
        least=0,
    )


class QGF(IFQL):
    """QGF for a pack of independent runs: :class:`IFQL` with another way of acting.

    Every tensor's replica axis is ``R``.
    """

    config: QGFConfig

    def value_weights(self, batch: ChunkBatch) -> Tensor:
        """Unlike IFQL's, the value network leaves out chunks that an episode's end cuts."""
        return batch.valid

    def guided(self, observations: Tensor) -> VelocityField:
        """The flow plus ``guidance * grad_a Q(s, a)`` at the clean action that it heads for."""
        config, flow = self.config, self.flow.field(observations)
        if config.guidance == 0.0:
            return flow

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            v = flow(x, t)
            left = 1.0 - t.expand(x.shape[:-1]).unsqueeze(-1)
            return v + config.guidance * terminal_gradient(
                lambda a: self._value(observations, a), (x + left * v).clamp(-1.0, 1.0)
            )

        return velocity

    def _value(self, observations: Tensor, actions: Tensor) -> Tensor:
        return pessimistic_value(self.target_critic(observations, actions), self.config.rho)

    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)`` of the guided flow."""
        end = ode_sample(self.guided(observations), noise, self.config.flow_steps)
        return end.clamp(-1.0, 1.0)

    @torch.no_grad()
    def act(self, observations: Float[Tensor, "R n O"], noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)``, the best sample by the target critics."""
        return best_of(noise["flow"], observations, policy=self.sample, value=self._value)

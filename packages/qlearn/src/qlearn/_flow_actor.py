"""A replicated network as the velocity field of a flow policy."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qlearn._networks import MLP, unfold_leading
from qlearn._perceptron import Pullback, Recorder
from qlearn._random import RandomStreams

__all__ = ["FlowActor", "FlowField", "RecordedField"]


class FlowActor(nn.Module):
    """Velocity field ``v(x, t | observation)`` of a flow policy, one network per replica.

    The network reads ``[observation, x, t]`` with ``t`` a single raw number per row, as the
    published implementations of QAM and TRQAM do (no time embedding).

    Args:
        replicas: number of independent policies, the leading axis ``R`` of every parameter.
        observation_dim: size ``O`` of an observation.
        action_dim: size ``D`` of a flat action chunk.
        hidden: widths of the hidden layers.
        layer_norm: normalise after each hidden activation.
        streams: random streams of the replicas; they draw the initial parameters.
    """

    def __init__(
        self,
        replicas: int,
        observation_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        *,
        layer_norm: bool,
        streams: RandomStreams,
    ) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.network = MLP(
            replicas,
            observation_dim + action_dim + 1,
            hidden,
            action_dim,
            layer_norm=layer_norm,
            streams=streams,
        )

    def forward(
        self,
        observations: Float[Tensor, "R B O"],
        x: Float[Tensor, "*shape"],
        t: Float[Tensor, "*batch"],
    ) -> Float[Tensor, "*shape"]:
        """Velocity at ``x (*lead, R, B, D)``, ``t (*lead, R, B)``; ``*lead`` may be path times."""
        velocity: Tensor = self.network(network_inputs(observations, x, t))
        return velocity

    def field(self, observations: Float[Tensor, "R B O"]) -> "FlowField":
        """The velocity field ``(x, t) -> v`` with the observations closed over."""
        return FlowField(self, observations)


@dataclass(frozen=True, slots=True)
class FlowField:
    """The velocity field of a policy at given observations.

    Attributes:
        actor: the policy.
        observations: ``(R, B, O)``.
    """

    actor: FlowActor
    observations: Float[Tensor, "R B O"]

    def __call__(
        self, x: Float[Tensor, "*shape"], t: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*shape"]:
        """Velocity at ``x (*lead, R, B, D)``, ``t (*lead, R, B)``."""
        velocity: Tensor = self.actor(self.observations, x, t)
        return velocity

    def linearize(
        self, x: Float[Tensor, "K R B D"], t: Float[Tensor, "K R B"]
    ) -> tuple[Float[Tensor, "K R B D"], Pullback]:
        """Velocities at ``K`` points and their vector-Jacobian products in ``x``, detached.

        Returns:
            The velocities, and ``pullback(cotangent (R, B, D), k) -> (R, B, D)`` at ``x[k]``.
        """
        inputs = network_inputs(self.observations, x, t)
        values, pullback = self.actor.network.linearize(inputs)
        start = self.observations.shape[-1]
        return values, lambda cotangent, k: pullback(cotangent, k)[..., start:-1]

    def record(self) -> "RecordedField":
        """The same field, to be evaluated along a path first and differentiated there after."""
        return RecordedField(self)


class RecordedField:
    """A field whose evaluations along a path are remembered, for a gradient at the same points.

    Args:
        field: what it evaluates.
    """

    def __init__(self, field: FlowField) -> None:
        self.field = field
        self._recorder: Recorder | None = field.actor.network.recorder(field.observations)

    @torch.no_grad()
    def __call__(
        self, x: Float[Tensor, "R B D"], t: Float[Tensor, "R B"]
    ) -> Float[Tensor, "R B D"]:
        """Velocity at the next point of the path, without gradient."""
        if self._recorder is None:
            return self.field(x, t)
        return self._recorder(network_inputs(self.field.observations, x, t))

    def along(
        self, x: Float[Tensor, "K R B D"], t: Float[Tensor, "K R B"]
    ) -> Float[Tensor, "K R B D"]:
        """Velocities at all points of the path, with gradient to the field's parameters.

        Args:
            x: the path; its first points are those at which the field was called, in their order.
            t: their times.
        """
        if self._recorder is None:
            return self.field(x, t)
        for k in range(len(self._recorder), len(x)):
            self(x[k], t[k])
        return unfold_leading(self._recorder.values(), (len(x),))


def network_inputs(observations: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """``[observation, x, t]`` in every row of ``x``."""
    rows = x.shape[:-1]
    parts = (observations.expand(*rows, -1), x, t.expand(rows).unsqueeze(-1))
    return torch.cat(parts, dim=-1)

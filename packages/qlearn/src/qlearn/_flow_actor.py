"""A replicated network as the velocity field of a flow policy."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qlearn._networks import MLP
from qlearn._random import RandomStreams

__all__ = ["FlowActor"]


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
        rows = x.shape[:-1]
        inputs = (observations.expand(*rows, -1), x, t.expand(rows).unsqueeze(-1))
        velocity: Tensor = self.network(torch.cat(inputs, dim=-1))
        return velocity

    def field(self, observations: Float[Tensor, "R B O"]) -> Callable[[Tensor, Tensor], Tensor]:
        """The velocity field ``(x, t) -> v`` with the observations closed over."""
        return lambda x, t: self(observations, x, t)

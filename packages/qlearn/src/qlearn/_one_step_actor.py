"""A policy that turns noise into an action in one evaluation of a network."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from qlearn._networks import MLP, concatenate
from qlearn._random import RandomStreams

__all__ = ["OneStepActor"]


class OneStepActor(nn.Module):
    """Action ``mu(noise | observation)``, the one-step policy of FQL (arXiv 2502.02538).

    The network reads ``[observation, noise]`` and has no squashing at the end, so that it can match
    the end of a flow; the caller clips.

    Args:
        replicas: number of independent policies ``R``.
        observation_dim: size ``O`` of an observation.
        action_dim: size ``D`` of a flat action chunk, and of the noise.
        hidden: widths of the hidden layers.
        layer_norm: normalise after each hidden activation.
        streams: draws the initial parameters.
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
        self.network = MLP(
            replicas,
            observation_dim + action_dim,
            hidden,
            action_dim,
            layer_norm=layer_norm,
            streams=streams,
        )

    def forward(
        self, observations: Float[Tensor, "R B O"], noise: Float[Tensor, "*lead R B D"]
    ) -> Float[Tensor, "*lead R B D"]:
        """Action chunks, not clipped."""
        action: Tensor = self.network(concatenate((observations, noise)))
        return action

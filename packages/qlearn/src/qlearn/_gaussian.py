"""Gaussian policies squashed by tanh, with the log-probability that stays finite at the bounds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from qlearn._networks import MLP, concatenate
from qlearn._random import RandomStreams

__all__ = ["GaussianActor", "TanhGaussian"]

LOG_STD_RANGE = (-20.0, 2.0)
_INSIDE = 1.0 - 1e-5


@dataclass(frozen=True, slots=True)
class TanhGaussian:
    """Law of ``tanh(u)``, ``u`` normal with diagonal covariance.

    Attributes:
        mean: of ``u``, ``(*shape)`` with the action on the last axis.
        log_std: of ``u``, same shape.
    """

    mean: Float[Tensor, "*shape"]
    log_std: Float[Tensor, "*shape"]

    @property
    def std(self) -> Float[Tensor, "*shape"]:
        """Standard deviation of ``u``."""
        return self.log_std.exp()

    @property
    def mode(self) -> Float[Tensor, "*shape"]:
        """``tanh(mean)``, the action to play when no exploration is wanted."""
        return self.mean.tanh()

    def sample(
        self, noise: Float[Tensor, "*shape"]
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*batch"]]:
        """Reparameterised sample and its log-density.

        The density uses ``u`` itself, never an inverse of tanh, so it is finite where ``tanh(u)``
        rounds to 1: ``log(1 - tanh(u)**2) = 2 (log 2 - u - softplus(-2 u))`` (SAC,
        arXiv 1801.01290, appendix C). Gradients flow through ``u``, mean and log_std.

        Args:
            noise: standard normal numbers.

        Returns:
            Action in ``[-1, 1]`` and its log-density, summed over the last axis.
        """
        u = self.mean + self.std * noise
        return u.tanh(), self._log_density(u)

    def log_prob(self, actions: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """Log-density of given actions, summed over the last axis.

        Actions are clipped to 1 - 1e-5 on both sides first, as in the published RLPD code: at the
        bounds themselves the density is 0 or infinite.
        """
        return self._log_density(actions.clamp(-_INSIDE, _INSIDE).atanh())

    def _log_density(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        # (u - mean) / std is the noise of a sample, but dividing keeps the gradient's two paths.
        standardised = (u - self.mean) / self.std
        normal = -0.5 * standardised.square() - self.log_std - 0.5 * math.log(2.0 * math.pi)
        squash = 2.0 * (math.log(2.0) - u - functional.softplus(-2.0 * u))
        return (normal - squash).sum(-1)


class GaussianActor(nn.Module):
    """Policy network with a mean and a log-std head, one per replica, without LayerNorm.

    Both heads are one output layer: the first ``D`` columns are the mean, the others log_std,
    which is clamped to ``[-20, 2]``.

    Args:
        replicas: number of independent policies ``R``.
        in_dim: size of all inputs together.
        action_dim: size ``D`` of a flat action chunk.
        hidden: widths of the hidden layers.
        streams: draws the initial parameters.
    """

    def __init__(
        self,
        replicas: int,
        in_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        *,
        streams: RandomStreams,
    ) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.network = MLP(
            replicas, in_dim, hidden, 2 * action_dim, layer_norm=False, streams=streams
        )
        # Glorot bounds count the outputs of a layer, and each head is a layer of D outputs.
        fan_in = self.network.widths[-2]
        scale = math.sqrt((fan_in + 2 * action_dim) / (fan_in + action_dim))
        with torch.no_grad():
            self.network.kernels[-1].mul_(scale)

    def forward(self, *inputs: Float[Tensor, "..."]) -> TanhGaussian:
        """Law of the action given ``inputs (*lead, R, B, n_i)``, joined on the last axis."""
        mean, log_std = self.network(concatenate(inputs)).split(self.action_dim, dim=-1)
        return TanhGaussian(mean, log_std.clamp(*LOG_STD_RANGE))

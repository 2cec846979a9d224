"""The temperature that holds a stochastic policy's entropy at a target."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["EntropyTemperature"]


class EntropyTemperature(nn.Module):
    """A trained temperature ``alpha = exp(log_value)`` per replica (SAC, arXiv 1812.05905).

    Args:
        replicas: number of replicas ``R``.
        initial: temperature at the start.

    Attributes:
        log_value: ``(R,)``, logarithm of the temperature.

    Raises:
        ValueError: ``initial`` is not positive.
    """

    def __init__(self, replicas: int, initial: float = 1.0) -> None:
        super().__init__()
        if not initial > 0.0:
            raise ValueError(f"the initial temperature must be positive, got {initial}")
        self.log_value = nn.Parameter(torch.full((replicas,), math.log(initial)))

    def forward(self) -> Float[Tensor, "R"]:
        """The temperature, with gradient."""
        return self.log_value.exp()

    def loss(self, log_prob: Float[Tensor, "R B"], target: float) -> Float[Tensor, "R"]:
        """``alpha * (entropy - target)`` with the entropy ``-mean(log_prob)`` held fixed.

        It lowers the temperature where the policy is more random than the target.

        Args:
            log_prob: log-density of the policy's own samples.
            target: wanted entropy in nats.

        Returns:
            One loss per replica.
        """
        entropy = -log_prob.detach().mean(-1)
        alpha: Tensor = self()
        return alpha * (entropy - target)

"""Policies whose network predicts noise: diffusion policies, fine-tuned as the flows that they are.

Denoising diffusion, arXiv 2006.11239; diffusion policies, arXiv 2303.04137. The interpolant is the
variance-preserving one, ``alpha = sin(pi t/2)``, ``beta = cos(pi t/2)``, time as for flows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from bench.agents.networks import FlowPolicy
from flowsde import CosineInterpolant, Interpolant, LinearInterpolant
from qlearn import FlowField, RecordedField

__all__ = [
    "ActingPolicy",
    "DiffusionField",
    "PolicyField",
    "PolicyPrediction",
    "RecordedPolicy",
    "denoising_loss",
    "interpolant_of",
    "policy_field",
]

PolicyPrediction: TypeAlias = Literal["velocity", "noise"]

# Noise says nothing of the data at t=0, where alpha is 0: networks are asked and trained from here
# on, and what they say of the data here holds before, too.
FIRST_TIME = 0.05
_LINEAR, _COSINE = LinearInterpolant(), CosineInterpolant()


class RecordedPolicy(Protocol):
    """A field that remembers where it was evaluated; see :class:`qlearn.RecordedField`."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity at the next point of a path, without gradient."""

    def along(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocities along the path, with gradient."""


class PolicyField(Protocol):
    """The velocity field of a policy at given observations.

    It may have `record()`, the same field to be evaluated along a path first and differentiated
    there after (:class:`RecordedPolicy`), and `linearize`; see :class:`adjoint.LeanAdjoint`.
    """

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity at ``x (*lead, R, B, D)``, ``t (*lead, R, B)``."""


class ActingPolicy(Protocol):
    """Anything that has a velocity field at given observations."""

    def field(self, observations: Any) -> PolicyField:
        """The field ``(x, t) -> v``."""


def policy_field(
    actor: ActingPolicy, observations: Any, prediction: PolicyPrediction
) -> PolicyField:
    """The velocity field of a network that predicts velocities or noise.

    Raises:
        ValueError: noise is predicted by a module of the user's.
    """
    field = actor.field(observations)
    if prediction == "velocity":
        return field
    if not isinstance(field, FlowField):
        raise ValueError(
            "prediction=noise applies to the built-in networks; in your own module convert noise "
            "to a velocity, for instance by flowsde.to_velocity"
        )
    return DiffusionField(field)


def interpolant_of(prediction: PolicyPrediction) -> Interpolant:
    """Linear for flows, variance preserving for diffusion."""
    return _LINEAR if prediction == "velocity" else _COSINE


@dataclass(frozen=True, slots=True)
class DiffusionField:
    """Velocity of a noise prediction ``n``: ``v = alpha' x1hat + beta' n``.

    The data prediction is ``x1hat = (x - beta n)/alpha``, with ``n``, alpha and beta at
    ``max(t, 0.05)``. So ``v = a(t) x - b(t) n``.

    Attributes:
        network: the noise prediction, in the shape of a field.
    """

    network: FlowField

    def __call__(
        self, x: Float[Tensor, "*shape"], t: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*shape"]:
        """Velocity at ``x (*lead, R, B, D)``, ``t (*lead, R, B)``."""
        return _velocity(x, self.network(x, t.clamp(min=FIRST_TIME)), t)

    def linearize(
        self, x: Float[Tensor, "K R B D"], t: Float[Tensor, "K R B"]
    ) -> tuple[Float[Tensor, "K R B D"], Callable[[Tensor, int], Tensor]]:
        """Velocities at ``K`` points and their vector-Jacobian products in ``x``, detached."""
        noise, pullback = self.network.linearize(x, t.clamp(min=FIRST_TIME))
        of_x, of_noise = _weights(t)

        def pull(cotangent: Tensor, k: int) -> Tensor:
            return of_x[k] * cotangent - pullback(of_noise[k] * cotangent, k)

        return _velocity(x, noise, t), pull

    def record(self) -> "RecordedDiffusion":
        """The same field, to be evaluated along a path first and differentiated there after."""
        return RecordedDiffusion(self.network.record())


@dataclass(frozen=True, slots=True)
class RecordedDiffusion:
    """A :class:`DiffusionField` whose network remembers its evaluations.

    Attributes:
        network: the remembering noise prediction.
    """

    network: RecordedField

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity at the next point of a path, without gradient."""
        return _velocity(x, self.network(x, t.clamp(min=FIRST_TIME)), t)

    def along(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocities along the path, with gradient."""
        return _velocity(x, self.network.along(x, t.clamp(min=FIRST_TIME)), t)


def denoising_loss(
    actor: FlowPolicy,
    observations: Float[Tensor, "R B O"],
    actions: Float[Tensor, "R B D"],
    noise: Float[Tensor, "R B D"],
    uniform: Float[Tensor, "R B"],
) -> Float[Tensor, "R B"]:
    """``mean_D (n(alpha a + beta x_0, t) - x_0)^2`` at times from 0.05 to 1.

    Args:
        actor: network that predicts noise.
        observations: of the data.
        actions: of the data.
        noise: ``x_0``.
        uniform: numbers in [0, 1), spread over the times.
    """
    t = FIRST_TIME + (1.0 - FIRST_TIME) * uniform
    predicted = actor(observations, _COSINE.interpolate(noise, actions, t), t)
    losses: Tensor = (predicted - noise).square().mean(-1)
    return losses


def _weights(t: Tensor) -> tuple[Tensor, Tensor]:
    """``a`` and ``b`` of ``v = a x - b n``, with an axis for the components."""
    asked = t.clamp(min=FIRST_TIME)
    of_x = _COSINE.d_alpha(t) / _COSINE.alpha(asked)
    of_noise = of_x * _COSINE.beta(asked) - _COSINE.d_beta(t)
    return of_x.unsqueeze(-1), of_noise.unsqueeze(-1)


def _velocity(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    of_x, of_noise = _weights(t)
    return torch.addcmul(of_x * x, of_noise, noise, value=-1.0)

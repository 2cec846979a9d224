"""Interpolants between noise and data and the coefficients of their stochastic processes."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flowsde._field import check_same_shape, expand_time


class Interpolant(ABC):
    """The path `x_t = alpha(t) x_1 + beta(t) x_0` from noise x_0 (t=0) to data x_1 (t=1).

    `alpha` rises from 0 to 1 and `beta` falls from 1 to 0; both must be given by formulas that
    also hold one step outside of [0, 1], because the published discretisation shifts its times.
    `d_beta` may be infinite at t=1 (schedules with linear betas). So is the velocity then: kernels
    do not ask for it there, `velocity_field` stays away, and conversions are undefined.
    All coefficients map a tensor of times to a tensor of the same shape.

    The notation is that of Domingo-Enrich et al., "Adjoint Matching" (arXiv 2409.08861).
    """

    @abstractmethod
    def alpha(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Weight of the data."""

    @abstractmethod
    def beta(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Weight of the noise."""

    @abstractmethod
    def d_alpha(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Derivative of `alpha` in t."""

    @abstractmethod
    def d_beta(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Derivative of `beta` in t."""

    def wronskian(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """`alpha' beta - alpha beta'`, positive: the determinant of (x_1, x_0) -> (v, x)."""
        return self.d_alpha(t) * self.beta(t) - self.alpha(t) * self.d_beta(t)

    def kappa(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """`alpha'/alpha`, the pull of the memoryless drift; infinite at t=0."""
        return self.d_alpha(t) / self.alpha(t)

    def eta(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """`beta (kappa beta - beta')`, half the memoryless diffusion; infinite at t=0, 0 at 1."""
        # beta * wronskian / alpha is the same number, without inf - inf or inf * 0 at the ends.
        return self.beta(t) * self.wronskian(t) / self.alpha(t)

    def memoryless_noise(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """`g = sqrt(2 eta)`, the diffusion under which x_1 is independent of x_0."""
        return torch.sqrt(2.0 * self.eta(t))

    def time_of_ratio(self, ratio: float) -> float:
        """Time in [0, 1] at which `alpha/beta` has the given value; bisection to float64 precision.

        Raises:
            ValueError: If the ratio is negative or not a number.
        """
        if not ratio >= 0.0:
            raise ValueError(f"alpha/beta is never negative, got {ratio}")
        low, high = 0.0, 1.0
        while low < (middle := 0.5 * (low + high)) < high:
            t = torch.tensor(middle, dtype=torch.float64, device="cpu")
            if float(self.alpha(t)) < ratio * float(self.beta(t)):
                low = middle
            else:
                high = middle
        return high if ratio > 0.0 else 0.0

    def interpolate(
        self,
        x0: Float[Tensor, "*shape"],
        x1: Float[Tensor, "*shape"],
        t: Float[Tensor, "*batch"],
    ) -> Float[Tensor, "*shape"]:
        """Point `x_t` on the path from noise `x0` to data `x1`.

        Args:
            x0: Noise, (*batch, *event).
            x1: Data, (*batch, *event).
            t: Times, (*batch); trailing axes are added until it has the axes of `x1`.

        Returns:
            (*batch, *event), in the dtype of `x1`.

        Raises:
            ValueError: If noise and data differ in shape, or the times do not fit them.
        """
        check_same_shape("noise x0", x0, "data x1", x1)
        t = expand_time(t, x1)
        return (self.alpha(t) * x1 + self.beta(t) * x0).to(x1.dtype)

    def velocity(
        self,
        x0: Float[Tensor, "*shape"],
        x1: Float[Tensor, "*shape"],
        t: Float[Tensor, "*batch"],
    ) -> Float[Tensor, "*shape"]:
        """Time derivative of `interpolate`, the regression target of flow matching.

        Raises:
            ValueError: As in `interpolate`.
        """
        check_same_shape("noise x0", x0, "data x1", x1)
        t = expand_time(t, x1)
        return (self.d_alpha(t) * x1 + self.d_beta(t) * x0).to(x1.dtype)


@dataclass(frozen=True, slots=True)
class LinearInterpolant(Interpolant):
    """`alpha = t`, `beta = 1 - t`: straight paths (rectified flow, conditional OT)."""

    def alpha(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """`t`."""
        return t

    def beta(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """`1 - t`."""
        return 1.0 - t

    def d_alpha(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """One."""
        return torch.ones_like(t)

    def d_beta(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Minus one."""
        return -torch.ones_like(t)


@dataclass(frozen=True, slots=True)
class CosineInterpolant(Interpolant):
    """`alpha = sin(pi t/2)`, `beta = cos(pi t/2)`: variance preserving, alpha^2 + beta^2 = 1.

    The schedule of Nichol & Dhariwal (arXiv 2102.09672) without its offset, in flow time.
    """

    def alpha(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """`sin(pi t/2)`."""
        return torch.sin(0.5 * math.pi * t)

    def beta(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """`cos(pi t/2)`, as a sine so that it is exactly 0 at t=1 and never slightly negative."""
        return torch.sin(0.5 * math.pi * (1.0 - t))

    def d_alpha(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """`pi/2 cos(pi t/2)`."""
        return 0.5 * math.pi * self.beta(t)

    def d_beta(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """`-pi/2 sin(pi t/2)`."""
        return -0.5 * math.pi * self.alpha(t)


LINEAR = LinearInterpolant()


def checked_interpolant(value: Interpolant) -> Interpolant:
    """Return `value` if it is an interpolant.

    Raises:
        ValueError: If it is anything else: a name, a class, None.
    """
    if not isinstance(value, Interpolant):
        raise ValueError(
            f"interpolant must be an instance such as LinearInterpolant(), got {value!r}"
        )
    return value

"""Closed forms of the control problem for Gaussian data and a linear or quadratic reward."""

import math
from dataclasses import dataclass
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor

from trustregion._budget import check_budget

Coefficient = float | Float[Tensor, "*event"]


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """Data N(mean, std^2) and reward `Q(x) = slope x - curvature x^2/2`, elementwise.

    Every quantity of trust-region adjoint matching is known here, in any dimension: dimensions are
    independent, and KL and reward are sums over them. Number coefficients hold for samples of any
    size, which the problem does not know: `optimal_kl` and `optimal_lambda` count one dimension
    then, and give those of d dimensions for coefficients of shape (d,).
    Linear interpolant `x_t = t x_1 + (1-t) x_0`.
    Tilting by exp(Q/lambda) gives the Gaussian of precision `1/std^2 + curvature/lambda`.
    Derivations: docs/trustregion.md.

    Attributes:
        mean: Mean of the data, a number or (*event).
        std: Standard deviation of the data, positive, a number or (*event).
        slope: c, a number or (*event).
        curvature: q >= 0, a number or (*event); 0 is the linear case.
        event_ndim: Number of trailing axes that make up one sample.

    Raises:
        ValueError: If a number is out of range.
    """

    mean: Coefficient = 0.0
    std: Coefficient = 1.0
    slope: Coefficient = 1.0
    curvature: Coefficient = 0.0
    event_ndim: int = 1

    def __post_init__(self) -> None:
        for name in ("mean", "std", "slope", "curvature"):
            value = getattr(self, name)
            if not isinstance(value, Real | Tensor) or not _all(
                torch.isfinite(torch.as_tensor(value))
            ):
                raise ValueError(f"{name} must be a finite number or tensor, got {value!r}")
        if not _all(torch.as_tensor(self.std) > 0.0):
            raise ValueError(f"std must be positive, got {self.std}")
        if not _all(torch.as_tensor(self.curvature) >= 0.0):
            raise ValueError(f"curvature must not be negative, got {self.curvature}")
        if not isinstance(self.event_ndim, int) or self.event_ndim < 0:
            raise ValueError(f"event_ndim must be an integer of at least 0, got {self.event_ndim}")

    def reward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        """`Q(x)`, summed over the event axes, (*batch,)."""
        return self._event_sum(self.slope * x - 0.5 * self.curvature * x.square())

    def reward_gradient(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """`dQ/dx = c - q x`; the terminal adjoint is minus this."""
        return self.slope - self.curvature * x

    def marginal_variance(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """`V(t) = t^2 std^2 + (1-t)^2`, the variance of x_t of flow and memoryless SDE alike."""
        return t.square() * self.std**2 + (1.0 - t).square()

    def velocity(
        self, x: Float[Tensor, "*shape"], t: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*shape"]:
        """Base velocity `m + (t s^2 - (1-t))/V (x - t m)`; a `flowsde.VelocityField`."""
        return _gaussian_velocity(x, self._over_event(t), self.mean, self.std)

    def tilted_mean(self, lam: float | Tensor) -> Coefficient:
        """Mean of the tilted law, `(m + s^2 c/lambda)/(1 + s^2 q/lambda)`."""
        sharpening = self._sharpening(lam)
        return (self.mean + self.std**2 * self.slope / lam) / sharpening

    def tilted_std(self, lam: float | Tensor) -> Coefficient:
        """Standard deviation of the tilted law, `s/sqrt(1 + s^2 q/lambda)`."""
        return self.std / self._sharpening(lam) ** 0.5

    def optimal_velocity(
        self, x: Float[Tensor, "*shape"], t: Float[Tensor, "*batch"], lam: float
    ) -> Float[Tensor, "*shape"]:
        """Velocity whose memoryless SDE ends in the tilted law.

        For linear Q it is the base velocity plus `(s^2 c/lambda) (1-t)/V`.
        """
        return _gaussian_velocity(
            x, self._over_event(t), self.tilted_mean(lam), self.tilted_std(lam)
        )

    def adjoint(
        self, terminal: Float[Tensor, "*shape"], t: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*shape"]:
        """Lean adjoint at t of a path that ends with `terminal`: `a(t) = (s^2 t/V) a(1)`."""
        t = self._over_event(t)
        return self.std**2 * t / self.marginal_variance(t) * terminal

    def optimal_kl(self, lam: float | Tensor) -> Float[Tensor, ""]:
        """`KL*(lambda)`, endpoint and path KL of the optimum; linear Q: `sum s^2 c^2/(2 lambda^2)`.

        Sums over the event axes of the coefficients, so a problem with number coefficients counts
        as one dimension. In nats, float64.

        Raises:
            ValueError: If `lam` is a number that is not positive.
        """
        sharpening = _double(self._sharpening(lam))
        shift = _double((self.tilted_mean(lam) - self.mean) / self.std)
        return 0.5 * (1.0 / sharpening + shift.square() - 1.0 + torch.log(sharpening)).sum()

    def optimal_lambda(self, budget: float) -> float:
        """Lambda at which `optimal_kl` is the budget; linear Q: `sqrt(sum s^2 c^2/(2 budget))`.

        Raises:
            ValueError: If the budget is not positive, or no lambda above 1e-12 spends it.
        """
        check_budget("budget", budget)
        low, high = 1e-12, 1e12
        if not float(self.optimal_kl(low)) > budget:
            raise ValueError(
                f"no lambda above {low} has a KL of {budget} nats: the reward is constant, or too "
                "flat for this budget; give a slope or a smaller budget"
            )
        for _ in range(200):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if float(self.optimal_kl(middle)) > budget else (low, middle)
        return math.sqrt(low * high)

    def _sharpening(self, lam: float | Tensor) -> Coefficient:
        """Precision of the tilted law relative to that of the data."""
        if not isinstance(lam, Tensor) and not lam > 0.0:
            raise ValueError(f"lam must be positive, got {lam}")
        return 1.0 + self.std**2 * self.curvature / lam

    def _over_event(self, t: Tensor) -> Tensor:
        return t.reshape(t.shape + (1,) * self.event_ndim)

    def _event_sum(self, x: Tensor) -> Tensor:
        axes = tuple(range(-self.event_ndim, 0))
        return x.sum(axes) if axes else x


def _gaussian_velocity(x: Tensor, t: Tensor, mean: Coefficient, std: Coefficient) -> Tensor:
    variance = t.square() * std**2 + (1.0 - t).square()
    return mean + (t * std**2 - (1.0 - t)) / variance * (x - t * mean)


def _double(value: Coefficient) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def _all(condition: Tensor) -> bool:
    return bool(condition.all())

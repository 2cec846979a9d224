"""Closed forms of the linear-Gaussian case, and chains propagated exactly instead of sampled."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from flowsde import (
    Interpolant,
    LinearInterpolant,
    Path,
    TransitionKernel,
    VelocityField,
    sample_path,
    velocities_along,
)

torch.set_num_threads(1)


@dataclass(frozen=True)
class Gaussian:
    """Data N(mean, std^2) per event entry, and the exact velocity of its flow."""

    mean: float | Tensor
    std: float | Tensor
    interpolant: Interpolant = LinearInterpolant()  # noqa: RUF009 - immutable

    def marginal_variance(self, t: Tensor) -> Tensor:
        path = self.interpolant
        return path.alpha(t) ** 2 * self.std**2 + path.beta(t) ** 2

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        path = self.interpolant
        t = t.reshape(t.shape + (1,) * (x.ndim - t.ndim))
        rate = path.alpha(t) * path.d_alpha(t) * self.std**2 + path.beta(t) * path.d_beta(t)
        centred = x - path.alpha(t) * self.mean
        return path.d_alpha(t) * self.mean + rate / self.marginal_variance(t) * centred


@dataclass(frozen=True)
class ChainLaw:
    """Law of the states of a chain with an affine velocity: exact up to rounding."""

    means: list[float]
    stds: list[float]
    memory: float  # correlation of the start noise and the sample


def propagate(kernel: TransitionKernel, velocity: VelocityField) -> ChainLaw:
    """Mean and spread of a one-dimensional chain; an affine map is known from two points."""
    mean, variance, slope = 0.0, 1.0, 1.0
    means, stds = [mean], [1.0]
    points = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    for k in range(kernel.steps):
        x = kernel.inputs(points, k)
        v = velocity(x, torch.full((2,), kernel.times[k], dtype=torch.float64))
        offset, end = kernel.sampled_mean(points, v, k)[:, 0].tolist()
        factor = end - offset
        mean, slope = offset + factor * mean, slope * factor
        variance = factor**2 * variance + float(kernel.noise_stds[k]) ** 2
        means.append(mean)
        stds.append(variance**0.5)
    return ChainLaw(means, stds, slope / stds[-1])


@pytest.fixture(scope="session")
def gaussian() -> type[Gaussian]:
    return Gaussian


@pytest.fixture(scope="session")
def chain_law() -> Callable[[TransitionKernel, VelocityField], ChainLaw]:
    return propagate


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20260)


@dataclass(frozen=True)
class AffineChain:
    """A one-dimensional chain under an affine velocity, as a function of all its noise.

    Works for kernels of any memory: the path is affine in (x_0, eps_0 .. eps_{K-1}), so it is
    known from K+2 paths.
    """

    kernel: TransitionKernel
    path: Path

    @classmethod
    def under(cls, kernel: TransitionKernel, velocity: VelocityField) -> "AffineChain":
        size = kernel.steps + 2
        noise = torch.eye(size, dtype=torch.float64)[1:].unsqueeze(-1)
        return cls(kernel, sample_path(kernel, velocity, noise[0], noise[1:]))

    def mean(self, values: Tensor) -> Tensor:
        """Mean of anything affine along the path, (..., K+2, 1) -> (...)."""
        return values[..., 0, 0]

    def variance(self, values: Tensor) -> Tensor:
        """Variance likewise."""
        return (values[..., 1:, 0] - values[..., :1, 0]).square().sum(-1)

    @property
    def end(self) -> tuple[float, float]:
        """Mean and standard deviation of the sample."""
        sample = self.path.sample
        return float(self.mean(sample)), float(self.variance(sample)) ** 0.5

    @property
    def memory(self) -> float:
        """Derivative of the sample in the start noise."""
        return float(self.path.sample[1, 0] - self.path.sample[0, 0])

    def path_kl(self, fine: VelocityField, base: VelocityField) -> float:
        """Expectation of `sum gain^2/(2 std^2) dv^2`; `fine` is the field that made the chain."""
        change = velocities_along(self.kernel, fine, self.path) - velocities_along(
            self.kernel, base, self.path
        )
        squares = self.mean(change).square() + self.variance(change)
        ratios = zip(self.kernel.gains, self.kernel.stds, strict=True)
        weights = torch.tensor([0.5 * (float(g) / float(s)) ** 2 for g, s in ratios])
        return float((weights.double() * squares).sum())


@pytest.fixture(scope="session")
def affine_chain() -> Callable[[TransitionKernel, VelocityField], AffineChain]:
    return AffineChain.under

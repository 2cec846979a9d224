"""Closed forms of the linear-Gaussian case, and chains propagated exactly instead of sampled."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from flowsde import Interpolant, LinearInterpolant, TransitionKernel, VelocityField

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

"""Memoryless noise, path KL and lean adjoint of every interpolant against Gaussian closed forms."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adjoint import lean_adjoint
from flowsde import (
    AdamsBashforthKernel,
    CosineInterpolant,
    FollmerKernel,
    Interpolant,
    LinearInterpolant,
    MemorylessEuler,
    TransitionKernel,
    sample_path,
)


@dataclass(frozen=True)
class BentInterpolant(Interpolant):
    """`alpha = t (3 - t)/2`, `beta = (1 - t)(2 + t)/2`: neither linear nor variance preserving."""

    def alpha(self, t: Tensor) -> Tensor:
        return 0.5 * t * (3.0 - t)

    def beta(self, t: Tensor) -> Tensor:
        return 0.5 * (1.0 - t) * (2.0 + t)

    def d_alpha(self, t: Tensor) -> Tensor:
        return 1.5 - t

    def d_beta(self, t: Tensor) -> Tensor:
        return -0.5 - t


INTERPOLANTS = [LinearInterpolant(), CosineInterpolant(), BentInterpolant()]
KERNELS: dict[str, Callable[[int, Interpolant], TransitionKernel]] = {
    "euler": lambda steps, path: MemorylessEuler(steps, interpolant=path),
    "euler consistent": lambda steps, path: MemorylessEuler(
        steps, interpolant=path, adjoint_time="consistent"
    ),
    "follmer": lambda steps, path: FollmerKernel(steps, scale=0.8, interpolant=path),
    "adams bashforth": lambda steps, path: AdamsBashforthKernel(steps, interpolant=path),
}
ORDERS = {"euler": (0.8, 1.3), "euler consistent": (0.8, 1.3), "follmer": (0.8, 1.3)}
ORDERS["adams bashforth"] = (1.4, 2.5)


def adjoint_factor(path: Interpolant, t: Tensor, std: float) -> Tensor:
    """`a(t)/a(1) = alpha std^2/V(t)` of data N(m, std^2)."""
    variance = (path.alpha(t) * std) ** 2 + path.beta(t) ** 2
    return path.alpha(t) * std**2 / variance


@pytest.mark.parametrize("path", INTERPOLANTS)
@given(t=st.floats(0.01, 0.99), std=st.floats(0.1, 3.0), x=st.floats(-3.0, 3.0))
@settings(max_examples=40, deadline=None)
def test_optimal_control_is_minus_noise_times_adjoint(
    path: Interpolant, t: float, std: float, x: float, gaussian
) -> None:
    """`2 dv/g = -g a/lambda` for a shift of the data, the identity that memoryless noise is for."""
    time, point = torch.tensor([t]).double(), torch.tensor([[x]]).double()
    slope, lam = 0.9, 0.6
    base = gaussian(0.3, std, path)
    fine = gaussian(0.3 + std**2 * slope / lam, std, path)
    dv = fine.velocity(point, time) - base.velocity(point, time)
    g = path.memoryless_noise(time)
    adjoint = -slope * adjoint_factor(path, time, std)
    assert float(2.0 * dv / g) == pytest.approx(float(-g * adjoint / lam), rel=1e-9)


@pytest.mark.parametrize("path", INTERPOLANTS)
@given(t=st.floats(0.02, 0.98), std=st.floats(0.1, 3.0))
@settings(max_examples=20, deadline=None)
def test_adjoint_solves_its_equation(path: Interpolant, t: float, std: float, gaussian) -> None:
    """`da/dt = -(d/dx [2 v - kappa x]) a` with the closed form, by autograd in t."""
    time = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    factor = adjoint_factor(path, time, std)
    (rate,) = torch.autograd.grad(factor, time)
    points = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    v = gaussian(0.0, std, path).velocity(points, time.detach().expand(2))
    jacobian = 2.0 * (v[1, 0] - v[0, 0]) - path.kappa(time.detach())
    expected = float(-jacobian * factor.detach())
    assert float(rate) == pytest.approx(expected, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("path", INTERPOLANTS)
@pytest.mark.parametrize("name", KERNELS)
def test_path_kl_converges_to_that_of_the_laws(
    name: str, path: Interpolant, gaussian, affine_chain
) -> None:
    base, fine, errors = gaussian(0.2, 0.5, path), gaussian(0.9, 0.4, path), []
    exact = math.log(0.5 / 0.4) + (0.4**2 + 0.7**2) / (2.0 * 0.5**2) - 0.5
    for steps in (40, 80, 160):
        chain = affine_chain(KERNELS[name](steps, path), fine.velocity)
        errors.append(abs(chain.path_kl(fine.velocity, base.velocity) / exact - 1.0))
    low, high = ORDERS[name]
    assert errors[-1] < 0.05
    for before, after in itertools.pairwise(errors):
        assert low < math.log2(before / after) < high, errors


@pytest.mark.parametrize("path", INTERPOLANTS)
@pytest.mark.parametrize("name", KERNELS)
def test_lean_adjoint_converges_to_the_closed_form(name: str, path: Interpolant, gaussian) -> None:
    data, errors = gaussian(0.3, 0.5, path), []
    for steps in (40, 80, 160):
        kernel = KERNELS[name](steps, path)
        noise = torch.zeros(steps + 1, 1, 1, dtype=torch.float64)
        sampled = sample_path(kernel, data.velocity, noise[0], noise[1:])
        adjoints = lean_adjoint(kernel, data.velocity, sampled, torch.ones_like(noise[0]))
        t = torch.tensor(kernel.times, dtype=torch.float64)
        if name == "adams bashforth":
            # In units of Y = x alpha/beta^2, and interpolated to the time of the control.
            found = kernel.control_adjoints(adjoints)[:, 0, 0]
            unit = path.beta(t) ** 2 / path.alpha(t)
        else:
            found = adjoints[:-1, 0, 0]
            unit = torch.tensor(kernel.coefficients.input_scales, dtype=torch.float64)
        inside = (t > 0.2) & (t < 0.9)
        exact = (unit * adjoint_factor(path, t, 0.5))[inside]
        errors.append(float((found[inside] / exact - 1.0).abs().max()))
    if name == "follmer":
        assert max(errors) < 1e-10
        return
    low, high = ORDERS[name]
    assert errors[-1] < 0.05
    for before, after in itertools.pairwise(errors):
        assert low - 0.1 < math.log2(before / after) < high, errors

"""Adjoint and regression of the two-step kernel: derivative of the chain, and their fixed point."""

import itertools
import math

import pytest
import torch

from adjoint import lean_adjoint, matching_loss
from flowsde import (
    AdamsBashforthKernel,
    CosineInterpolant,
    FollmerKernel,
    LinearInterpolant,
    MemorylessEuler,
    sample_path,
)
from trustregion import path_kl

SCALES = (0.1, 0.2, 0.45, 1.0)


def bent(x, t):
    """A nonlinear field that couples the dimensions."""
    return torch.sin(2.0 * x) * x.roll(1, -1) - t[..., None] * x


def test_adjoint_is_the_derivative_of_the_end_with_the_rest_of_the_history_fixed():
    kernel = AdamsBashforthKernel(6)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    path = sample_path(kernel, bent, noise, generator=generator)
    weights = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64).expand(4, 3)
    adjoints = lean_adjoint(kernel, bent, path, weights)

    def velocity(state, k):
        return bent(state, state.new_full((4,), kernel.times[k]))

    for first in range(kernel.steps):
        start = path.states[first].clone().requires_grad_()
        state, previous = start, None
        if first > 0:
            before = path.states[first - 1]
            previous = (before, velocity(before, first - 1))
        for k in range(first, kernel.steps):
            v = velocity(state, k)
            mean = kernel.mean(state, v, k, previous)
            previous, state = (state, v), mean + (path.states[k + 1] - mean.detach())
        (expected,) = torch.autograd.grad((state * weights).sum(), start)
        torch.testing.assert_close(adjoints[first], expected, rtol=1e-10, atol=1e-12)


def gaussian_velocity(path, std):
    """Velocity of data N(0, std^2) under any interpolant."""

    def velocity(x, t):
        a, b, da, db = (f(t)[..., None] for f in (path.alpha, path.beta, path.d_alpha, path.d_beta))
        return (a * da * std**2 + b * db) / (a**2 * std**2 + b**2) * x

    return velocity


def regressed(kernel, std):
    """Shift and path KL, relative to exact, where the regression on its own adjoint ends.

    Data N(0, std^2) and reward x/std at lambda 1, whose optimum is a shift by std: the adjoint does
    not depend on the path, so the minimum of the matching loss is a function of time alone.
    """
    field = gaussian_velocity(kernel.interpolant, std)
    still = torch.zeros(1, 1, dtype=torch.float64)
    noise = torch.zeros(kernel.steps, 1, 1, dtype=torch.float64)
    path = sample_path(kernel, field, still, noise)
    adjoints = lean_adjoint(kernel, field, path, torch.full_like(still, -1.0 / std))
    change = torch.zeros_like(noise, requires_grad=True)
    # The loss is quadratic and separate in time: one Newton step ends in its minimum.
    loss = matching_loss(kernel, change, torch.zeros_like(noise), adjoints).sum()
    (slope,) = torch.autograd.grad(loss, change, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), change)
    control = (-slope / curvature).detach()
    calls = itertools.count()

    def fine(x, t):
        return field(x, t) + control[next(calls)]

    shifted = sample_path(kernel, fine, still, noise).sample
    kl = path_kl(kernel, control, torch.zeros_like(control))
    return float(shifted - path.sample) / std, float(kl) / 0.5


@pytest.mark.parametrize("path", [LinearInterpolant(), CosineInterpolant()])
@pytest.mark.parametrize("std", SCALES)
def test_ten_steps_end_within_three_and_five_percent_of_the_optimum(path, std):
    """The tilted law that fine-tuning by adjoint matching aims for, over a tenfold range."""
    shift, kl = regressed(AdamsBashforthKernel(10, interpolant=path), std)
    assert 1.005 < shift < 1.03
    assert 1.005 < kl < 1.05


def test_the_first_order_kernels_end_far_from_it():
    shift, kl = regressed(MemorylessEuler(10), 1.0)
    assert 1.15 < shift < 1.3
    assert 1.15 < kl < 1.3
    for std, worse in ((0.1, 2.0), (0.316, 1.35)):
        assert regressed(FollmerKernel(10), std)[0] > worse
        assert regressed(MemorylessEuler(10), std)[0] > 1.4


def test_the_fixed_point_converges_at_second_order():
    errors = []
    for steps in (20, 40, 80, 160):
        shift, kl = regressed(AdamsBashforthKernel(steps), 0.3)
        errors.append((shift - 1.0, kl - 1.0))
    for column in zip(*errors, strict=True):
        slopes = [math.log2(a / b) for a, b in itertools.pairwise(column)]
        # log(K)/K is the step: the slopes rise towards 2 from below.
        assert all(1.3 < slope < 2.3 for slope in slopes), slopes

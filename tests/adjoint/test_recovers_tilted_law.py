"""Adjoint matching, trained, ends in the tilted law of the linear-Gaussian problem."""

import pytest
import torch
from torch import nn

from adjoint import lean_adjoint, matching_loss, terminal_gradient
from flowsde import FollmerKernel, MemorylessEuler, sample_path, velocities_along
from trustregion import LinearGaussian


class AffineField(nn.Module):
    """Base velocity plus `scale_k x + shift_k`, with a scale and a shift per network time."""

    def __init__(self, base, steps, dimensions):
        super().__init__()
        self.base, self.steps = base, steps
        self.scale = nn.Parameter(torch.zeros(steps, dimensions, dtype=torch.float64))
        self.shift = nn.Parameter(torch.zeros(steps, dimensions, dtype=torch.float64))

    def forward(self, x, t):
        k = (t * self.steps).round().long()
        return self.base(x, t) + self.scale[k] * x + self.shift[k]


def trained(problem, kernel, lam, updates=120, batch=64):
    generator = torch.Generator().manual_seed(0)
    field = AffineField(problem.velocity, kernel.steps, 2)
    optimiser = torch.optim.Adam(field.parameters(), lr=0.1)
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, updates)
    for _ in range(updates):
        noise = torch.randn((batch, 2), generator=generator, dtype=torch.float64)
        with torch.no_grad():
            path = sample_path(kernel, field, noise, generator=generator)
            base = velocities_along(kernel, problem.velocity, path)
        terminal = -terminal_gradient(problem.reward, path.sample)
        adjoints = lean_adjoint(kernel, problem.velocity, path, terminal)
        loss = matching_loss(kernel, velocities_along(kernel, field, path), base, adjoints, lam)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
        decay.step()
    return field


@torch.no_grad()
def end_of(kernel, velocity, count=20_000):
    noise = torch.randn((count, 2), generator=torch.Generator().manual_seed(1)).double()
    sample = sample_path(kernel, velocity, noise, generator=torch.Generator().manual_seed(2)).sample
    return sample.mean(0), sample.std(0)


PROBLEMS = {
    "linear": LinearGaussian(
        mean=torch.tensor([0.3, -0.5]).double(),
        std=torch.tensor([0.5, 1.0]).double(),
        slope=torch.tensor([1.0, -0.8]).double(),
    ),
    "quadratic": LinearGaussian(
        mean=torch.tensor([0.3, -0.5]).double(),
        std=torch.tensor([0.5, 1.0]).double(),
        slope=torch.tensor([2.0, 0.4]).double(),
        curvature=torch.tensor([2.0, 1.0]).double(),
    ),
}


# Limits of |shift/exact - 1| and |std/exact - 1|. The Brownian kernel is exact for the linear
# reward at any number of steps (sampling error of 20,000 draws remains); Euler errs at first order.
CASES = {
    "linear, exact kernel": (
        "linear",
        FollmerKernel(10, scale=PROBLEMS["linear"].std),
        0.015,
        0.02,
    ),
    "quadratic, exact kernel": (
        "quadratic",
        FollmerKernel(10, scale=PROBLEMS["quadratic"].std),
        0.03,
        0.10,
    ),
    "linear, published kernel": ("linear", MemorylessEuler(20), 0.25, 0.10),
    "quadratic, published kernel": ("quadratic", MemorylessEuler(20), 0.15, 0.08),
}


@pytest.mark.parametrize("case", CASES)
def test_mean_and_spread_of_the_tilted_law(case):
    name, kernel, shift_limit, std_limit = CASES[case]
    problem, lam = PROBLEMS[name], 0.6
    field = trained(problem, kernel, lam)
    mean, std = end_of(kernel, field)
    # Same noise, so the mean's sampling error cancels and only the shift is measured.
    before, _ = end_of(kernel, problem.velocity)
    shift = problem.tilted_mean(lam) - problem.mean
    assert torch.all(shift.abs() > 0.3)
    torch.testing.assert_close(
        (mean - before) / shift, torch.ones(2).double(), rtol=0, atol=shift_limit
    )
    torch.testing.assert_close(
        std / problem.tilted_std(lam), torch.ones(2).double(), rtol=0, atol=std_limit
    )

"""Grids that are not uniform: the same closed forms and orders of convergence as on equal steps."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowsde import (
    AdamsBashforthKernel,
    BridgeKernel,
    CosineInterpolant,
    FollmerKernel,
    LinearInterpolant,
    MemorylessEuler,
    OdeMethod,
    TransitionKernel,
    ode_log_prob,
    ode_sample,
    ode_sample_log_prob,
    time_grid,
)


def shifted(steps: int, shift: float = 3.0) -> list[float]:
    """Sigmas of a flow-matching schedule with a static shift, as SD3 has them; noise first."""
    even = [1.0 - k / steps for k in range(steps + 1)]
    return [shift * sigma / (1.0 + (shift - 1.0) * sigma) for sigma in even]


def in_log_ratio(steps: int, bend: float) -> list[float]:
    """Times whose steps in log(alpha/beta) vary smoothly by the factor (1 + bend)/(1 - bend)."""
    wide, narrow = math.log(1.0 / steps), math.log(100.0 * steps)
    even = [k / (steps - 2) for k in range(steps - 1)]
    bent = [u + bend * math.sin(2.0 * math.pi * u) / (2.0 * math.pi) for u in even]
    ratios = [math.exp(0.5 * (wide + (narrow - wide) * u)) for u in bent]
    return [0.0, *(ratio / (1.0 + ratio) for ratio in ratios)]


def orders(errors: list[float]) -> list[float]:
    return [math.log2(abs(one) / abs(half)) for one, half in itertools.pairwise(errors)]


def test_sigmas_are_taken_as_they_are() -> None:
    sigmas = torch.tensor(shifted(4))
    assert time_grid(sigmas) == pytest.approx([0.0, 0.1, 0.25, 0.5, 1.0])
    assert time_grid(time_grid(sigmas)) == time_grid(sigmas)
    kernel = MemorylessEuler(grid=sigmas)
    assert (kernel.steps, kernel.times) == (4, time_grid(sigmas)[:-1])
    # The last point may be left out of a chain, which ends in data anyway.
    assert FollmerKernel(4, grid=sigmas[:-1]).times == kernel.times


@given(st.integers(3, 30))
def test_equal_steps_are_the_default(steps: int) -> None:
    even = [k / steps for k in range(steps + 1)]
    one, other = MemorylessEuler(steps), MemorylessEuler(grid=even)
    for name in ("times", "adjoint_times", "decays", "gains", "stds", "noise_stds"):
        default = [float(value) for value in getattr(one.coefficients, name)]
        assert getattr(other.coefficients, name) == pytest.approx(default, rel=1e-9, abs=1e-12)
    assert FollmerKernel(grid=even).gains == pytest.approx(FollmerKernel(steps).gains)
    for at in ("ends", "midpoints"):
        bridge, same = BridgeKernel(steps, at=at), BridgeKernel(grid=even, at=at)
        assert same.times == pytest.approx(bridge.times)
        assert same.gains == pytest.approx(bridge.gains)
        assert same.stds == pytest.approx(bridge.stds)
    usual = AdamsBashforthKernel(steps)
    again = AdamsBashforthKernel(grid=usual.times)
    assert again.gains == pytest.approx(usual.gains, rel=1e-6)
    assert again.coefficients.decays == pytest.approx(usual.coefficients.decays, rel=1e-6, abs=1e-9)
    assert again.noise_stds == pytest.approx(usual.noise_stds, rel=1e-6)


def test_the_ode_takes_the_steps_of_a_shifted_scheduler(gaussian, generator) -> None:
    data, sigmas = gaussian(0.0, 0.5), shifted(8)
    noise = torch.randn(64, 2, dtype=torch.float64, generator=generator)
    x = noise
    for sigma, later in itertools.pairwise(sigmas):
        predicted = -data.velocity(x, torch.full((64,), 1.0 - sigma, dtype=torch.float64))
        x = x + (later - sigma) * predicted  # FlowMatchEulerDiscreteScheduler.step
    ours = ode_sample(data.velocity, noise, times=torch.tensor(sigmas, dtype=torch.float64))
    torch.testing.assert_close(ours, x, rtol=1e-12, atol=1e-12)
    assert (ode_sample(data.velocity, noise, 8) - x).abs().max() > 0.1


@pytest.mark.parametrize(("method", "order"), [("euler", 1.0), ("midpoint", 2.0), ("heun", 2.0)])
def test_orders_of_the_ode_on_a_shifted_grid(method: OdeMethod, order: float) -> None:
    start = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)[:, None]
    end = torch.sigmoid(torch.logit(start) + 1.0)  # of the logistic equation dx/dt = x (1 - x)
    there, back = [], []
    for steps in (50, 100, 200):
        grid = shifted(steps)
        sample = ode_sample(lambda x, t: x * (1.0 - x), start, steps, method, times=grid)
        there.append(float((sample - end).abs().max()))
        start_again = ode_sample(
            lambda x, t: x * (1.0 - x), end, None, method, t0=1.0, t1=0.0, times=grid
        )
        back.append(float((start_again - start).abs().max()))
    assert orders(there) == pytest.approx([order] * 2, abs=0.1)
    assert orders(back) == pytest.approx([order] * 2, abs=0.1)


def test_the_density_on_a_shifted_grid(gaussian) -> None:
    data = gaussian(0.7, 0.4)
    x = torch.linspace(-0.5, 1.9, 7, dtype=torch.float64)[:, None]
    exact = torch.distributions.Normal(x.new_tensor(0.7), x.new_tensor(0.4)).log_prob(x)[:, 0]
    errors = [
        float((ode_log_prob(data.velocity, x, times=shifted(k)).log_prob - exact).abs().max())
        for k in (20, 40, 80)
    ]
    # Of order 2, reached from above.
    assert all(1.9 < order < 2.8 for order in orders(errors))
    assert errors[2] < 2e-4
    there = ode_sample_log_prob(data.velocity, (x - 0.7) / 0.4, times=shifted(80))
    torch.testing.assert_close(there.sample, x, rtol=0.0, atol=1e-3)
    torch.testing.assert_close(there.log_prob, exact, rtol=0.0, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "order"),
    [
        (lambda k: MemorylessEuler(grid=shifted(k)), 1.0),
        (lambda k: FollmerKernel(grid=shifted(k), scale=1.0), 1.0),
    ],
    ids=["euler", "follmer"],
)
def test_orders_of_one_step_kernels_on_a_shifted_grid(
    make: Callable[[int], TransitionKernel], order: float, gaussian, affine_chain
) -> None:
    base, fine = gaussian(0.0, 0.5).velocity, gaussian(0.3, 0.5).velocity
    stds, kls = [], []
    for steps in (80, 160, 320):
        chain = affine_chain(make(steps), fine)
        stds.append(chain.end[1] / 0.5 - 1.0)
        kls.append(chain.path_kl(fine, base) / (0.5 * (0.3 / 0.5) ** 2) - 1.0)
        assert abs(chain.end[0] / 0.3 - 1.0) < 4.0 / steps
    # Euler's order rises from 0.7 at these steps, as on equal ones.
    assert all(0.65 < found < order + 0.1 for found in orders(stds))
    assert all(0.65 < found < order + 0.1 for found in orders(kls))


@pytest.mark.parametrize("path", [LinearInterpolant(), CosineInterpolant()])
def test_follmer_is_exact_at_its_scale_on_any_grid(path, gaussian, chain_law) -> None:
    kernel = FollmerKernel(grid=shifted(5), scale=0.4, interpolant=path)
    law = chain_law(kernel, gaussian(0.7, 0.4, path).velocity)
    assert (law.means[-1], law.stds[-1]) == pytest.approx((0.7, 0.4))
    assert law.memory == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("at", "order"), [("ends", 1.0), ("midpoints", 2.0)])
def test_the_path_kl_on_noised_samples_converges_on_a_shifted_grid(at, order, gaussian) -> None:
    # Of two Gaussians of equal spread the velocities differ by the same amount everywhere.
    base, fine, x = (
        gaussian(0.0, 0.5).velocity,
        gaussian(0.3, 0.5).velocity,
        torch.zeros(1).double(),
    )
    errors = []
    for steps in (20, 40, 80):
        kernel = BridgeKernel(grid=torch.tensor(shifted(steps), dtype=torch.float64), at=at)
        t = torch.tensor(kernel.times, dtype=torch.float64)
        change = torch.stack([fine(x, time) - base(x, time) for time in t])[:, 0]
        weights = torch.tensor(kernel.gains).double() / torch.tensor(kernel.stds).double()
        errors.append(float(0.5 * (weights * change).square().sum() / 0.18) - 1.0)
    # Of first order like Euler's kernel, from below at these steps.
    assert all(order - 0.35 < found < order + 0.25 for found in orders(errors))
    assert abs(errors[-1]) < (0.1 if order == 1.0 else 2e-3)


@pytest.mark.parametrize("bend", [0.3, 0.6])
def test_two_step_kernels_are_of_second_order_on_smooth_grids(
    bend: float, gaussian, affine_chain
) -> None:
    for std in (0.15, 0.5, 1.0):
        base, fine = gaussian(0.0, std).velocity, gaussian(0.6 * std, std).velocity
        stds, kls = [], []
        for steps in (20, 40, 80):
            chain = affine_chain(AdamsBashforthKernel(grid=in_log_ratio(steps, bend)), fine)
            stds.append(abs(chain.end[1] / std - 1.0))
            kls.append(abs(chain.path_kl(fine, base) / 0.18 - 1.0))
            assert chain.end[0] == pytest.approx(0.6 * std)
            assert abs(chain.memory) < 1e-12
        assert stds[0] < 0.02
        assert kls[0] < 0.03
        # The step shrinks like log(K)/K.
        assert stds[0] / stds[2] > 8.0
        assert kls[0] / kls[2] > 5.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0], "at least two numbers"),
        ([], "at least two numbers"),
        ([0.0, 0.5, 0.5, 1.0], "all increase"),
        ([0.0, 0.7, 0.5], "all increase"),
        ([math.nan, 0.5, 1.0], "all increase"),
        ([1000.0, 500.0, 0.0], "timesteps up to 1000 are sigmas times 1000"),
        ([14.6, 1.0, 0.03], "time_of_ratio"),
        ([-0.1, 0.5, 1.0], r"in \[0, 1\]"),
        (torch.zeros(2, 3), "vector of numbers"),
        ("time", "vector of numbers"),
    ],
)
def test_what_is_no_grid_is_refused(values, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        time_grid(values)
    with pytest.raises(ValueError, match=message):
        ode_sample(lambda x, t: x, torch.zeros(2, 1), times=values)
    with pytest.raises(ValueError, match=message):
        MemorylessEuler(grid=values)


def test_steps_limits_and_grids_agree() -> None:
    x, grid = torch.zeros(2, 1), shifted(4)
    for kernel in (MemorylessEuler, FollmerKernel, AdamsBashforthKernel, BridgeKernel):
        with pytest.raises(ValueError, match="has 4 steps, but steps=5"):
            kernel(5, grid=grid)
        with pytest.raises(ValueError, match="begins at t=0"):
            kernel(grid=[0.1, 0.5, 0.7, 1.0])
    with pytest.raises(ValueError, match="has 4 steps, but steps=5"):
        ode_sample(lambda x, t: x, x, 5, times=grid)
    with pytest.raises(ValueError, match="leave out t0 and t1"):
        ode_sample(lambda x, t: x, x, t0=0.2, times=grid)
    with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
        ode_sample(lambda x, t: x, x)
    with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
        MemorylessEuler()
    with pytest.raises(ValueError, match="at least 3 steps"):
        AdamsBashforthKernel(grid=[0.0, 0.5, 1.0])
    # An ODE may stop early.
    assert (
        ode_sample(lambda x, t: torch.ones_like(x), x, times=[0.0, 0.25]).tolist() == [[0.25]] * 2
    )

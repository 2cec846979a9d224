"""The matching loss: its formula, its optimum, its gradient, its time-step subsets."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adjoint import matching_loss
from flowsde import FollmerKernel, MemorylessEuler
from trustregion import LinearGaussian


def draws(steps, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn((steps, *shape), generator=generator, dtype=torch.float64),
        torch.randn((steps, *shape), generator=generator, dtype=torch.float64),
        torch.randn((steps + 1, *shape), generator=generator, dtype=torch.float64),
    )


@settings(deadline=None, max_examples=25)
@given(steps=st.integers(1, 12), lam=st.floats(0.05, 20.0))
def test_it_is_the_published_sum(steps, lam):
    fine, base, adjoints = draws(steps, 3, 2)
    h = 1.0 / steps
    expected = torch.zeros(3, dtype=torch.float64)
    for k in range(steps):
        g = math.sqrt(2.0 * (1.0 - k * h + h) / (k * h + h))
        sigma = g / math.sqrt(lam)
        residual = 2.0 / sigma * (fine[k] - base[k]) + sigma * adjoints[k]
        expected += residual.square().sum(-1)
    loss = matching_loss(MemorylessEuler(steps), fine, base, adjoints, lam)
    torch.testing.assert_close(loss, expected)


def test_it_is_lambda_times_the_loss_of_fixed_inverse_temperature():
    fine, base, adjoints = draws(6, 4, 3)
    kernel = MemorylessEuler(6)
    lam = 2.5
    at_temperature = matching_loss(kernel, fine, base, adjoints / lam)
    torch.testing.assert_close(
        matching_loss(kernel, fine, base, adjoints, lam), lam * at_temperature
    )


@pytest.mark.parametrize("kernel", [MemorylessEuler(6), FollmerKernel(6, scale=0.5)])
def test_zero_exactly_where_the_control_is_minus_the_adjoint_over_lambda(kernel):
    _, base, adjoints = draws(6, 4, 3)
    lam = 0.7
    offset = kernel.control_offset
    used = adjoints[offset : offset + 6]
    ratio = [s**2 / g for s, g in zip(kernel.stds, kernel.gains, strict=True)]
    factor = torch.tensor(ratio, dtype=torch.float64).reshape(6, 1, 1)
    optimal = base - factor * used / lam
    loss = matching_loss(kernel, optimal, base, adjoints, lam)
    torch.testing.assert_close(loss, torch.zeros(4, dtype=torch.float64), atol=1e-18, rtol=0.0)
    assert torch.all(matching_loss(kernel, optimal + 1e-3, base, adjoints, lam) > 1e-9)


def test_the_optimum_of_the_linear_gaussian_problem_has_zero_loss_in_the_limit():
    lam = 1.3
    problem = LinearGaussian(mean=-0.2, std=0.6, slope=0.9)
    per_unit_time = []
    for steps in (50, 100, 200):
        kernel = MemorylessEuler(steps)
        t = torch.tensor([*kernel.times, 1.0], dtype=torch.float64).unsqueeze(-1)
        x = torch.zeros(steps + 1, 1, 1, dtype=torch.float64)
        adjoints = problem.adjoint(torch.full_like(x, -0.9), t)
        base = problem.velocity(x, t)[:-1]
        fine = problem.optimal_velocity(x, t, lam)[:-1]
        # The published g is shifted by h, which leaves a residual of first order, so a loss of
        # second order; multiplied by h it is the integral over time.
        per_unit_time.append(float(matching_loss(kernel, fine, base, adjoints, lam)) / steps)
    orders = [math.log2(a / b) for a, b in itertools.pairwise(per_unit_time)]
    assert all(1.5 < order < 2.5 for order in orders), (per_unit_time, orders)


def test_lambda_per_replica_is_the_loss_of_each_replica_alone():
    fine, base, adjoints = draws(5, 3, 4, 2)
    lam = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
    kernel = MemorylessEuler(5)
    packed = matching_loss(kernel, fine, base, adjoints, lam[:, None])
    for r in range(3):
        alone = matching_loss(kernel, fine[:, r], base[:, r], adjoints[:, r], float(lam[r]))
        torch.testing.assert_close(packed[r], alone)


def test_gradient_reaches_only_the_fine_tuned_velocity():
    fine, base, adjoints = (x.requires_grad_() for x in draws(4, 3, 2))
    lam = torch.ones(3, dtype=torch.float64, requires_grad=True)
    matching_loss(MemorylessEuler(4), fine, base, adjoints, lam).sum().backward()
    assert fine.grad is not None
    assert torch.all(fine.grad != 0.0)
    assert base.grad is None
    assert adjoints.grad is None
    assert lam.grad is None


@pytest.mark.parametrize("kernel", [MemorylessEuler(5), FollmerKernel(5)])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_time_step_subsets_are_unbiased_in_value_and_gradient(kernel, count):
    fine, base, adjoints = draws(5, 3, 2)
    fine.requires_grad_()
    full = matching_loss(kernel, fine, base, adjoints, 0.8)
    (gradient,) = torch.autograd.grad(full.sum(), fine)
    subsets = list(itertools.combinations(range(5), count))
    estimates, gradients = [], []
    for subset in subsets:
        index = torch.tensor(subset)
        as_tensor = matching_loss(kernel, fine[index], base[index], adjoints, 0.8, steps=index)
        as_list = matching_loss(kernel, fine[index], base[index], adjoints, 0.8, steps=list(subset))
        assert torch.equal(as_tensor, as_list)
        estimates.append(as_tensor)
        gradients.append(torch.autograd.grad(as_tensor.sum(), fine)[0])
    torch.testing.assert_close(torch.stack(estimates).mean(0), full)
    torch.testing.assert_close(torch.stack(gradients).mean(0), gradient)
    assert torch.stack(estimates).std(0).min() > 0.0


def test_all_steps_in_any_order_are_the_full_loss():
    fine, base, adjoints = draws(5, 3, 2)
    kernel = MemorylessEuler(5)
    order = [3, 1, 0, 4, 2]
    shuffled = matching_loss(kernel, fine[order], base[order], adjoints, steps=order)
    torch.testing.assert_close(shuffled, matching_loss(kernel, fine, base, adjoints))


def test_bad_input_is_refused():
    fine, base, adjoints = draws(4, 3, 2)
    kernel = MemorylessEuler(4)
    for lam in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="lam must be positive"):
            matching_loss(kernel, fine, base, adjoints, lam)
    with pytest.raises(ValueError, match="do not fit together"):
        matching_loss(MemorylessEuler(5), fine, base, adjoints)
    with pytest.raises(ValueError, match="do not fit together"):
        matching_loss(kernel, fine, base, adjoints[1:])
    with pytest.raises(ValueError, match="do not fit together"):
        matching_loss(kernel, fine, base[:, 0], adjoints)
    with pytest.raises(ValueError, match="steps is empty"):
        matching_loss(kernel, fine[:0], base[:0], adjoints, steps=[])
    with pytest.raises(ValueError, match=r"indices in 0\.\.3, got \[4\]"):
        matching_loss(kernel, fine[:1], base[:1], adjoints, steps=[4])


@pytest.mark.parametrize("shape", [(4, 1), (3, 1), (2,), (1, 1, 1)])
def test_lambda_broadcasts_to_the_batch_and_to_no_other_axis(shape):
    # (4, 1) would scale time steps, (3, 1) a second batch axis that is not there.
    fine, base, adjoints = draws(4, 3, 2)
    kernel = MemorylessEuler(4)
    with pytest.raises(ValueError, match=r"expected one that broadcasts to the batch shape \(3,\)"):
        matching_loss(kernel, fine, base, adjoints, torch.ones(shape))
    for fits in ((), (1,), (3,)):
        loss = matching_loss(kernel, fine, base, adjoints, torch.ones(fits))
        torch.testing.assert_close(loss, matching_loss(kernel, fine, base, adjoints))


def test_half_precision_is_summed_without_overflow():
    fine, base, adjoints = draws(4, 2, 3072)
    kernel = MemorylessEuler(4)
    exact = matching_loss(kernel, 20.0 * fine, base, adjoints)
    half = matching_loss(kernel, *(x.half() for x in (20.0 * fine, base, adjoints)))
    assert float(exact.min()) > torch.finfo(torch.float16).max
    torch.testing.assert_close(half.double(), exact, rtol=1e-3, atol=0.0)

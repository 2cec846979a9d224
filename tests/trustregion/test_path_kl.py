"""Path KL: sign, Gaussian closed form, convergence at the optimum, data processing."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from flowsde import (
    AdamsBashforthKernel,
    CosineInterpolant,
    FollmerKernel,
    MemorylessEuler,
    ode_sample,
    sample_path,
    step_log_prob,
    velocities_along,
)
from trustregion import LinearGaussian, path_kl, path_kl_steps

KERNELS = [
    MemorylessEuler(6),
    MemorylessEuler(6, interpolant=CosineInterpolant()),
    FollmerKernel(6, scale=0.6),
    FollmerKernel(6, scale=torch.tensor([0.5, 1.5], dtype=torch.float64), grid="clock"),
    MemorylessEuler(grid=[1.0, 0.95, 0.85, 0.7, 0.5, 0.2, 0.0]),  # sigmas
]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=40)
@given(
    which=st.sampled_from(range(len(KERNELS))),
    size=st.floats(1e-6, 1e3),
    seed=st.integers(0, 2**31),
)
def test_not_negative_and_zero_only_for_equal_fields(which, size, seed):
    kernel = KERNELS[which]
    base, change = normal(6, 3, 2, seed=seed), size * normal(6, 3, 2, seed=seed + 1)
    assert torch.all(path_kl(kernel, base + change, base) > 0.0)
    assert torch.equal(path_kl(kernel, base, base), torch.zeros(3, dtype=torch.float64))
    # One step, one sample, one dimension is enough to be seen.
    single = base.clone()
    single[2, 1, 0] += size
    kl = path_kl(kernel, single, base)
    assert kl[1] > 0.0
    assert kl[0] == 0.0
    assert kl[2] == 0.0


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_step_is_the_kl_of_its_gaussian_transitions(kernel):
    state, fine, base = normal(6, 3, 2, seed=1), normal(6, 3, 2, seed=2), normal(6, 3, 2, seed=3)
    steps = path_kl_steps(kernel, fine, base)
    assert steps.shape == (6, 3)
    for k in range(6):
        std = torch.as_tensor(kernel.stds[k], dtype=torch.float64).expand(3, 2)
        expected = kl_divergence(
            Normal(kernel.mean(state[k], fine[k], k), std),
            Normal(kernel.mean(state[k], base[k], k), std),
        ).sum(-1)
        torch.testing.assert_close(steps[k], expected)
    torch.testing.assert_close(path_kl(kernel, fine, base), steps.sum(0))
    torch.testing.assert_close(
        path_kl_steps(kernel, fine, base, noisy_only=True), steps[: kernel.noisy_steps]
    )


def test_the_published_euler_sum():
    fine, base = normal(5, 3, 2, seed=1), normal(5, 3, 2, seed=2)
    h = 0.2
    expected = sum(
        2 * h / (2 * (1 - k * h + h) / (k * h + h)) * (fine[k] - base[k]).square().sum(-1)
        for k in range(5)
    )
    torch.testing.assert_close(path_kl(MemorylessEuler(5), fine, base), expected)


@pytest.mark.parametrize("kernel", [MemorylessEuler(8), FollmerKernel(8, scale=0.6)])
def test_it_is_the_mean_log_ratio_of_sampled_paths(kernel):
    # The definition of KL, by sampling: E_fine[ log p_fine(path) - log p_base(path) ].
    problem = LinearGaussian(mean=0.2, std=0.6, slope=1.0)

    def fine_field(x, t):
        return problem.optimal_velocity(x, t, 0.7) + 0.2 * torch.sin(3.0 * x)

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((20_000, 1), generator=generator, dtype=torch.float64)
    path = sample_path(
        kernel, fine_field, noise, generator=generator, final_velocity=problem.velocity
    )
    fine = velocities_along(kernel, fine_field, path)
    base = velocities_along(kernel, problem.velocity, path)
    log_ratio = (step_log_prob(kernel, path, fine) - step_log_prob(kernel, path, base)).sum(0)
    kl = path_kl(kernel, fine, base, noisy_only=True)
    error = (log_ratio - kl).std() / math.sqrt(len(noise))
    assert abs(float((log_ratio - kl).mean())) < 4.0 * float(error)
    assert float(kl.mean()) > 20.0 * float(error)


@pytest.mark.parametrize("std", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("kernel_of", [MemorylessEuler, FollmerKernel])
def test_at_the_optimum_it_converges_to_the_endpoint_kl_at_first_order(kernel_of, std):
    problem, lam = LinearGaussian(mean=-0.3, std=std, slope=1.2), 0.9
    exact = std**2 * 1.2**2 / (2.0 * lam**2)
    torch.testing.assert_close(float(problem.optimal_kl(lam)), exact, rtol=1e-6, atol=0.0)
    errors = []
    for steps in (64, 128, 256):
        kernel = kernel_of(steps)
        t = torch.tensor(kernel.times, dtype=torch.float64).unsqueeze(-1)
        x = normal(steps, 1, 1)  # for a linear reward dv* does not depend on x
        fine, base = problem.optimal_velocity(x, t, lam), problem.velocity(x, t)
        errors.append(abs(float(path_kl(kernel, fine, base)) - exact) / exact)
    if kernel_of is FollmerKernel and std == 1.0:
        assert max(errors) < 1e-12  # data of the kernel's own scale: exact at any K
        return
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    # Euler's first-order term vanishes for unit data; h^2 log h is left.
    low, high = (1.6, 2.0) if std == 1.0 else (0.85, 1.15)
    assert all(low < order < high for order in orders), (errors, orders)
    assert 1e-4 < errors[-1] < 0.02


def gaussian_endpoints(kernel, fields, mean0=0.0):
    """Laws of the last state under affine fields `v = a x + b` per step, one dimension."""
    laws = []
    for field in fields:
        mean, variance = torch.tensor(mean0, dtype=torch.float64), torch.tensor(1.0).double()
        for k, (a, b) in enumerate(field):
            scale = kernel.coefficients.input_scales[k]
            slope = kernel.coefficients.decays[k] + kernel.gains[k] * a * scale
            mean = slope * mean + kernel.gains[k] * b
            variance = slope**2 * variance + kernel.noise_stds[k] ** 2
        laws.append(Normal(mean, variance.sqrt()))
    return laws


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), size=st.floats(0.01, 3.0), steps=st.integers(2, 12))
def test_endpoint_kl_is_at_most_path_kl(seed, size, steps):
    # Affine fields keep every state Gaussian, so both sides are exact numbers.
    kernel = FollmerKernel(steps, scale=0.8)
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn((4, steps), generator=generator, dtype=torch.float64)
    base = list(zip(draw[0], draw[1], strict=True))
    fine = list(zip(draw[0] + size * draw[2], draw[1] + size * draw[3], strict=True))
    law_fine, law_base = gaussian_endpoints(kernel, [fine, base])
    endpoint = float(kl_divergence(law_fine, law_base))

    # E of the path KL under fine: gain^2/(2 std^2) E[(da x + db)^2] with x Gaussian at each step.
    path, mean, variance = 0.0, 0.0, 1.0
    for k in range(steps):
        scale = kernel.coefficients.input_scales[k]
        da, db = size * float(draw[2][k]), size * float(draw[3][k])
        second_moment = (da * scale * mean + db) ** 2 + (da * scale) ** 2 * variance
        path += 0.5 * (kernel.gains[k] / kernel.stds[k]) ** 2 * second_moment
        a, b = float(fine[k][0]), float(fine[k][1])
        slope = kernel.coefficients.decays[k] + kernel.gains[k] * a * scale
        mean = slope * mean + kernel.gains[k] * b
        variance = slope**2 * variance + kernel.noise_stds[k] ** 2
    assert endpoint <= path * (1.0 + 1e-9) + 1e-12
    assert endpoint >= 0.0


def test_it_can_serve_as_a_penalty():
    fine, base = normal(4, 3, 2, seed=1).requires_grad_(), normal(4, 3, 2, seed=2)
    kernel = MemorylessEuler(4)
    (gradient,) = torch.autograd.grad(path_kl(kernel, fine, base).sum(), fine)
    ratio = torch.tensor(kernel.gains).double() / torch.tensor(kernel.stds).double()
    torch.testing.assert_close(
        gradient, ratio.square().reshape(4, 1, 1) * (fine - base).detach(), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("event", [(), (2,), (3, 2, 2)])
def test_any_event_shape_sums_over_the_event(event):
    fine, base = normal(4, 5, *event, seed=1), normal(4, 5, *event, seed=2)
    kl = path_kl(MemorylessEuler(4, event_ndim=len(event)), fine, base)
    elementwise = path_kl(MemorylessEuler(4, event_ndim=0), fine, base)
    torch.testing.assert_close(kl, elementwise.reshape(5, -1).sum(-1))


def test_shapes_that_do_not_fit_are_refused():
    fine = normal(4, 3, 2)
    with pytest.raises(ValueError, match=r"expected \(5, \*batch, \*event\)"):
        path_kl(MemorylessEuler(5), fine, fine)
    with pytest.raises(ValueError, match=r"base \(4, 2\)"):
        path_kl(MemorylessEuler(4), fine, fine[:, 0])


@pytest.mark.parametrize("kernel", [MemorylessEuler(5), AdamsBashforthKernel(5)])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_time_step_subsets_are_unbiased(kernel, count):
    generator = torch.Generator().manual_seed(0)
    fine, base = torch.randn(2, 5, 3, 2, generator=generator, dtype=torch.float64)
    estimates = []
    for subset in itertools.combinations(range(5), count):
        index = torch.tensor(subset)
        kl = path_kl(kernel, fine[index], base[index], steps=index)
        assert torch.equal(kl, path_kl(kernel, fine[index], base[index], steps=subset))
        estimates.append(kl)
    torch.testing.assert_close(torch.stack(estimates).mean(0), path_kl(kernel, fine, base))
    assert torch.stack(estimates).std(0).min() > 0.0


def test_bad_subsets_are_refused():
    kernel, v = MemorylessEuler(5), torch.zeros(2, 3, 2)
    with pytest.raises(ValueError, match=r"indices in 0\.\.4, got \[0, 5\]"):
        path_kl(kernel, v, v, steps=[0, 5])
    with pytest.raises(ValueError, match=r"expected \(1, \*batch, \*event\)"):
        path_kl(kernel, v, v, steps=[0])
    with pytest.raises(ValueError, match="either steps or noisy_only"):
        path_kl(kernel, v, v, steps=[0, 1], noisy_only=True)


def test_half_precision_is_summed_without_overflow():
    kernel = MemorylessEuler(4)
    change = 40.0 * torch.ones(4, 2, 3072, dtype=torch.float64)
    exact = path_kl(kernel, change, 0.0 * change)
    assert float(exact.min()) > torch.finfo(torch.float16).max
    half = path_kl(kernel, change.half(), 0.0 * change.half())
    torch.testing.assert_close(half.double(), exact, rtol=1e-3, atol=0.0)


def test_the_ode_of_an_arbitrary_velocity_may_be_further_than_the_path_kl():
    problem = LinearGaussian(mean=0.7, std=0.5)

    def fine(x, t):
        push = torch.where((t > 0.02) & (t < 0.5), 0.1 / t.clamp(min=0.02), torch.zeros_like(t))
        return problem.velocity(x, t) + push[..., None]

    noise = torch.randn(2000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = MemorylessEuler(400)
    path = sample_path(kernel, fine, noise, generator=torch.Generator().manual_seed(1))
    velocities = (velocities_along(kernel, field, path) for field in (fine, problem.velocity))
    path_space = float(path_kl(kernel, *velocities).mean())
    # Both laws of the ODE are Gaussian of the same spread: the push is the same for all samples.
    shift = ode_sample(fine, noise, 400) - ode_sample(problem.velocity, noise, 400)
    of_ode = float((shift / 0.5).square().mean()) / 2.0
    of_sde = float((path.sample.mean() - 0.7) / 0.5) ** 2 / 2.0
    assert of_sde < path_space < 0.042
    assert 0.063 < of_ode < 0.073

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsde import (
    CosineInterpolant,
    FollmerKernel,
    Interpolant,
    LinearInterpolant,
    along_path,
    sample_path,
    velocities_along,
)

INTERPOLANTS = [LinearInterpolant(), CosineInterpolant()]


@pytest.mark.parametrize("path", INTERPOLANTS)
@pytest.mark.parametrize("grid", ["time", "clock"])
@given(steps=st.integers(1, 20), scale=st.floats(0.05, 20.0), mean=st.floats(-3.0, 3.0))
@settings(max_examples=25, deadline=None)
def test_exact_for_gaussian_data_of_its_scale(
    path: Interpolant, grid: str, steps: int, scale: float, mean: float, gaussian, chain_law
) -> None:
    """At any step count: the sample, every marginal on the way, and no memory of the start."""
    data = gaussian(mean, scale, path)
    kernel = FollmerKernel(steps, scale=scale, interpolant=path, grid=grid)
    law = chain_law(kernel, data.velocity)
    assert law.means[-1] == pytest.approx(mean, abs=1e-9)
    assert law.stds[-1] == pytest.approx(scale, rel=1e-9)
    assert abs(law.memory) < 1e-12
    for k in range(1, steps):
        t = torch.tensor(kernel.times[k], dtype=torch.float64)
        factor = kernel.coefficients.input_scales[k]
        assert factor * law.means[k] == pytest.approx(mean * float(path.alpha(t)), abs=1e-9)
        assert factor * law.stds[k] == pytest.approx(float(data.marginal_variance(t)) ** 0.5)


@pytest.mark.parametrize("path", INTERPOLANTS)
@pytest.mark.parametrize("grid", ["time", "clock"])
@pytest.mark.parametrize("std", [0.3, 0.5, 2.0])
def test_mean_is_exact_and_spread_of_first_order_for_other_scales(
    path: Interpolant, grid: str, std: float, gaussian, chain_law
) -> None:
    data, errors = gaussian(0.7, std, path), []
    for steps in (80, 160, 320):
        law = chain_law(FollmerKernel(steps, interpolant=path, grid=grid), data.velocity)
        assert law.means[-1] == pytest.approx(0.7, abs=1e-9)
        errors.append(law.stds[-1] - std)
    assert abs(errors[-1]) < 0.01
    # Data narrower than the scale come out too wide, wider data too narrow.
    assert all(math.copysign(1.0, error) == math.copysign(1.0, 1.0 - std) for error in errors)
    for before, after in itertools.pairwise(errors):
        assert before / after == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    ("std", "kl_ratio", "std_ratio"),
    [(0.3, 0.83, 1.10), (0.5, 1.0, 1.0), (1.0, 1.21, 0.91), (2.0, 1.41, 0.85)],
)
def test_ten_steps_give_the_figures_of_the_derivation(
    std: float, kl_ratio: float, std_ratio: float, gaussian, chain_law, generator
) -> None:
    """KL and spread relative to exact for a shift of the mean, scale 0.5."""
    base, fine = gaussian(0.7, std), gaussian(1.2, std)
    kernel = FollmerKernel(10, scale=0.5)
    assert chain_law(kernel, fine.velocity).stds[-1] / std == pytest.approx(std_ratio, abs=6e-3)
    # The two velocities differ by a function of time alone, so one path gives the whole KL.
    start = torch.randn(1, 1, dtype=torch.float64, generator=generator)
    path = sample_path(kernel, fine.velocity, start, generator=generator)
    change = velocities_along(kernel, fine.velocity, path) - velocities_along(
        kernel, base.velocity, path
    )
    weights = along_path(
        [g**2 / (2.0 * s**2) for g, s in zip(kernel.gains, kernel.stds, strict=True)], change
    )
    kl = float((weights * change**2).sum())
    assert kl / (0.5**2 / (2.0 * std**2)) == pytest.approx(kl_ratio, abs=6e-3)


@given(k=st.integers(1, 8), x=st.floats(-3, 3), v=st.floats(-3, 3))
def test_steps_are_a_unit_brownian_motion_with_drift(k: int, x: float, v: float) -> None:
    """`W' = W + q du + sqrt(du) eps` in the coordinates W, u of the derivation."""
    p, t, later = 1.0 / 0.7**2, k / 10, (k + 1) / 10
    s, s_later = (t / (1 - t)) ** 2, (later / (1 - later)) ** 2
    du = 1.0 / (p + s) - 1.0 / (p + s_later)
    w = x * t / (p * (1 - t) ** 2 + t**2)
    q = (p + s) * (x + (1 - t) * v) - x * t / (1 - t) ** 2
    kernel = FollmerKernel(10, scale=0.7)
    state, velocity = torch.tensor([[w], [v]], dtype=torch.float64)
    assert float(kernel.inputs(state, k)) == pytest.approx(x, abs=1e-12)
    assert float(kernel.mean(state, velocity, k)) == pytest.approx(w + q * du, abs=1e-12)
    assert kernel.stds[k] == pytest.approx(math.sqrt(du))
    assert kernel.gains[k] == pytest.approx(du * (p + s) * (1 - t))


def test_noise_adds_up_to_the_horizon() -> None:
    for grid in ("time", "clock", (0.0, 0.3, 0.35, 0.9)):
        kernel = FollmerKernel(4, scale=0.6, grid=grid)
        assert sum(std**2 for std in kernel.stds) == pytest.approx(0.6**2)
        assert kernel.noise_stds == kernel.stds
        assert kernel.noisy_steps == 4


def test_clock_grid_has_equal_steps() -> None:
    kernel = FollmerKernel(5, scale=0.6, grid="clock", interpolant=CosineInterpolant())
    assert list(kernel.stds) == pytest.approx([0.6 / math.sqrt(5)] * 5)
    # Two scales share the network times of their geometric mean, 0.6.
    pair = FollmerKernel(
        5, scale=torch.tensor([0.3, 1.2]), grid="clock", interpolant=CosineInterpolant()
    )
    assert pair.times == pytest.approx(kernel.times, rel=1e-6)


def test_small_scale_is_the_kernel_exact_for_a_frozen_data_prediction() -> None:
    """Its mean and spread in the coordinates of the samples, for t=0.3 -> 0.4."""
    kernel, k = FollmerKernel(10, scale=1e-5), 3
    x, v = torch.tensor([[0.4], [-0.9]], dtype=torch.float64)
    r, later, t_later = 0.3 / 0.7, 0.4 / 0.6, 0.4
    data = x + 0.7 * v
    expected = t_later / later**2 * (x * 0.3 / 0.7**2 + data * (later**2 - r**2))
    scales = kernel.coefficients.input_scales
    got = scales[k + 1] * kernel.mean(x / scales[k], v, k)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=0.0)
    spread = t_later / later**2 * math.sqrt(later**2 - r**2)
    assert scales[k + 1] * kernel.stds[k] == pytest.approx(spread, rel=1e-8)


def test_scale_per_dimension_equals_scalar_kernels_side_by_side(gaussian, generator) -> None:
    scale = torch.tensor([0.2, 1.0, 3.0])
    data = gaussian(torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.3, 1.0, 2.0]))
    noise = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    eps = torch.randn(6, 4, 3, dtype=torch.float64, generator=generator)
    together = sample_path(FollmerKernel(6, scale=scale), data.velocity, noise, eps)
    assert together.sample.dtype == torch.float64
    for i in range(3):
        alone = sample_path(
            FollmerKernel(6, scale=float(scale[i])),
            gaussian(float(data.mean[i]), float(data.std[i])).velocity,
            noise[:, i : i + 1],
            eps[:, :, i : i + 1],
        )
        torch.testing.assert_close(together.sample[:, i], alone.sample[:, 0], rtol=1e-6, atol=1e-6)


def test_scale_per_channel_broadcasts_over_pixels(generator) -> None:
    kernel = FollmerKernel(3, event_ndim=3, scale=torch.tensor([0.5, 2.0])[:, None, None])
    noise = torch.randn(5, 2, 4, 4, generator=generator)
    path = sample_path(kernel, lambda x, t: -x, noise, generator=generator)
    assert path.states.shape == (4, 5, 2, 4, 4)
    assert along_path(kernel.gains, path.inputs).shape == (3, 1, 2, 1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "scale must be positive and finite"),
        ({"scale": float("nan")}, "scale must be positive and finite"),
        ({"scale": torch.tensor([1.0, -1.0])}, "values from -1.0 to 1.0"),
        ({"scale": torch.ones(2, 2)}, r"scale has shape \(2, 2\)"),
        ({"grid": "log"}, "'time', 'clock' or a grid of times, got 'log'"),
        ({"grid": (0.0, 0.5)}, "has 2 steps, but steps=3"),
        ({"grid": (0.1, 0.5, 0.7)}, "begins at t=0"),
        ({"grid": (0.0, 0.7, 0.5)}, "all increase"),
        ({"grid": (0.0, 0.5, 1.0)}, "has 2 steps, but steps=3"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FollmerKernel(**{"steps": 3, **options})  # type: ignore[arg-type]

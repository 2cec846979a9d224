import itertools
import math

import pytest
import torch

from flowsde import (
    CosineInterpolant,
    Interpolant,
    LinearInterpolant,
    MemorylessEuler,
    sample_path,
)

INTERPOLANTS = [LinearInterpolant(), CosineInterpolant()]


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_coefficients_are_the_published_ones(steps: int) -> None:
    kernel, h = MemorylessEuler(steps), 1.0 / steps
    for k in range(steps):
        t = k * h
        assert kernel.times[k] == pytest.approx(t)
        assert kernel.adjoint_times[k] == pytest.approx(t + h)
        assert kernel.gains[k] == pytest.approx(2.0 * h)
        g_squared = 2.0 * (1.0 - t + h) / (t + h)
        assert kernel.stds[k] == pytest.approx(math.sqrt(h * g_squared))
    assert kernel.noise_stds == (*kernel.stds[:-1], 0.0)
    assert kernel.noisy_steps == steps - 1
    assert kernel.loss_scale == pytest.approx(steps)
    assert kernel.control_offset == 0


def test_path_is_the_published_recursion(gaussian, generator) -> None:
    """Written out as the formulas of the papers, with the base field on the last step."""
    steps, h = 7, 1.0 / 7
    fine, base = gaussian(0.4, 0.6).velocity, gaussian(-0.3, 0.9).velocity
    noise = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    eps = torch.randn(steps, 5, 3, dtype=torch.float64, generator=generator)
    path = sample_path(MemorylessEuler(steps), fine, noise, eps, final_velocity=base)
    x = noise
    for k in range(steps):
        torch.testing.assert_close(path.inputs[k], x)
        torch.testing.assert_close(path.states[k], x)
        t = torch.full((5,), k * h, dtype=torch.float64)
        if k < steps - 1:
            g = math.sqrt(2.0 * (1.0 - k * h + h) / (k * h + h))
            x = x + h * (2.0 * fine(x, t) - x / (k * h + h)) + math.sqrt(h) * g * eps[k]
        else:
            x = x + h * base(x, t)
    torch.testing.assert_close(path.sample, x)


@pytest.mark.parametrize("path", INTERPOLANTS)
@pytest.mark.parametrize("std", [0.3, 1.0, 2.0])
def test_first_order_in_mean_and_std(path: Interpolant, std: float, gaussian, chain_law) -> None:
    data = gaussian(0.7, std, path)
    errors = []
    for steps in (160, 320, 640):
        law = chain_law(MemorylessEuler(steps, interpolant=path), data.velocity)
        errors.append((law.means[-1] - 0.7, law.stds[-1] - std))
    assert abs(errors[-1][0]) < 0.01
    assert abs(errors[-1][1]) < 0.02
    for coarse, fine in itertools.pairwise(errors):
        for before, after in zip(coarse, fine, strict=True):
            assert before / after == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("path", INTERPOLANTS)
def test_marginals_along_the_way(path: Interpolant, gaussian, chain_law) -> None:
    data, kernel = gaussian(0.7, 0.5, path), MemorylessEuler(2000, interpolant=path)
    law = chain_law(kernel, data.velocity)
    # The first steps are coarse against the singularity at t=0, the rest is not.
    for k in range(100, 2000, 100):
        t = torch.tensor(kernel.times[k], dtype=torch.float64)
        assert law.means[k] == pytest.approx(0.7 * float(path.alpha(t)), abs=4e-3)
        assert law.stds[k] == pytest.approx(float(data.marginal_variance(t)) ** 0.5, rel=1e-2)


@pytest.mark.parametrize("path", INTERPOLANTS)
def test_memory_of_the_start_vanishes_with_the_step(path: Interpolant, gaussian, chain_law) -> None:
    data = gaussian(0.7, 0.5, path)
    memory = [
        abs(chain_law(MemorylessEuler(steps, interpolant=path), data.velocity).memory)
        for steps in (10, 100)
    ]
    assert memory[0] < 0.01
    assert 0.0 < memory[1] < 0.05 * memory[0]


def test_consistent_adjoint_time_and_control_offset_are_options() -> None:
    kernel = MemorylessEuler(4, adjoint_time="consistent", control_offset=1)
    assert kernel.adjoint_times == kernel.times
    assert kernel.control_offset == 1
    assert kernel.stds == MemorylessEuler(4).stds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"steps": 2.5}, "steps must be an integer of at least 1, got 2.5"),
        ({"steps": 3, "event_ndim": -1}, "event_ndim must be an integer of at least 0, got -1"),
        ({"steps": 3, "control_offset": 2}, "control_offset must be 0 or 1, got 2"),
        ({"steps": 3, "adjoint_time": "late"}, "'shifted' or 'consistent', got 'late'"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemorylessEuler(**options)  # type: ignore[arg-type]

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flowsde import (
    AdamsBashforthKernel,
    CosineInterpolant,
    FollmerKernel,
    Interpolant,
    LinearInterpolant,
    MemorylessEuler,
    Prediction,
    ScheduleInterpolant,
    along_path,
    from_velocity,
    ode_log_prob,
    ode_sample,
    sample_path,
    to_velocity,
    velocities_along,
    velocity_field,
)

INTERPOLANTS = [LinearInterpolant(), CosineInterpolant()]
KINDS: list[Prediction] = ["velocity", "data", "noise", "score"]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("path", INTERPOLANTS)
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(t=st.floats(1e-2, 1.0 - 1e-2))
def test_round_trip(path: Interpolant, kind: Prediction, t: float) -> None:
    x, v = draw(2, 5, 3)
    time = torch.full((5,), t, dtype=torch.float64)
    output = from_velocity(kind, v, x, time, path)
    back = to_velocity(kind, output, x, time, path)
    torch.testing.assert_close(back, v, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", INTERPOLANTS)
def test_data_and_noise_of_a_known_pair(path: Interpolant) -> None:
    x0, x1 = draw(2, 6, 2)
    t = torch.linspace(0.0, 1.0, 6, dtype=torch.float64)
    x, v = path.interpolate(x0, x1, t), path.velocity(x0, x1, t)
    torch.testing.assert_close(from_velocity("data", v, x, t, path), x1)
    torch.testing.assert_close(from_velocity("noise", v, x, t, path), x0)


@pytest.mark.parametrize("path", INTERPOLANTS)
def test_gaussian_posterior_mean_and_score(path: Interpolant, gaussian) -> None:
    data = gaussian(0.7, 0.5, path)
    x, t = draw(9, 1), torch.linspace(0.05, 0.95, 9, dtype=torch.float64)
    v = data.velocity(x, t)
    alpha, variance = path.alpha(t)[:, None], data.marginal_variance(t)[:, None]
    posterior = 0.7 + alpha * 0.25 / variance * (x - alpha * 0.7)
    torch.testing.assert_close(from_velocity("data", v, x, t, path), posterior)
    torch.testing.assert_close(from_velocity("score", v, x, t, path), -(x - alpha * 0.7) / variance)


@pytest.mark.parametrize("path", INTERPOLANTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ends_stay_finite(path: Interpolant, kind: Prediction, dtype: torch.dtype) -> None:
    x, output, t = draw(2, 3).to(dtype), draw(2, 3).to(dtype), torch.tensor([0.0, 1.0]).to(dtype)
    for convert in (to_velocity, from_velocity):
        result = convert(kind, output, x, t, path)
        assert result.dtype == dtype
        assert torch.isfinite(result).all()


def test_velocity_field_wraps_a_model(gaussian) -> None:
    path = CosineInterpolant()
    data = gaussian(0.2, 0.8, path)

    def noise_model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return from_velocity("noise", data.velocity(x, t), x, t, path)

    x, t = draw(4, 2), torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    field = velocity_field(noise_model, "noise", path)
    torch.testing.assert_close(field(x, t), data.velocity(x, t))


def test_unknown_predictions_are_refused() -> None:
    x, t = torch.zeros(1, 2), torch.zeros(1)
    for call in (
        lambda: to_velocity("epsilon", x, x, t),  # type: ignore[arg-type]
        lambda: from_velocity("epsilon", x, x, t),  # type: ignore[arg-type]
        lambda: velocity_field(lambda x, t: x, "epsilon"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="unknown prediction 'epsilon'; expected one of"):
            call()


def noise_of_gaussian_data(path: Interpolant, error: float = 0.0) -> Callable[..., Tensor]:
    """E[x_0 | x_t] for data N(0.7, 0.5^2), everywhere off by `error`."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        alpha, beta = path.alpha(t)[..., None], path.beta(t)[..., None]
        variance = 0.25 * alpha.square() + beta.square()
        return beta * (x - 0.7 * alpha) / variance + error

    return model


@pytest.mark.parametrize("path", [LinearInterpolant(), CosineInterpolant()])
@pytest.mark.parametrize(
    ("make", "limit"),
    [(MemorylessEuler, 2e-3), (FollmerKernel, 2e-3), (AdamsBashforthKernel, 5e-3)],
)
def test_small_errors_of_noise_stay_small_in_path_kl(path, make, limit, generator) -> None:
    kernel = make(20, interpolant=path)
    fine, base = (
        velocity_field(noise_of_gaussian_data(path, error), "noise", path) for error in (0.01, 0.0)
    )
    noise = torch.randn(4000, 1, dtype=torch.float64, generator=generator)
    sampled = sample_path(kernel, base, noise, generator=generator)
    change = velocities_along(kernel, fine, sampled) - velocities_along(kernel, base, sampled)
    weights = [g**2 / (2.0 * s**2) for g, s in zip(kernel.gains, kernel.stds, strict=True)]
    kl = (along_path(weights, change) * change.square()).sum(0).mean()
    # The KL of the samples is 7e-4 to 9e-4; asked at t=0 with a floor of 1e-4, the sum is 24.
    assert 3e-4 < float(kl) < limit


@pytest.mark.parametrize("path", [LinearInterpolant(), CosineInterpolant()])
def test_moving_the_first_time_hardly_moves_the_samples(path, generator) -> None:
    field = velocity_field(noise_of_gaussian_data(path), "noise", path)
    noise = torch.randn(2000, 1, dtype=torch.float64, generator=generator)
    # Off by 2.5e-3 times a noise of a few; zero would mean that no time is moved.
    error = (ode_sample(field, noise, 100, "midpoint") - (0.7 + 0.5 * noise)).abs().max()
    assert 1e-4 < float(error) < 0.02


def vp_schedule(t: Tensor) -> SimpleNamespace:
    """Linear betas from 0.1 to 20, as `flow_matching.VPScheduler`; the last is infinite at 1."""
    exponent, rate = 9.95 * (1.0 - t) ** 2 + 0.1 * (1.0 - t), -19.9 * (1.0 - t) - 0.1
    signal = torch.exp(-0.5 * exponent)
    noise = torch.sqrt(1.0 - signal**2)
    return SimpleNamespace(
        alpha_t=signal,
        sigma_t=noise,
        d_alpha_t=-0.5 * rate * signal,
        d_sigma_t=0.5 * rate * signal**2 / noise,
    )


def test_infinite_schedules_are_not_asked_at_the_end(generator) -> None:
    path = ScheduleInterpolant(vp_schedule)
    assert not torch.isfinite(path.d_beta(torch.ones(())))
    field = velocity_field(noise_of_gaussian_data(path), "noise", path)
    noise = torch.randn(2000, 1, dtype=torch.float64, generator=generator)
    sample = ode_sample(field, noise, 100, "heun")
    torch.testing.assert_close(sample, 0.7 + 0.5 * noise, rtol=0.03, atol=0.03)
    log_prob = ode_log_prob(field, sample[:200], 100).log_prob
    exact = torch.distributions.Normal(0.7, 0.5).log_prob(sample[:200]).sum(-1)
    torch.testing.assert_close(log_prob, exact, rtol=0.05, atol=0.05)


def test_bad_times_and_outputs_are_refused() -> None:
    for times in ({"first_time": 1.0}, {"first_time": -0.1}, {"last_time": 1.1}):
        with pytest.raises(ValueError, match="0 <= first_time < last_time <= 1"):
            velocity_field(lambda x, t: x, "noise", **times)
    x = torch.zeros(3, 3)
    with pytest.raises(ValueError, match=r"returned shape \(3,\) for samples of shape \(3, 3\)"):
        to_velocity("data", torch.zeros(3), x, torch.full((3,), 0.5))
    with pytest.raises(ValueError, match="interpolant must be an instance"):
        velocity_field(lambda x, t: x, "noise", "linear")  # type: ignore[arg-type]


@pytest.mark.parametrize(("std", "limit"), [(0.5, 1e-3), (0.1, 1e-2)])
def test_a_data_model_is_not_asked_at_the_end(std: float, limit: float, generator) -> None:
    def model(x: Tensor, t: Tensor, error: float = 0.0) -> Tensor:
        t = t[..., None]
        return t * std**2 / (t**2 * std**2 + (1.0 - t) ** 2) * x + error * x

    x, end = torch.ones(4, 1, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    exact, wrong = (
        velocity_field(lambda x, t, e=error: model(x, t, e), "data")(x, end)
        for error in (0.0, 1e-3)
    )
    torch.testing.assert_close(wrong - exact, torch.full_like(x, 0.1))  # error / (1 - 0.99)
    noise = torch.randn(2000, 1, dtype=torch.float64, generator=generator)
    sample = ode_sample(velocity_field(model, "data"), noise, 200, "midpoint")
    ratio = float(sample.std() / noise.std()) / std
    assert limit / 10.0 < abs(ratio - 1.0) < limit


def test_a_field_may_be_built_while_tracing() -> None:
    def sampled(noise: Tensor) -> Tensor:
        return ode_sample(velocity_field(lambda x, t: 0.5 * x, "noise"), noise, 4)

    noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(sampled, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(noise), sampled(noise))

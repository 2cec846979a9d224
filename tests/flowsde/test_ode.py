import itertools
import math

import numpy as np
import pytest
import torch

from flowsde import CosineInterpolant, LinearInterpolant, OdeMethod, ode_log_prob, ode_sample

ORDERS: list[tuple[OdeMethod, int]] = [("euler", 1), ("midpoint", 2), ("heun", 2)]


@pytest.mark.parametrize(("method", "order"), ORDERS)
def test_order_of_convergence(method: OdeMethod, order: int) -> None:
    """`x' = (1 + 2t) x (1 - x)`, a logistic curve in t + t^2."""
    odds = torch.linspace(0.1, 3.0, 8, dtype=torch.float64)[:, None]
    exact = 1.0 / (1.0 + math.exp(-2.0) / odds)

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (1.0 + 2.0 * t[:, None]) * x * (1.0 - x)

    errors = [
        float((ode_sample(field, odds / (1.0 + odds), steps, method) - exact).abs().max())
        for steps in (50, 100, 200)
    ]
    assert 0.0 < errors[-1] < 0.02
    for before, after in itertools.pairwise(errors):
        assert before / after == pytest.approx(2.0**order, rel=0.08)


@pytest.mark.parametrize("path", [LinearInterpolant(), CosineInterpolant()])
@pytest.mark.parametrize(("method", "order"), ORDERS)
def test_gaussian_flow(path, method: OdeMethod, order: int, gaussian, generator) -> None:
    """The exact flow of Gaussian data is x_1 = m + s x_0; midpoint is better than its order."""
    data = gaussian(0.7, 0.4, path)
    noise = torch.randn(64, 2, dtype=torch.float64, generator=generator)
    errors = [
        float((ode_sample(data.velocity, noise, steps, method) - (0.7 + 0.4 * noise)).abs().max())
        for steps in (100, 200)
    ]
    assert 0.0 < errors[-1] < 0.02
    assert 0.92 * 2.0**order < errors[0] / errors[1] < 1.08 * 2.0 ** (order + 1)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun"])
def test_straight_flows_are_exact_in_one_step(method: OdeMethod, generator) -> None:
    noise = torch.randn(3, 2, 2, generator=generator)
    field_calls: list[float] = []

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        field_calls.append(float(t.flatten()[0]))
        return torch.full_like(x, 0.25)

    assert torch.equal(ode_sample(field, noise, 1, method, event_ndim=2), noise + 0.25)
    assert field_calls == {"euler": [0.0], "midpoint": [0.0, 0.5], "heun": [0.0, 1.0]}[method]


def test_backwards_undoes_forwards(gaussian, generator) -> None:
    field = gaussian(0.7, 0.4).velocity
    noise = torch.randn(8, 3, dtype=torch.float64, generator=generator)
    data = ode_sample(field, noise, 200, "midpoint")
    back = ode_sample(field, data, 200, "midpoint", t0=1.0, t1=0.0)
    torch.testing.assert_close(back, noise, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_and_time_shape(dtype: torch.dtype) -> None:
    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert t.shape == (2, 5)
        assert t.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
        return -x

    assert ode_sample(field, torch.ones(2, 5, 3, dtype=dtype), 3, "heun").dtype == dtype


def test_bad_arguments_are_refused() -> None:
    noise = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="unknown ODE method 'rk45'; expected one of"):
        ode_sample(lambda x, t: x, noise, 3, "rk45")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        ode_sample(lambda x, t: x, noise, 0)
    with pytest.raises(ValueError, match="must return the shape of its input"):
        ode_sample(lambda x, t: x.sum(-1), noise, 3)


@pytest.mark.parametrize("steps", ["3", 2.5, None, True, 0])
def test_steps_are_a_whole_number(steps: object) -> None:
    for solve in (ode_sample, ode_log_prob):
        with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
            solve(lambda x, t: -x, torch.zeros(2, 3), steps)  # type: ignore[operator]
    assert ode_sample(lambda x, t: -x, torch.zeros(2, 3), np.int64(2)).shape == (2, 3)


@pytest.mark.parametrize("event_ndim", [-1, 1.5, "1", None])
def test_event_axes_are_a_whole_number(event_ndim: object) -> None:
    for solve in (ode_sample, ode_log_prob):
        with pytest.raises(ValueError, match="event_ndim must be an integer of at least 0"):
            solve(lambda x, t: -x, torch.zeros(2, 3), 2, event_ndim=event_ndim)  # type: ignore[operator]

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowsde import CosineInterpolant, Interpolant, LinearInterpolant

INTERPOLANTS = [LinearInterpolant(), CosineInterpolant()]
inner_times = st.floats(1e-3, 1.0 - 1e-3)


def scalar(t: float) -> torch.Tensor:
    return torch.tensor(t, dtype=torch.float64)


@pytest.mark.parametrize("path", INTERPOLANTS)
@given(t=inner_times)
def test_derivatives_agree_with_autograd(path: Interpolant, t: float) -> None:
    for value, derivative in ((path.alpha, path.d_alpha), (path.beta, path.d_beta)):
        time = scalar(t).requires_grad_()
        (slope,) = torch.autograd.grad(value(time), time)
        torch.testing.assert_close(derivative(scalar(t)), slope, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("path", INTERPOLANTS)
@given(t=inner_times)
def test_kappa_and_eta_are_their_definitions(path: Interpolant, t: float) -> None:
    time = scalar(t)
    kappa = path.d_alpha(time) / path.alpha(time)
    eta = path.beta(time) * (kappa * path.beta(time) - path.d_beta(time))
    torch.testing.assert_close(path.kappa(time), kappa)
    torch.testing.assert_close(path.eta(time), eta)
    torch.testing.assert_close(path.memoryless_noise(time) ** 2, 2.0 * eta)


@given(t=inner_times)
def test_linear_coefficients_in_closed_form(t: float) -> None:
    path = LinearInterpolant()
    assert float(path.kappa(scalar(t))) == pytest.approx(1.0 / t)
    assert float(path.eta(scalar(t))) == pytest.approx((1.0 - t) / t)


@given(t=st.floats(0.0, 1.0))
def test_cosine_preserves_variance(t: float) -> None:
    path = CosineInterpolant()
    assert float(path.alpha(scalar(t)) ** 2 + path.beta(scalar(t)) ** 2) == pytest.approx(1.0)
    assert float(path.wronskian(scalar(t))) == pytest.approx(math.pi / 2)


@pytest.mark.parametrize("path", INTERPOLANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ends_are_exact_and_never_nan(path: Interpolant, dtype: torch.dtype) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=dtype)
    assert path.alpha(ends).tolist() == [0.0, 1.0]
    assert path.beta(ends).tolist() == [1.0, 0.0]
    assert path.eta(ends).tolist() == [math.inf, 0.0]
    assert path.memoryless_noise(ends).tolist() == [math.inf, 0.0]
    assert path.kappa(ends)[0] == math.inf
    assert torch.isfinite(path.kappa(ends)[1])


@pytest.mark.parametrize("path", INTERPOLANTS)
@given(t=inner_times)
def test_velocity_is_the_time_derivative_of_the_path(path: Interpolant, t: float) -> None:
    x0, x1 = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    time = torch.full((2,), t, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda value: path.interpolate(x0, x1, value), time
    )
    slope = jacobian.sum(-1)  # each sample depends on its own time only
    torch.testing.assert_close(path.velocity(x0, x1, time), slope)


@pytest.mark.parametrize("path", INTERPOLANTS)
def test_interpolate_meets_noise_and_data(path: Interpolant) -> None:
    x0, x1 = torch.randn(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(path.interpolate(x0, x1, torch.zeros(4, 1)), x0)
    assert torch.equal(path.interpolate(x0, x1, torch.ones(4)), x1)


@pytest.mark.parametrize("path", INTERPOLANTS)
@given(ratio=st.floats(1e-3, 1e3))
def test_time_of_ratio_inverts_alpha_over_beta(path: Interpolant, ratio: float) -> None:
    time = scalar(path.time_of_ratio(ratio))
    assert float(path.alpha(time) / path.beta(time)) == pytest.approx(ratio, rel=1e-9)


def test_time_of_ratio_starts_at_zero_and_refuses_negative_ratios() -> None:
    assert LinearInterpolant().time_of_ratio(0.0) == 0.0
    with pytest.raises(ValueError, match="never negative, got -1"):
        LinearInterpolant().time_of_ratio(-1.0)


def test_times_with_more_axes_than_samples_are_refused() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="expected one time per sample"):
        LinearInterpolant().interpolate(x, x, torch.zeros(2, 3, 1))

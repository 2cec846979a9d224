import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowsde import (
    CosineInterpolant,
    Interpolant,
    LinearInterpolant,
    Prediction,
    from_velocity,
    to_velocity,
    velocity_field,
)

INTERPOLANTS = [LinearInterpolant(), CosineInterpolant()]
KINDS: list[Prediction] = ["velocity", "data", "noise", "score"]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("path", INTERPOLANTS)
@pytest.mark.parametrize("kind", KINDS)
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

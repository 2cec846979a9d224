import math

import pytest
import torch
from torch import Tensor

from flowsde import (
    CosineInterpolant,
    DiffusionPrediction,
    LinearInterpolant,
    from_velocity,
    guided_field,
    ode_sample,
    reversed_flow_field,
    variance_preserving_field,
)

# The linear-beta schedule of DDPM (Ho et al., arXiv 2006.11239).
DDPM = torch.cumprod(1.0 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), dim=0)


def gaussian_noise_prediction(x: Tensor, signal: Tensor, mean: float, std: float) -> Tensor:
    """E[noise | x] for data N(mean, std^2), with `signal` the squared weight of the data."""
    variance = signal * std**2 + (1.0 - signal)
    return torch.sqrt(1.0 - signal) / variance * (x - torch.sqrt(signal) * mean)


def ddpm_model(prediction: DiffusionPrediction):
    """The exact network of Gaussian data, in terms of the timestep alone."""

    def model(x: Tensor, timestep: Tensor) -> Tensor:
        low = timestep.floor().long().clamp(0, 998)
        # The flow time is what is interpolated between timesteps.
        angle = torch.asin(torch.sqrt(DDPM))
        turned = angle[low] + (timestep - low) * (angle[low + 1] - angle[low])
        signal = (torch.sin(turned) ** 2)[..., None]
        noise = gaussian_noise_prediction(x, signal, 0.7, 0.4)
        data = (x - torch.sqrt(1.0 - signal) * noise) / torch.sqrt(signal)
        outputs: dict[str, Tensor] = {
            "epsilon": noise,
            "sample": data,
            "v_prediction": torch.sqrt(signal) * noise - torch.sqrt(1.0 - signal) * data,
        }
        return outputs[prediction]

    return model


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_diffusion_models_become_the_velocity_of_the_cosine_path(
    prediction: DiffusionPrediction, gaussian, generator
) -> None:
    field = variance_preserving_field(ddpm_model(prediction), DDPM, prediction)
    exact = gaussian(0.7, 0.4, CosineInterpolant())
    x = torch.randn(2, 50, 3, dtype=torch.float64, generator=generator)
    t = 0.01 + 0.98 * torch.rand(2, 50, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(field(x, t), exact.velocity(x, t), rtol=1e-7, atol=1e-7)


def test_model_is_called_with_its_own_timesteps() -> None:
    seen: list[Tensor] = []

    def model(x: Tensor, timestep: Tensor) -> Tensor:
        seen.append(timestep)
        return x

    index = torch.tensor([0, 1, 500, 998, 999])
    t = 2.0 / math.pi * torch.asin(torch.sqrt(DDPM[index]))
    field = variance_preserving_field(model, DDPM)
    field(torch.zeros(5, 2, dtype=torch.float64), t)
    torch.testing.assert_close(seen[0], index.double(), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sampling_stays_finite_and_hits_the_data(dtype: torch.dtype, generator) -> None:
    field = variance_preserving_field(ddpm_model("epsilon"), DDPM)
    noise = torch.randn(2000, 1, dtype=torch.float64, generator=generator).to(dtype)
    sample = ode_sample(lambda x, t: field(x.double(), t.double()).to(dtype), noise, 60, "heun")
    assert torch.isfinite(sample).all()
    torch.testing.assert_close(sample, 0.7 + 0.4 * noise, rtol=0.02, atol=0.02)


def test_reversed_flow_models(gaussian, generator) -> None:
    exact = gaussian(0.7, 0.4).velocity

    def model(x: Tensor, timestep: Tensor) -> Tensor:
        """`noise - data` at sigma = timestep/1000, sigma = 1 being noise."""
        t = 1.0 - timestep / 1000.0
        noise = from_velocity("noise", exact(x, t), x, t, LinearInterpolant())
        return noise - from_velocity("data", exact(x, t), x, t, LinearInterpolant())

    x = torch.randn(9, 2, dtype=torch.float64, generator=generator)
    t = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
    torch.testing.assert_close(reversed_flow_field(model)(x, t), exact(x, t))


def test_guidance_is_the_same_for_noise_and_velocity(generator) -> None:
    x, first, second = torch.randn(3, 6, 2, dtype=torch.float64, generator=generator)
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    guided = guided_field(lambda x, t: first, lambda x, t: second, 2.5)(x, t)
    path = CosineInterpolant()
    noises = [from_velocity("noise", v, x, t, path) for v in (first, second, guided)]
    torch.testing.assert_close(noises[2], noises[1] + 2.5 * (noises[0] - noises[1]))


def test_guidance_scale_per_sample() -> None:
    x, t = torch.zeros(3, 2, 2), torch.zeros(3)
    field = guided_field(
        lambda x, t: torch.ones_like(x), lambda x, t: -x, torch.tensor([0.0, 1.0, 3.0])
    )
    assert field(x, t)[:, 0, 0].tolist() == [0.0, 1.0, 3.0]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown prediction 'noise'; expected 'epsilon'"):
        variance_preserving_field(lambda x, t: x, DDPM, "noise")  # type: ignore[arg-type]
    for table in (DDPM.flip(0), DDPM[:1], DDPM[None]):
        with pytest.raises(ValueError, match="at least two decreasing numbers"):
            variance_preserving_field(lambda x, t: x, table)
    with pytest.raises(ValueError, match=r"inside \(0, 1\), got 0.5 to 1.0"):
        variance_preserving_field(lambda x, t: x, torch.tensor([1.0, 0.5]))

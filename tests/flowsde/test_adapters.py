import math

import pytest
import torch
from torch import Tensor

from flowsde import (
    CosineInterpolant,
    DiffusionPrediction,
    LinearInterpolant,
    MemorylessEuler,
    ScheduleInterpolant,
    from_velocity,
    guided_field,
    module_field,
    ode_sample,
    reversed_flow_field,
    sample_path,
    variance_preserving_field,
    velocities_along,
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
    field = variance_preserving_field(
        ddpm_model(prediction), DDPM, prediction, first_time=0.0, last_time=1.0
    )
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
    field = variance_preserving_field(model, DDPM, first_time=0.0)
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


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_a_schedule_may_end_in_pure_noise(prediction: DiffusionPrediction) -> None:
    table = torch.cat([DDPM[:-1], torch.zeros(1, dtype=torch.float64)])
    seen: list[Tensor] = []

    def model(x: Tensor, timestep: Tensor) -> Tensor:
        seen.append(timestep)
        return x

    x, t = torch.ones(2, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    v = variance_preserving_field(model, table, prediction)(x, t)
    torch.testing.assert_close(seen[0], torch.full_like(t, 999.0))
    # At t=0 the velocity is pi/2 times the data: minus v_prediction there, and the sample itself.
    sign = -1.0 if prediction == "v_prediction" else 1.0
    torch.testing.assert_close(v, sign * 0.5 * math.pi * x)
    with pytest.raises(ValueError, match="only a model that predicts"):
        variance_preserving_field(model, table, "epsilon")


def test_models_with_a_table_of_timesteps_get_integers() -> None:
    embedding = torch.nn.Embedding(1000, 1).double().requires_grad_(False)
    field = variance_preserving_field(
        lambda x, n: embedding(n).expand(x.shape), DDPM, integer_timesteps=True
    )
    t = 2.0 / math.pi * torch.asin(torch.sqrt(DDPM[[10, 700]])) + 1e-6
    noise = from_velocity(
        "noise",
        v := field(torch.zeros(2, 3).double(), t),
        torch.zeros(2, 3).double(),
        t,
        CosineInterpolant(),
    )
    assert v.shape == (2, 3)
    torch.testing.assert_close(noise, embedding.weight[[10, 700]].expand(2, 3))


def test_networks_with_one_batch_axis_are_asked_along_paths(generator) -> None:
    network = torch.nn.Conv2d(2, 1, 3, padding=1).requires_grad_(False)
    seen: list[tuple[torch.Size, ...]] = []

    def module(x: Tensor, t: Tensor, label: Tensor, prompt: Tensor) -> Tensor:
        seen.append((x.shape, t.shape, label.shape, prompt.shape))
        plane = (t + label + prompt.sum(-1))[:, None, None, None].expand_as(x)
        out: Tensor = network(torch.cat([x, plane], 1))
        return out

    label, prompt = torch.tensor([1.0, -1.0, 2.0]), torch.randn(3, 4, generator=generator)
    field = module_field(module, label, prompt, event_ndim=3)
    x, t = torch.randn(5, 3, 1, 4, 4, generator=generator), torch.rand(5, 3, generator=generator)
    v = field(x, t)
    assert seen == [((15, 1, 4, 4), (15,), (15,), (15, 4))]
    for k in range(5):
        torch.testing.assert_close(v[k], module(x[k], t[k], label, prompt))
    with pytest.raises(ValueError, match="does not fit samples of batch shape"):
        field(x[:, :2], t[:, :2])
    with pytest.raises(ValueError, match="must return the shape of its input"):
        module_field(lambda x, t: x[:, :0], event_ndim=3)(x, t)


def test_schedules_of_the_users_own_follow_their_derivatives() -> None:
    class Quadratic:
        def __init__(self, t: Tensor) -> None:
            self.alpha_t, self.sigma_t = t**2, 1.0 - t**2
            self.d_alpha_t, self.d_sigma_t = 2.0 * t, -2.0 * t

    path = ScheduleInterpolant(Quadratic)
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    x0, x1 = torch.zeros(5, 1).double() - 1.0, torch.zeros(5, 1).double() + 1.0
    torch.testing.assert_close(path.velocity(x0, x1, t), 4.0 * t[:, None])
    torch.testing.assert_close(path.interpolate(x0, x1, t), 2.0 * t[:, None] ** 2 - 1.0)
    torch.testing.assert_close(path.wronskian(t), 2.0 * t)


@pytest.mark.parametrize("steps", [4, 5, 6])
def test_a_guidance_scale_per_sample_holds_along_a_path(steps: int, generator) -> None:
    kernel = MemorylessEuler(steps)  # 5 steps of 5 samples: the axes must not be mistaken
    field = guided_field(
        lambda x, t: torch.sin(x) + t[..., None],
        lambda x, t: -x,
        torch.tensor([0.0, 1.0, 3.0, 7.0, 2.0]),
    )
    path = sample_path(kernel, field, torch.randn(5, 2, generator=generator), generator=generator)
    along = velocities_along(kernel, field, path)
    for k, time in enumerate(kernel.times):
        torch.testing.assert_close(along[k], field(path.inputs[k], torch.full((5,), time)))
    wrong = guided_field(field, field, torch.ones(3))
    with pytest.raises(ValueError, match=r"scale of shape \(3,\) does not fit"):
        sample_path(kernel, wrong, torch.randn(5, 2, generator=generator))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_keeps_to_the_timesteps_of_the_table(dtype: torch.dtype) -> None:
    seen: list[Tensor] = []

    def model(x: Tensor, timestep: Tensor) -> Tensor:
        seen.append(timestep)
        return x

    for integer in (False, True):
        field = variance_preserving_field(model, DDPM, integer_timesteps=integer, first_time=0.0)
        t = torch.tensor([0.0, 0.5, 1.0], dtype=dtype)
        assert field(torch.ones(3, 2, dtype=dtype), t).dtype == dtype
        exact = variance_preserving_field(model, DDPM, integer_timesteps=integer, first_time=0.0)
        exact(torch.ones(3, 2, dtype=torch.float64), t.double())
        assert seen[-2].max() == 999
        torch.testing.assert_close(seen[-2].double(), seen[-1].double(), rtol=1e-4, atol=1e-3)


def test_conditions_may_be_labels_but_must_be_tensors() -> None:
    table, labels = torch.nn.Embedding(4, 2), torch.tensor([0, 3, 1])
    field = module_field(lambda x, t, label: x + table(label), labels)
    x = torch.zeros(2, 3, 2)
    torch.testing.assert_close(field(x, x[..., 0]), table(labels).expand(2, 3, 2))
    for condition in (None, 3, [0, 3, 1]):
        with pytest.raises(ValueError, match=r"condition 0.* must be a tensor"):
            module_field(lambda x, t, label: x, condition)  # type: ignore[arg-type]


def test_mistaken_arguments_of_adapters_are_named() -> None:
    images = torch.zeros(5, 2, 4, 4)
    forgotten = module_field(lambda x, t: -x, event_ndim=3)
    with (
        pytest.warns(UserWarning, match="event_ndim=3 for images"),
        pytest.raises(ValueError, match="the same event_ndim"),
    ):
        sample_path(MemorylessEuler(2), forgotten, images)
    with pytest.raises(ValueError, match="the same event_ndim"):
        sample_path(MemorylessEuler(2, event_ndim=3), module_field(lambda x, t: -x), images)
    with pytest.raises(ValueError, match="timesteps must be positive, got 0"):
        reversed_flow_field(lambda x, t: x, 0)

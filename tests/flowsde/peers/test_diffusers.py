"""Models under the conventions of diffusers give the samples of its own schedulers."""

import itertools

import pytest
import torch
from torch import Tensor

from flowsde import (
    CosineInterpolant,
    DiffusionPrediction,
    VelocityField,
    from_velocity,
    guided_field,
    module_field,
    ode_sample,
    reversed_flow_field,
    variance_preserving_field,
)

diffusers = pytest.importorskip("diffusers", reason="needs the dependency group `peers`")
PREDICTIONS: tuple[DiffusionPrediction, ...] = ("epsilon", "v_prediction", "sample")


@pytest.mark.parametrize(("shift", "steps"), [(1.0, 20), (3.0, 20), (3.0, 8)])
def test_flow_match_euler_gives_the_same_samples(network, noise, shift: float, steps: int) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    x = noise
    for timestep in scheduler.timesteps:
        output = network(x, timestep.double().expand(len(x)) / 1000.0)
        x = scheduler.step(output, timestep, x).prev_sample
    field = reversed_flow_field(lambda x, timestep: network(x, timestep / 1000.0))
    ours = ode_sample(field, noise, times=scheduler.sigmas)
    assert (ours - noise).abs().mean() > 0.05
    torch.testing.assert_close(ours, x.double(), rtol=1e-4, atol=1e-4)


def ddim_step(field: VelocityField, x: Tensor, t: Tensor, later: Tensor) -> Tensor:
    """DDIM goes on along the path between the data and the noise that the model predicts now."""
    path = CosineInterpolant()
    v = field(x, t)
    data, noise = from_velocity("data", v, x, t, path), from_velocity("noise", v, x, t, path)
    return path.interpolate(noise, data, later)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("guidance", [None, 2.5])
def test_ddim_gives_the_same_samples(
    network, noise, prediction: DiffusionPrediction, guidance: float | None
) -> None:
    scheduler = diffusers.DDIMScheduler(
        prediction_type=prediction, clip_sample=False, set_alpha_to_one=False
    )
    scheduler.set_timesteps(25)

    def model(x: Tensor, timestep: Tensor) -> Tensor:
        return network(x, timestep / 1000.0)

    def unconditional(x: Tensor, timestep: Tensor) -> Tensor:
        return 0.5 * model(x, timestep) - 0.2 * x

    x = noise
    for timestep in scheduler.timesteps:
        now = timestep.expand(len(x))
        output = model(x, now)
        if guidance is not None:
            free = unconditional(x, now)
            output = free + guidance * (output - free)
        x = scheduler.step(output, timestep, x).prev_sample

    table = scheduler.alphas_cumprod
    # The scheduler asks at all timesteps, however near to pure noise or clean data.
    whole = {"first_time": 0.0, "last_time": 1.0}
    field = variance_preserving_field(model, table, prediction, **whole)
    if guidance is not None:
        free_field = variance_preserving_field(unconditional, table, prediction, **whole)
        field = guided_field(field, free_field, guidance)
    visited = [*scheduler.timesteps.tolist(), 0]
    times = torch.asin(table.double().sqrt()) * 2.0 / torch.pi
    ours = noise
    for now, after in itertools.pairwise(visited):
        t, later = times[now].expand(len(noise)), times[after].expand(len(noise))
        ours = ddim_step(field, ours, t, later)
    # Timestep 0 is visited already: the last step of the scheduler stays where it is.
    assert visited[-2:] == [0, 0]
    assert (ours - noise).abs().mean() > 0.05
    torch.testing.assert_close(ours, x.double(), rtol=2e-4, atol=2e-4)


def test_the_ode_is_the_limit_of_ddim(network, noise) -> None:
    scheduler = diffusers.DDIMScheduler(
        prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False
    )
    scheduler.set_timesteps(1000)
    x = noise
    for timestep in scheduler.timesteps:
        x = scheduler.step(network(x, timestep.expand(len(x)) / 1000.0), timestep, x).prev_sample
    table = scheduler.alphas_cumprod
    field = variance_preserving_field(lambda x, n: network(x, n / 1000.0), table, "v_prediction")
    ends = torch.asin(table[[-1, 0]].double().sqrt()) * 2.0 / torch.pi
    ours = ode_sample(field, noise, 400, "heun", t0=float(ends[0]), t1=float(ends[1]))
    torch.testing.assert_close(ours, x.double(), rtol=0.0, atol=2e-2)


def test_a_unet_of_images_becomes_a_field_along_paths() -> None:
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 16), down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"), num_class_embeds=3,
    ).requires_grad_(False)  # fmt: skip
    classes = torch.tensor([0, 2])
    scheduler = diffusers.DDIMScheduler(clip_sample=False)

    def field(label: Tensor) -> VelocityField:
        model = module_field(lambda x, n, c: unet(x, n, c).sample, label, event_ndim=3)
        return variance_preserving_field(model, scheduler.alphas_cumprod)

    x, t = torch.randn(5, 2, 1, 8, 8), torch.rand(5, 2)
    v = field(classes)(x, t)
    assert v.shape == x.shape
    torch.testing.assert_close(
        v[3, 1:], field(classes[1:])(x[3, 1:], t[3, 1:]), rtol=1e-4, atol=1e-4
    )
    assert (v[3, 1:] - field(classes[:1])(x[3, 1:], t[3, 1:])).abs().max() > 1e-3


def test_zero_terminal_snr_starts_from_pure_noise(noise) -> None:
    scheduler = diffusers.DDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=False
    )
    seen: list[Tensor] = []

    def model(x: Tensor, timestep: Tensor) -> Tensor:
        seen.append(timestep)
        return x

    field = variance_preserving_field(model, scheduler.alphas_cumprod, "v_prediction")
    field(noise, torch.zeros(len(noise), dtype=torch.float64))
    torch.testing.assert_close(seen[0], torch.full_like(seen[0], 999.0), rtol=0.0, atol=1e-3)

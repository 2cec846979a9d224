"""A model trained by torchcfm samples here as it does there."""

import pytest
import torch
from torch import Tensor

from flowsde import CosineInterpolant, Interpolant, LinearInterpolant, module_field, ode_sample

torchcfm = pytest.importorskip("torchcfm", reason="needs the dependency group `peers`")
models = pytest.importorskip("torchcfm.models")
unets = pytest.importorskip("torchcfm.models.unet")
torchdiffeq = pytest.importorskip("torchdiffeq", reason="needs the dependency group `peers`")


@pytest.mark.parametrize(
    ("matcher", "interpolant"),
    [
        (torchcfm.ConditionalFlowMatcher(sigma=0.0), LinearInterpolant()),
        (torchcfm.ExactOptimalTransportConditionalFlowMatcher(sigma=0.0), LinearInterpolant()),
        (torchcfm.VariancePreservingConditionalFlowMatcher(sigma=0.0), CosineInterpolant()),
    ],
)
def test_paths_and_targets_agree(matcher, interpolant: Interpolant, noise) -> None:
    data, t = torch.randn_like(noise), torch.rand(len(noise), dtype=torch.float64)
    x_t = matcher.compute_mu_t(noise, data, t)
    target = matcher.compute_conditional_flow(noise, data, t, None)
    torch.testing.assert_close(interpolant.interpolate(noise, data, t), x_t)
    torch.testing.assert_close(interpolant.velocity(noise, data, t), target)


def test_a_model_trained_there_samples_identically_here() -> None:
    torch.manual_seed(0)
    model = models.MLP(dim=2, w=64, time_varying=True)
    matcher = torchcfm.ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(300):
        data = torch.tensor([2.0, -1.0]) + 0.5 * torch.randn(128, 2)
        t, x_t, target = matcher.sample_location_and_conditional_flow(torch.randn(128, 2), data)
        loss = (model(torch.cat([x_t, t[:, None]], -1)) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    noise = torch.randn(512, 2)

    def slope(t: Tensor, x: Tensor) -> Tensor:
        return model(torch.cat([x, t.expand(len(x), 1)], -1))

    with torch.no_grad():
        grid = torch.linspace(0.0, 1.0, 51)
        theirs = torchdiffeq.odeint(slope, noise, grid, method="euler")[-1]
        ours = ode_sample(lambda x, t: model(torch.cat([x, t[..., None]], -1)), noise, 50)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert torch.allclose(ours.mean(0), torch.tensor([2.0, -1.0]), atol=0.2)
    assert torch.allclose(ours.std(0), torch.full((2,), 0.5), atol=0.15)


def test_its_unet_takes_the_time_first() -> None:
    torch.manual_seed(0)
    unet = unets.UNetModel(
        dim=(1, 8, 8), num_channels=32, num_res_blocks=1, channel_mult=(1, 2), num_classes=3,
        class_cond=True, attention_resolutions="4",
    ).requires_grad_(False)  # fmt: skip
    # Its last layer starts at zero.
    for parameter in unet.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    label = torch.tensor([0, 2])
    field = module_field(lambda x, t, y: unet(t, x, y), label, event_ndim=3)
    noise = torch.randn(2, 1, 8, 8)
    ours = ode_sample(field, noise, 5, event_ndim=3)
    theirs = torchdiffeq.odeint(
        lambda t, x: unet(t, x, label), noise, torch.linspace(0.0, 1.0, 6), method="euler"
    )[-1]
    assert (ours - noise).abs().mean() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)

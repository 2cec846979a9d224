"""Conventions of diffusers read off a model and a scheduler; its own are in tests/flowsde/peers."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flowsde import (
    CosineInterpolant,
    DiffusersFlow,
    LinearInterpolant,
    adapters_off,
    module_field,
    ode_sample,
    without_adapters,
)


class Scheduler:
    """What is read of a scheduler."""

    def __init__(self, alphas: Tensor | None = None, **config: Any) -> None:
        self.config, self.num_inference_steps = config, None
        if alphas is not None:
            self.alphas_cumprod = alphas


class SD3Transformer2DModel(nn.Module):
    """Called as that of diffusers; answers with what it was given."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones((), dtype=dtype))

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, shift: Tensor, bias: float = 0.0, *,
        return_dict: bool = True,
    ) -> tuple[Tensor]:  # fmt: skip
        assert hidden_states.dtype == self.gain.dtype
        assert not return_dict
        added = (timestep / 1000.0 + shift + bias)[:, None, None, None]
        return (self.gain * hidden_states + added.to(self.gain.dtype),)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_flow_transformer(dtype: torch.dtype) -> None:
    flow = DiffusersFlow(SD3Transformer2DModel(dtype), Scheduler(num_train_timesteps=1000))
    assert (flow.timesteps, flow.event_ndim) == (1000.0, 3)
    assert isinstance(flow.interpolant, LinearInterpolant)
    x, t = torch.zeros(5, 2, 1, 2, 2), torch.full((5, 2), 0.25)
    shift = torch.tensor([0.0, 1.0])
    v = flow.field({"shift": shift}, shared={"bias": 2.0})(x, t)
    assert v.dtype == torch.float32
    torch.testing.assert_close(v[3, :, 0, 0, 0], torch.tensor([-2.75, -3.75]))
    guided = flow.field(
        {"shift": shift}, negative={"shift": -shift}, guidance_scale=3.0, shared={"bias": 2.0}
    )
    torch.testing.assert_close(guided(x, t)[3, :, 0, 0, 0], torch.tensor([-2.75, -7.75]))


def test_grids_are_those_of_the_schedulers() -> None:
    scheduler = Scheduler()
    flow = DiffusersFlow(SD3Transformer2DModel(), scheduler)
    with pytest.raises(ValueError, match="set_timesteps"):
        flow.times()
    scheduler.num_inference_steps, scheduler.sigmas = 2, torch.tensor([1.0, 0.75, 0.0])
    assert flow.times() == (0.0, 0.25, 1.0)

    times = torch.tensor([0.9, 0.6, 0.2], dtype=torch.float64)
    scheduler = Scheduler((0.5 * math.pi * times).sin().square(), prediction_type="sample")
    flow = DiffusersFlow(SD3Transformer2DModel(), scheduler)
    assert isinstance(flow.interpolant, CosineInterpolant)
    scheduler.num_inference_steps, scheduler.timesteps = 3, torch.tensor([2, 1, 0])
    assert flow.times() == pytest.approx((0.2, 0.6, 0.9, 1.0))
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    assert flow.times() == pytest.approx((0.2, 0.6, 0.9))


def test_what_is_not_known_is_refused() -> None:
    model = SD3Transformer2DModel()
    with pytest.raises(ValueError, match=r"timestep Linear takes .* give timesteps=1000\.0"):
        DiffusersFlow(nn.Linear(1, 1), Scheduler())
    assert DiffusersFlow(nn.Linear(1, 1), Scheduler(), 1.0, 2).event_ndim == 2
    with pytest.raises(ValueError, match="prediction_type 'trajectory'"):
        DiffusersFlow(model, Scheduler(torch.linspace(0.9, 0.1, 9), prediction_type="trajectory"))
    with pytest.raises(ValueError, match="invert_sigmas"):
        DiffusersFlow(model, Scheduler(invert_sigmas=True))
    with pytest.raises(ValueError, match="guidance_scale needs negative="):
        DiffusersFlow(model, Scheduler()).field(guidance_scale=2.0)


def test_ddim_is_euler_on_straight_paths_and_exact_for_one_image() -> None:
    noise = torch.randn(4, 3, dtype=torch.float64)

    def field(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(x) + t[:, None]

    torch.testing.assert_close(ode_sample(field, noise, 7, "ddim"), ode_sample(field, noise, 7))
    path, image = CosineInterpolant(), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def to_image(x: Tensor, t: Tensor) -> Tensor:
        t = t[:, None]
        predicted = (x - path.alpha(t) * image) / path.beta(t)
        return path.d_alpha(t) * image + path.d_beta(t) * predicted

    drawn = ode_sample(to_image, noise, 3, "ddim", interpolant=path)
    torch.testing.assert_close(drawn, image.expand(4, 3))
    assert (ode_sample(to_image, noise, 3) - image).abs().max() > 0.05


class Adapted(nn.Module):
    """A layer with an adapter, with the switches of those of peft."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self.adapter = nn.Parameter(torch.tensor(1.0))
        self.disable_adapters = False

    def enable_adapters(self, enabled: bool) -> None:
        self.disable_adapters = not enabled
        self.adapter.requires_grad_(enabled)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x * (self.weight if self.disable_adapters else self.adapter))


class Checkpointed(nn.Module):
    """Two such layers, recomputed in the backward pass."""

    def __init__(self, gradient_checkpointing: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Adapted(), Adapted()])
        self.gradient_checkpointing = gradient_checkpointing

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in self.layers:
            x = (
                checkpoint(layer, x, use_reentrant=False)
                if self.gradient_checkpointing
                else layer(x)
            )
        return x


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_are_off_in_the_base_and_nowhere_else(checkpointing: bool) -> None:
    model = Checkpointed(checkpointing)
    frozen = model.layers[1].adapter.requires_grad_(False)
    fine = module_field(model)
    base = without_adapters(fine, model)
    x, t = torch.randn(3, 2, requires_grad=True), torch.rand(3)
    v = base(x, t)
    torch.testing.assert_close(v, torch.tanh(2.0 * torch.tanh(2.0 * x)))
    expected = torch.autograd.grad(torch.tanh(2.0 * torch.tanh(2.0 * x)).sum(), x)
    torch.testing.assert_close(torch.autograd.grad(v.sum(), x), expected)
    torch.testing.assert_close(fine(x, t), torch.tanh(torch.tanh(x)))
    assert not frozen.requires_grad
    assert model.layers[0].adapter.requires_grad
    torch.autograd.backward(base(x, t).sum())
    assert model.layers[0].adapter.grad is None

    def fails(x: Tensor, t: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="memory"):
        without_adapters(fails, model)(x, t)
    assert not any(layer.disable_adapters for layer in model.layers)
    with adapters_off(model), adapters_off(model):
        pass
    with adapters_off(model):
        without_adapters(fine, model)(x, t)
        assert all(layer.disable_adapters for layer in model.layers)
    with pytest.raises(ValueError, match="Linear has no adapters"):
        without_adapters(fine, nn.Linear(1, 1))

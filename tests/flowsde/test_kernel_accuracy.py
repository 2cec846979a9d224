"""Kernels on mixtures and on a trained flow: the example's measurements, with bounds."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from flowsde import (
    AdamsBashforthKernel,
    CosineInterpolant,
    FollmerKernel,
    MemorylessEuler,
    TransitionKernel,
    flow_matching_loss,
    sample_path,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "kernel_accuracy.py"
MIXTURES = ("two modes", "two widths", "skewed")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    specification = importlib.util.spec_from_file_location("kernel_accuracy", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("shape", MIXTURES)
def test_ten_evaluations_on_mixtures(shape: str, example: ModuleType) -> None:
    """Shift, spread, path KL and regressed control over a tenfold range of scales."""
    shift, spread, kl, control = example.worst("AdamsBashforthKernel", 10, shape, 40_000)
    assert 0.003 < shift < 0.02
    assert 0.002 < spread < 0.04
    assert 0.005 < kl < 0.045
    assert 0.005 < control < 0.05


def test_one_step_kernels_on_a_mixture(example: ModuleType) -> None:
    for name in ("MemorylessEuler", "FollmerKernel"):
        errors = example.worst(name, 10, "two modes", 10_000)
        assert errors[0] > 0.1
        assert min(errors[1:]) > 0.3


@pytest.mark.parametrize("shape", MIXTURES)
def test_kl_error_on_mixtures_is_of_second_order_in_the_step(
    shape: str, example: ModuleType
) -> None:
    """The error that sampling noise leaves visible, against the step of the grid in log s."""
    law = example.Mixture.of(*example.SHAPES[shape], std=0.5)
    steps, errors = [], []
    for count in (8, 32):
        kernel = AdamsBashforthKernel(count)
        low, high = (2.0 * math.log(t / (1.0 - t)) for t in kernel.times[1:3])
        steps.append(high - low)
        errors.append(abs(example.measure(kernel, law, 60_000).kl))
    order = math.log(errors[0] / errors[1]) / math.log(steps[0] / steps[1])
    assert 1.25 < order < 2.5, (errors, steps)


def test_every_interpolant_gives_the_same_errors(example: ModuleType) -> None:
    laws = [
        example.Mixture.of(*example.SHAPES["skewed"], std=0.4, interpolant=path)
        for path in (example.LINEAR, CosineInterpolant())
    ]
    linear, cosine = (
        example.measure(AdamsBashforthKernel(6, interpolant=law.interpolant), law, 2_000)
        for law in laws
    )
    for name in ("shift", "spread", "kl", "control"):
        assert getattr(cosine, name) == pytest.approx(getattr(linear, name), abs=1e-6)


class Flow(nn.Module):
    """A small policy network: action and state in, velocity out."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (2 + 1 + 1, 48, 48, 2)
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.GELU()]
        self.net = nn.Sequential(*layers[:-1])

    def forward(self, x: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([x, t[..., None], s.expand(*x.shape[:-1], 1)], -1))


def actions(s: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Two ways to act, whose width depends on the state (0.05 to 0.3) and on the dimension."""
    side = torch.where(torch.rand(s.shape, generator=generator) < 0.5, -0.5, 0.5)
    width = 0.05 + 0.25 * s
    eps = torch.randn((*s.shape[:-1], 2), generator=generator)
    return torch.cat([side, s - 0.5], -1) + torch.cat([width, 0.5 * width], -1) * eps


@pytest.mark.slow
def test_ten_evaluations_on_a_trained_policy() -> None:
    """Its spread against that of many small steps: widths differ by state and dimension."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    policy, updates = Flow(), 2000
    optimiser = torch.optim.Adam(policy.parameters(), 3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    for _ in range(updates):
        s = torch.rand(256, 1, generator=generator)
        x0 = torch.randn(256, 2, generator=generator)
        t = torch.rand(256, generator=generator)
        data = actions(s, generator)
        loss = flow_matching_loss(lambda x, t, s=s: policy(x, t, s), data, x0, t).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    scale = actions(torch.rand(4096, 1, generator=generator), generator).std(0)
    noise = torch.randn(6_000, 2, generator=generator)

    @torch.no_grad()
    def spreads(kernel: TransitionKernel) -> torch.Tensor:
        """Standard deviations in three states, (3, 2)."""
        found = []
        for state in (0.2, 0.5, 0.8):
            s = torch.tensor([state])
            eps = torch.Generator().manual_seed(2)
            path = sample_path(kernel, lambda x, t, s=s: policy(x, t, s), noise, generator=eps)
            found.append(path.sample.std(0))
        return torch.stack(found)

    exact = spreads(AdamsBashforthKernel(60, scale=scale))
    two_steps, one_step, published = (
        float((spreads(kernel) / exact - 1.0).abs().max())
        for kernel in (
            AdamsBashforthKernel(10, scale=scale),
            FollmerKernel(10, scale=scale),
            MemorylessEuler(10),
        )
    )
    assert 0.01 < two_steps < 0.15
    # The policy is up to six times narrower than the data whose scale the kernels are given.
    assert min(one_step, published) > 0.5

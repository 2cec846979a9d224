"""Times and sums are float32 or wider, whatever the samples."""

import pytest
import torch
from torch import Tensor

from adjoint import lean_adjoint, matching_loss
from flowsde import (
    AdamsBashforthKernel,
    CosineInterpolant,
    FollmerKernel,
    LinearInterpolant,
    MemorylessEuler,
    Prediction,
    TransitionKernel,
    flow_matching_loss,
    from_velocity,
    ode_log_prob,
    ode_sample,
    path_times,
    reversed_flow_field,
    sample_path,
    to_velocity,
    velocities_along,
    velocity_field,
)
from trustregion import path_kl

KERNELS = [MemorylessEuler(10), FollmerKernel(10), AdamsBashforthKernel(10)]


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: type(kernel).__name__)
def test_fields_get_exact_times(kernel: TransitionKernel, narrow: torch.dtype, generator) -> None:
    seen: list[Tensor] = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        assert x.dtype == narrow
        seen.append(t)
        return t[..., None] - x  # float32

    noise = torch.randn(3, 2, generator=generator).to(narrow)
    with torch.no_grad():
        path = sample_path(kernel, field, noise, generator=generator)
    assert path.states.dtype == narrow
    assert [float(t[0]) for t in seen] == pytest.approx(kernel.times, abs=1e-7)
    velocities_along(kernel, field, path)
    torch.testing.assert_close(seen[-1], path_times(kernel, path))
    assert lean_adjoint(kernel, field, path, path.sample).dtype == narrow
    ode_sample(field, noise, 7)
    ode_log_prob(field, noise, 7)
    assert {t.dtype for t in seen} == {torch.float32}


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: type(kernel).__name__)
def test_kl_and_loss_of_narrow_velocities_are_those_of_their_float32(kernel, generator) -> None:
    fine, base = torch.randn(2, 10, 4, 3, generator=generator).bfloat16()
    adjoints = torch.randn(11, 4, 3, generator=generator).bfloat16()
    for lam in (0.7, torch.tensor([0.7, 0.3, 2.0, 1.0])):
        wide = matching_loss(kernel, fine.float(), base.float(), adjoints.float(), lam)
        assert torch.equal(matching_loss(kernel, fine, base, adjoints, lam), wide)
    assert torch.equal(path_kl(kernel, fine, base), path_kl(kernel, fine.float(), base.float()))


@pytest.mark.parametrize("path", [LinearInterpolant(), CosineInterpolant()])
@pytest.mark.parametrize("prediction", ["data", "noise", "score"])
def test_conversions_keep_the_dtype_of_samples(path, prediction: Prediction, generator) -> None:
    x, v = torch.randn(2, 6, 3, generator=generator).bfloat16()
    t = torch.linspace(0.1, 0.9, 6)
    there = from_velocity(prediction, v, x, t, path)
    back = to_velocity(prediction, there, x, t, path)
    assert there.dtype == back.dtype == torch.bfloat16
    torch.testing.assert_close(back, v, rtol=0.1, atol=0.1)
    exact = from_velocity(prediction, v.float(), x.float(), t, path)
    torch.testing.assert_close(there.float(), exact, rtol=1e-2, atol=1e-2)
    field = velocity_field(lambda x, t: x, prediction, path)
    assert field(x, t).dtype == reversed_flow_field(lambda x, t: x)(x, t).dtype == torch.bfloat16


def test_the_flow_loss_of_narrow_data_is_summed_in_float32(generator) -> None:
    x1, x0 = torch.randn(2, 64, 300, generator=generator).bfloat16()
    t = torch.rand(64, generator=generator)
    seen: list[Tensor] = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        seen.extend((x, t))
        return x

    loss = flow_matching_loss(field, x1, x0, t)
    exact = flow_matching_loss(lambda x, t: x, x1.double(), x0.double(), t.double())
    assert (seen[0].dtype, seen[1].dtype, loss.dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.float32,
    )
    assert torch.equal(seen[1], t)
    torch.testing.assert_close(loss.double(), exact, rtol=2e-3, atol=0.0)

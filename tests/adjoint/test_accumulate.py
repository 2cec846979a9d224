import copy

import pytest
import torch
from torch import Tensor, nn

from adjoint import accumulate_gradients, lean_adjoint, matching_loss
from flowsde import (
    AdamsBashforthKernel,
    FollmerKernel,
    MemorylessEuler,
    TransitionKernel,
    sample_path,
    velocities_along,
)
from trustregion import path_kl


class Field(nn.Module):
    def __init__(self, dim: int = 3) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim + 1, 16), nn.Tanh(), nn.Linear(16, dim))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.net(torch.cat([x, t.unsqueeze(-1)], -1))
        return out


def gradients(field: Field) -> list[Tensor]:
    found = [p.grad for p in field.parameters() if p.grad is not None]
    assert len(found) == 4
    return [g.clone() for g in found]


KERNELS: list[TransitionKernel] = [
    MemorylessEuler(6),
    FollmerKernel(6, scale=0.7),
    AdamsBashforthKernel(6),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
@pytest.mark.parametrize("steps", [None, [4, 1, 5], torch.tensor([4, 1, 5])], ids=str)
@pytest.mark.parametrize("chunk", [1, 2, 10])
def test_it_is_the_gradient_of_the_whole_loss(
    kernel: TransitionKernel, steps: list[int] | Tensor | None, chunk: int
) -> None:
    torch.manual_seed(0)
    base = Field().double().requires_grad_(False)
    fine = copy.deepcopy(base).requires_grad_(True)
    with torch.no_grad():
        for parameter in fine.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        path = sample_path(kernel, fine, torch.randn(5, 3, dtype=torch.float64))
        at_base = velocities_along(kernel, base, path)
    adjoints = lean_adjoint(kernel, base, path, -torch.ones_like(path.sample))
    lam = torch.linspace(0.5, 2.0, 5, dtype=torch.float64)

    index = list(range(kernel.steps)) if steps is None else steps
    at_fine = velocities_along(kernel, fine, path)
    whole = matching_loss(kernel, at_fine[index], at_base[index], adjoints, lam, steps=steps)
    torch.autograd.backward(0.25 * whole.mean())
    expected = gradients(fine)
    fine.zero_grad()

    got = accumulate_gradients(
        kernel, fine, base, path, adjoints, lam, steps=steps, chunk=chunk, scale=0.25
    )
    torch.testing.assert_close(got.loss, whole.detach())
    torch.testing.assert_close(gradients(fine), expected)
    torch.testing.assert_close(got.fine, at_fine.detach()[index])
    torch.testing.assert_close(got.base, at_base[index])
    assert not got.loss.requires_grad
    if steps is None:
        kl = path_kl(kernel, got.fine, got.base)
        torch.testing.assert_close(kl, path_kl(kernel, at_fine.detach(), at_base))


def test_micro_batches_add_up() -> None:
    torch.manual_seed(0)
    kernel = MemorylessEuler(4)
    base = Field().double().requires_grad_(False)
    fine = copy.deepcopy(base).requires_grad_(True)
    noise, steps = torch.randn(8, 3).double(), torch.randn(4, 8, 3).double()

    def accumulate(rows: slice, scale: float) -> None:
        with torch.no_grad():
            path = sample_path(kernel, base, noise[rows], steps[:, rows])
        adjoints = lean_adjoint(kernel, base, path, -torch.ones_like(path.sample))
        accumulate_gradients(kernel, fine, base, path, adjoints, scale=scale)

    accumulate(slice(None), 1.0)
    expected = gradients(fine)
    fine.zero_grad()
    accumulate(slice(0, 4), 0.5)
    accumulate(slice(4, 8), 0.5)
    torch.testing.assert_close(gradients(fine), expected)


def test_bad_arguments_are_refused() -> None:
    kernel = MemorylessEuler(4)
    field = Field()
    path = sample_path(kernel, field, torch.randn(2, 3))
    adjoints = torch.zeros(5, 2, 3)
    with pytest.raises(ValueError, match="chunk must be an integer of at least 1, got 0"):
        accumulate_gradients(kernel, field, field, path, adjoints, chunk=0)
    with pytest.raises(ValueError, match="steps is empty"):
        accumulate_gradients(kernel, field, field, path, adjoints, steps=[])


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        ([0, 9], ValueError, r"indices in 0\.\.3, got \[0, 9\]"),
        ([0, -1], ValueError, "time step must be an integer of at least 0, got -1"),
        ([0.5], ValueError, "time step must be an integer"),
        (torch.tensor([0, 9]), IndexError, "out of bounds"),
        (torch.tensor([0.0, 1.0]), ValueError, "must be a vector of integers"),
        (torch.tensor(1), ValueError, "must be a vector of integers"),
    ],
)
def test_steps_out_of_range_leave_no_gradient(steps, error, message) -> None:
    kernel, field = MemorylessEuler(4), Field()
    with torch.no_grad():
        path = sample_path(kernel, field, torch.randn(2, 3))
    with pytest.raises(error, match=message):
        accumulate_gradients(kernel, field, field, path, torch.zeros(5, 2, 3), steps=steps)
    assert all(p.grad is None for p in field.parameters())


def test_a_frozen_model_and_a_foreign_kernel_are_named() -> None:
    kernel, field = MemorylessEuler(4), Field().requires_grad_(False)
    path = sample_path(kernel, field, torch.randn(2, 3))
    with pytest.raises(ValueError, match="nothing in fine requires a gradient"):
        accumulate_gradients(kernel, field, field, path, torch.zeros(5, 2, 3))
    for use in (
        lambda: accumulate_gradients(FollmerKernel(4), field, field, path, torch.zeros(5, 2, 3)),
        lambda: lean_adjoint(FollmerKernel(4), field, path, torch.zeros(2, 3)),
    ):
        with pytest.raises(ValueError, match="the path was sampled with MemorylessEuler"):
            use()

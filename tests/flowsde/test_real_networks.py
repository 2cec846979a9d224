"""What only users of real networks meet: train mode, trees of conditions, memory, padding."""

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from adjoint import accumulate_gradients, lean_adjoint, matching_loss
from flowsde import (
    AdamsBashforthKernel,
    FollmerKernel,
    MemorylessEuler,
    TransitionKernel,
    flow_matching_loss,
    module_field,
    sample_path,
    velocities_along,
)
from trustregion import path_kl, path_kl_steps

KERNELS = [MemorylessEuler(5), FollmerKernel(5), AdamsBashforthKernel(5)]


def network(*extra: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.GELU(), *extra, nn.Linear(16, 2))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("layer", [nn.Dropout(0.2), nn.BatchNorm1d(16)], ids=lambda m: str(m)[:7])
def test_train_mode_is_warned_of_where_two_equal_networks_differ(layer: nn.Module) -> None:
    net, kernel = network(layer), MemorylessEuler(10)
    field = module_field(lambda x, t: net(x))  # a lambda hides the module
    with torch.no_grad():
        path = sample_path(kernel, field, torch.randn(64, 2))
    first, second = (velocities_along(kernel, field, path).detach() for _ in range(2))
    apart = float(path_kl(kernel, first, second).mean())
    if isinstance(layer, nn.Dropout):
        assert apart > 1e-3
    named = module_field(Timed(net))
    for call in (
        lambda: named(path.inputs, torch.zeros(10, 64)),
        lambda: sample_path(kernel, Timed(net), torch.zeros(4, 2)),
        lambda: velocities_along(kernel, Timed(net), path),
    ):
        with pytest.warns(UserWarning, match=r"in train mode, so the field.*call \.eval\(\)"):
            call()
    net.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named = module_field(Timed(net).eval())
        first, second = (velocities_along(kernel, named, path) for _ in range(2))
        network(nn.Dropout(0.0)).train()
        module_field(Timed(network(nn.Dropout(0.0))))(path.inputs[0], torch.zeros(64))
    assert float(path_kl(kernel, first, second).detach().max()) == 0.0


class Timed(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(x.reshape(-1, 2)).reshape(x.shape)  # type: ignore[no-any-return]


def test_conditions_may_be_trees() -> None:
    def net(x: Tensor, t: Tensor, observation: dict[str, Tensor], rest: list[Tensor]) -> Tensor:
        assert observation["image"].shape == (6, 3, 4, 4)
        assert len(x) == len(t) == len(rest[0]) == len(rest[1][0]) == 6
        return x + observation["state"] + observation["image"].mean((1, 2, 3))[:, None] + rest[0]

    observation = {"state": normal(2, 2), "image": normal(2, 3, 4, 4, seed=1)}
    rest = [normal(2, 2, seed=2), (torch.tensor([1, 2]),)]
    x, t = normal(3, 2, 2, seed=3), torch.zeros(3, 2)
    v = module_field(net, observation, rest)(x, t)
    offset = observation["state"] + observation["image"].mean((1, 2, 3))[:, None] + rest[0]
    torch.testing.assert_close(v, x + offset)
    short = {"state": normal(2, 2), "image": normal(3, 3, 4, 4)}
    with pytest.raises(ValueError, match=r"condition of shape \(3, 3, 4, 4\) does not fit"):
        module_field(net, short, rest)(x, t)


def test_a_condition_that_is_no_tensor_is_named_and_not_printed() -> None:
    image = normal(64, 64).numpy()
    for condition, message in (
        ({"image": image}, r"condition 0\['image'\] .*, got ndarray of shape \(64, 64\): torch"),
        ([torch.zeros(2), "blue"], r"condition 0\[1\] .*got 'blue'"),
        ((None,), r"condition 0\[0\] .*got None"),
        (3, r"condition 0 .*got 3"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            module_field(lambda x, t, c: x, condition)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("chunk", [1, 2, 3, 10])
def test_velocities_in_chunks_are_the_same(chunk: int) -> None:
    kernel, calls = MemorylessEuler(5), []

    def field(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return torch.sin(x) * t[..., None]

    path = sample_path(kernel, field, normal(3, 2), normal(5, 3, 2, seed=1))
    calls.clear()
    found = velocities_along(kernel, field, path, chunk=chunk)
    assert (max(calls), sum(calls)) == (min(chunk, 5), 5)
    assert torch.equal(found, velocities_along(kernel, field, path))
    for bad in (0, 1.5, True):
        with pytest.raises(ValueError, match="chunk must be an integer of at least 1"):
            velocities_along(kernel, field, path, chunk=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: type(kernel).__name__)
def test_padded_entries_do_not_count(kernel: TransitionKernel) -> None:
    """Samples of three, two and one entries, padded to three with anything, NaN included."""
    mask = torch.tensor([[True] * 3, [True, True, False], [True, False, False]])
    fine, base = normal(5, 3, 3).requires_grad_(), normal(5, 3, 3, seed=1)
    adjoints, lam = normal(6, 3, 3, seed=2), torch.tensor([0.5, 1.0, 2.0])
    padded = torch.where(mask, base, math.nan)
    kl = path_kl(kernel, fine, padded, mask=mask)
    loss = matching_loss(kernel, fine, padded, adjoints, lam, mask=mask)
    for sample, count in enumerate((3, 2, 1)):
        part = (..., slice(sample, sample + 1), slice(0, count))
        alone = path_kl(kernel, fine[part], base[part])
        torch.testing.assert_close(kl[sample : sample + 1], alone)
        alone = matching_loss(kernel, fine[part], base[part], adjoints[part], float(lam[sample]))
        torch.testing.assert_close(loss[sample : sample + 1], alone, rtol=1e-6, atol=1e-9)
    (gradient,) = torch.autograd.grad((kl + loss).sum(), fine)
    assert (gradient[:, ~mask] == 0.0).all()
    assert (gradient[:, mask] != 0.0).all()
    some = path_kl(kernel, fine[[0, 2, 4]], base[[0, 2, 4]], steps=[0, 2, 4], mask=mask)
    each = path_kl_steps(kernel, fine, base, mask=mask)
    torch.testing.assert_close(some, each[[0, 2, 4]].sum(0) * 5.0 / 3.0)
    whole = path_kl(kernel, fine, base, mask=torch.ones(3, dtype=torch.bool))
    assert torch.equal(whole, path_kl(kernel, fine, base))


def test_the_flow_loss_is_the_mean_over_entries_that_count() -> None:
    mask = torch.tensor([[True] * 3, [True, True, False], [False] * 3])
    x1, x0, t = normal(3, 3), normal(3, 3, seed=1), torch.tensor([0.2, 0.5, 0.9]).double()
    loss = flow_matching_loss(lambda x, t: x, x1, x0, t, mask=mask)
    for sample, count in enumerate((3, 2)):
        part = (slice(sample, sample + 1), slice(0, count))
        alone = flow_matching_loss(lambda x, t: x, x1[part], x0[part], t[sample : sample + 1])
        torch.testing.assert_close(loss[sample : sample + 1], alone)
    assert float(loss[2]) == 0.0


def test_accumulated_gradients_take_the_mask() -> None:
    kernel, net = MemorylessEuler(4), network().double()
    field, base = Timed(net), lambda x, t: -x
    path = sample_path(kernel, base, normal(5, 2), normal(4, 5, 2, seed=1))
    adjoints = lean_adjoint(kernel, base, path, torch.ones(5, 2, dtype=torch.float64))
    mask = torch.tensor([True, False])
    loss = accumulate_gradients(kernel, field, base, path, adjoints, mask=mask).loss
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    v, at_base = (velocities_along(kernel, f, path) for f in (field, base))
    expected = matching_loss(kernel, v, at_base, adjoints, mask=mask)
    expected.mean().backward()
    torch.testing.assert_close(loss, expected)
    for one, parameter in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)


def test_masks_that_do_not_fit_are_refused() -> None:
    kernel, v, a = MemorylessEuler(4), normal(4, 5, 2), normal(5, 5, 2)
    x = normal(5, 2)
    for mask, message in (
        (torch.ones(5, 2), "mask must be boolean"),
        (torch.ones(5, dtype=torch.bool), "does not fit"),
        (torch.ones(5, 3, dtype=torch.bool), "does not fit"),
        (torch.tensor(True), "does not fit"),
    ):
        for call in (
            lambda mask=mask: path_kl(kernel, v, v, mask=mask),
            lambda mask=mask: matching_loss(kernel, v, v, a, mask=mask),
            lambda mask=mask: flow_matching_loss(lambda x, t: x, x, x, x[:, 0], mask=mask),
        ):
            with pytest.raises(ValueError, match=message):
                call()

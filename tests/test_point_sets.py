"""Sets of points of different size: the optimum in closed form, equivariance, and the masks."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from adjoint import accumulate_gradients, lean_adjoint, matching_loss
from flowsde import MemorylessEuler, flow_matching_loss, sample_path, velocities_along
from flowsde import Path as StatePath
from trustregion import path_kl

FILE = Path(__file__).parents[1] / "examples" / "point_sets.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    specification = importlib.util.spec_from_file_location("point_sets", FILE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def test_sets_of_every_size_reach_the_optimum(example: ModuleType) -> None:
    with torch.random.fork_rng():
        network = example.fine_tune(updates=120)
        rows = example.results(network, count=800)
    variance = 1.0 / (1.0 / 0.8**2 + 2.0 / 2.0)
    ratio = variance / 0.8**2
    each = 1.5 * (ratio - 1.0 - math.log(ratio))
    for size, std, kl in rows:
        assert std == pytest.approx(math.sqrt(variance), rel=0.04)
        assert kl == pytest.approx(size * each, rel=0.15)

    x, t = torch.randn(6, 5, 3), torch.rand(6)
    sizes = torch.tensor([2, 3, 4, 5, 5, 3])
    field, exists = example.fine_field(network, sizes), example.masks(sizes)
    turn = torch.linalg.qr(torch.randn(3, 3)).Q
    v = field(x, t)
    torch.testing.assert_close(field(x @ turn, t), v @ turn, rtol=1e-4, atol=1e-4)
    elsewhere = torch.where(exists, x, 100.0)  # padding is seen by nobody
    kept = exists.expand(x.shape)
    torch.testing.assert_close(field(elsewhere, t)[kept], v[kept])


def test_padding_counts_nowhere(example: ModuleType) -> None:
    """Losses, gradients and KL of padded sets are those of the sets alone."""
    torch.manual_seed(0)
    network, kernel = example.Equivariant(), MemorylessEuler(6, event_ndim=2)
    for head in (network.own[-1], network.pair[-1]):
        torch.nn.init.normal_(head.weight, std=0.01)
    sizes = torch.tensor([2, 4])
    mask, field = example.masks(sizes), example.fine_field(network, sizes)

    def cut(x: Tensor, row: int) -> Tensor:
        return x[..., row : row + 1, : int(sizes[row]), :]

    with torch.no_grad():
        path = sample_path(kernel, field, torch.randn(2, 5, 3))
        before = velocities_along(kernel, example.base, path)
    adjoints = lean_adjoint(kernel, example.base, path, path.sample)
    adjoints = torch.where(mask, adjoints, math.nan)  # nothing is known of padding
    after = velocities_along(kernel, field, path)
    loss = matching_loss(kernel, after, before, adjoints, 0.7, mask=mask)
    kl = path_kl(kernel, after, before, mask=mask)
    data, noise, t = torch.randn(2, 5, 3), torch.randn(2, 5, 3), torch.rand(2)
    flow = flow_matching_loss(field, data, noise, t, event_ndim=2, mask=mask)

    def unpadded(x: Tensor, t: Tensor) -> Tensor:
        v: Tensor = example.base(x, t) + network(x, t, torch.ones(x.shape[:-1], dtype=torch.bool))
        return v

    for row in (0, 1):
        own = StatePath(cut(path.states, row), cut(path.inputs, row), kernel)
        first, second = (velocities_along(kernel, f, own) for f in (unpadded, example.base))
        torch.testing.assert_close(
            matching_loss(kernel, first, second, cut(adjoints, row), 0.7)[0], loss[row]
        )
        torch.testing.assert_close(path_kl(kernel, first, second)[0], kl[row])
        alone = flow_matching_loss(
            unpadded, cut(data, row), cut(noise, row), t[row : row + 1], event_ndim=2
        )
        torch.testing.assert_close(alone[0], flow[row])
    gradients = torch.autograd.grad(loss.mean(), list(network.parameters()))
    accumulate_gradients(kernel, field, example.base, path, adjoints, 0.7, chunk=2, mask=mask)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4)

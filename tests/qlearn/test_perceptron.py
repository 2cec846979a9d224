"""The CPU's own arithmetic against torch's layers, and linearizations against autograd."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from qlearn import MLP, CriticEnsemble, RandomStreams, _arithmetic, _perceptron
from qlearn._arithmetic import gelu_with_slope, onednn_suits

needs_onednn = pytest.mark.skipif(
    not onednn_suits(torch.zeros(1)), reason="this torch build has no oneDNN for the CPU"
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def network(replicas: int, layer_norm: bool, hidden: tuple[int, ...] = (7, 6)) -> MLP:
    mlp = MLP(replicas, 5, hidden, 3, layer_norm=layer_norm, streams=RandomStreams(range(replicas)))
    generator = torch.Generator().manual_seed(replicas)
    with torch.no_grad():
        for name, parameter in mlp.named_parameters():
            if not name.startswith("kernels"):
                parameter.normal_(generator=generator)
    return mlp


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use torch's own operations on every device, as on a GPU."""
    monkeypatch.setattr(_perceptron, "onednn_suits", lambda x: False)


@needs_onednn
@pytest.mark.parametrize("wanted", ["parameters", "input", "both", "nothing"])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("fused", [True, False], ids=["onednn", "mkl"])
def test_networks_one_by_one_give_value_and_gradients_of_torchs_layers(
    replicas: int, layer_norm: bool, wanted: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_arithmetic, "prefers_onednn", lambda size: fused)
    mlp = network(replicas, layer_norm).requires_grad_(wanted in ("parameters", "both"))
    x = torch.randn(4, replicas, 9, 5, requires_grad=wanted in ("input", "both"))
    leaves = [leaf for leaf in (x, *mlp.parameters()) if leaf.requires_grad]

    def run() -> tuple[Tensor, ...]:
        value = mlp(x)
        loss = (value * torch.linspace(-1, 1, 3)).square().sum()
        return (value, *(torch.autograd.grad(loss, leaves) if leaves else ()))

    found = run()
    assert found[0].requires_grad == (wanted != "nothing")
    plainly(monkeypatch)
    for mine, theirs in zip(found, run(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=2e-5)


@needs_onednn
def test_a_pack_gives_each_network_the_very_bits_that_it_gives_alone() -> None:
    critic = CriticEnsemble(3, 2, 4, (8, 8), layer_norm=True, streams=RandomStreams([4, 5, 6]))
    x = torch.randn(3, 16, 4)
    packed = critic(x)
    for r, seed in enumerate((4, 5, 6)):
        alone = CriticEnsemble(1, 2, 4, (8, 8), layer_norm=True, streams=RandomStreams([seed]))
        assert torch.equal(alone(x[r : r + 1])[0], packed[r])


@needs_onednn
def test_a_parameter_changed_before_the_backward_pass_is_noticed() -> None:
    mlp = network(1, False)
    loss = mlp(torch.randn(1, 4, 5)).sum()
    with torch.no_grad():
        mlp.kernels[1].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@needs_onednn
def test_second_derivatives_are_those_of_torchs_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = network(2, True)
    x = torch.randn(2, 4, 5, requires_grad=True)
    leaves = [x, *mlp.parameters()]

    def penalty() -> tuple[Tensor, ...]:
        (gradient,) = torch.autograd.grad(mlp(x).sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), leaves, allow_unused=True)

    found = penalty()
    assert sum(gradient is None for gradient in found) == 2  # the last bias and shift
    plainly(monkeypatch)
    for mine, theirs in zip(found, penalty(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=2e-5)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-30.0, 30.0), min_size=1, max_size=8))
def test_gelu_with_slope_is_gelu_and_its_derivative(numbers: list[float]) -> None:
    x = torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
    expected = functional.gelu(x, approximate="tanh")
    (slope,) = torch.autograd.grad(expected.sum(), x)
    found = gelu_with_slope(x.detach().clone())
    torch.testing.assert_close(found[0], expected.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[1], slope, rtol=1e-9, atol=1e-12)


# float64 takes the stacked arithmetic, which is also that of a GPU; float32 oneDNN's.
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("replicas", [1, 2])
def test_linearize_is_value_and_vector_jacobian_product_at_every_point(
    replicas: int, layer_norm: bool, dtype: torch.dtype
) -> None:
    mlp = network(replicas, layer_norm).to(dtype)
    x = torch.randn(4, replicas, 6, 5, dtype=dtype)
    values, pullback = mlp.linearize(x)
    assert not values.requires_grad
    for k in (3, 0, 1, 2):
        at = x[k].clone().requires_grad_()
        cotangent = torch.randn(replicas, 6, 3, dtype=dtype)
        expected = mlp(at)
        (gradient,) = torch.autograd.grad(expected, at, cotangent)
        torch.testing.assert_close(values[k], expected.detach())
        torch.testing.assert_close(pullback(cotangent, k), gradient, rtol=2e-5, atol=2e-5)


def test_both_arithmetics_count_the_same_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = network(2, False, (16, 16))

    def flops() -> int:
        with FlopCounterMode(display=False) as counter:
            torch.autograd.grad(mlp(torch.randn(2, 8, 5)).sum(), list(mlp.parameters()))
        return int(counter.get_total_flops())

    mine = flops()
    plainly(monkeypatch)
    assert mine == flops() == 2 * 8 * 2 * (3 * (5 * 16 + 16 * 16 + 16 * 3) - 5 * 16)

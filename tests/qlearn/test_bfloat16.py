"""Rounded products have the same values on every processor and on both arithmetics."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from qlearn import MLP, CriticEnsemble, RandomStreams, _arithmetic, _perceptron


@pytest.fixture(params=["onednn", "torch"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":  # a GPU's operations
        monkeypatch.setattr(_perceptron, "onednn_suits", lambda x: False)
    return str(request.param)


def by_definition(mlp: MLP, x: Tensor) -> Tensor:
    """Hidden products of rounded numbers, summed in float64 and rounded; all else exact."""

    def rounded(numbers: Tensor) -> Tensor:
        return numbers.to(torch.bfloat16).double()

    x = x.double()
    last = len(mlp.kernels) - 1
    for i, (kernel, bias) in enumerate(zip(mlp.kernels, mlp.biases, strict=True)):
        if 0 < i < last:
            x = rounded(rounded(x) @ rounded(kernel) + bias[:, None].double())
        else:
            x = x @ kernel.double() + bias[:, None].double()
        if i < last:
            x = functional.gelu(x, approximate="tanh")
    return x


def test_the_products_between_hidden_layers_are_rounded_and_no_others(arithmetic: str) -> None:
    mlp = MLP(2, 40, (64, 64, 64), 30, layer_norm=False, streams=RandomStreams([0, 1]))
    x = torch.randn(2, 100, 40, generator=torch.Generator().manual_seed(0)).requires_grad_()
    exact = mlp(x).double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mlp(x).double()
    expected = by_definition(mlp, x)
    error = (found - expected).norm() / expected.norm()
    off = (exact - expected).norm() / expected.norm()
    # A sum in another order rounds a few numbers the other way.
    assert error < 0.15 * off
    assert 2e-3 < off < 2e-2


@pytest.mark.parametrize("layer_norm", [False, True])
def test_both_arithmetics_round_alike(layer_norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    critic = CriticEnsemble(1, 2, 6, (64,) * 3, layer_norm=layer_norm, streams=RandomStreams([0]))
    x = RandomStreams([1]).normal(32, 6).requires_grad_()
    leaves = [x, *critic.parameters()]

    def run() -> list[Tensor]:
        values = critic(x)
        with _arithmetic.without_autocast("cpu"):  # as a Learner does
            gradients = torch.autograd.grad(values.square().mean(), leaves)
        return [values.detach(), *gradients]

    exact = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mine = run()
        monkeypatch.setattr(_perceptron, "onednn_suits", lambda x: False)
        theirs = run()
    for a, b, c in zip(mine, theirs, exact, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert 1e-3 < (a - c).norm() / c.norm() < 0.03
        assert (a - b).norm() < 0.1 * (a - c).norm()

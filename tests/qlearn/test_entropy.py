"""The temperature of a stochastic policy."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlearn import EntropyTemperature


def test_starts_where_asked() -> None:
    temperature = EntropyTemperature(3, initial=0.2)
    torch.testing.assert_close(temperature(), torch.full((3,), 0.2))


@given(st.floats(-5.0, 5.0), st.floats(-5.0, 5.0), st.floats(0.1, 10.0))
def test_loss_and_direction(log_prob: float, target: float, initial: float) -> None:
    temperature = EntropyTemperature(1, initial).double()
    loss = temperature.loss(torch.full((1, 4), log_prob, dtype=torch.float64), target)
    excess = -log_prob - target
    alpha = float(temperature().detach())
    assert math.isclose(float(loss.detach()), alpha * excess, rel_tol=1e-9, abs_tol=1e-9)
    (slope,) = torch.autograd.grad(loss.sum(), temperature.log_value)
    # More random than wanted: the loss falls with the temperature.
    assert math.isclose(float(slope), alpha * excess, rel_tol=1e-9, abs_tol=1e-9)


def test_the_policy_receives_no_gradient_from_it() -> None:
    log_prob = torch.zeros(2, 3, requires_grad=True)
    temperature = EntropyTemperature(2)
    loss = temperature.loss(log_prob, 1.0).sum()
    (gradient,) = torch.autograd.grad(loss, log_prob, allow_unused=True)
    assert gradient is None


def test_replicas_do_not_mix() -> None:
    log_prob = torch.tensor([[0.0, 2.0], [4.0, 4.0]])
    torch.testing.assert_close(
        EntropyTemperature(2).loss(log_prob, -1.0), torch.tensor([0.0, -3.0])
    )


def test_refuses_a_temperature_that_is_not_positive() -> None:
    with pytest.raises(ValueError, match="must be positive, got 0"):
        EntropyTemperature(1, initial=0.0)

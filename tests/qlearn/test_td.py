import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlearn import ema_update, expectile_loss, pessimistic_value, td_loss, td_target


def test_published_targets_and_loss(chunked) -> None:
    config = chunked.config
    next_q = pessimistic_value(chunked["expect/next_qs"], config["rho"])
    torch.testing.assert_close(next_q, chunked["expect/next_q"], rtol=1e-5, atol=1e-6)
    target = td_target(
        chunked["batch/rewards"][:, -1],
        chunked["batch/masks"][:, -1],
        next_q,
        discount=config["discount"],
        horizon=config["horizon_length"],
    )
    torch.testing.assert_close(target, chunked["expect/target_q"], rtol=1e-5, atol=1e-6)
    valid = chunked["batch/valid"][:, -1]
    loss = td_loss(chunked["expect/q"][None], target[None], valid[None])
    torch.testing.assert_close(loss[0], chunked["expect/critic_loss"], rtol=1e-5, atol=0)
    assert valid.min() == 0.0


@given(st.floats(0, 3), st.integers(1, 5))
def test_pessimism_lowers_by_the_population_spread(rho: float, ensemble: int) -> None:
    qs = torch.arange(ensemble, dtype=torch.float64).reshape(1, ensemble, 1) + torch.tensor(
        [0.0, 9]
    )
    value = pessimistic_value(qs, rho)
    # Variance of 0 .. E-1 with divisor E.
    spread = ((ensemble**2 - 1) / 12) ** 0.5
    middle = (ensemble - 1) / 2
    torch.testing.assert_close(
        value, torch.tensor([[middle, middle + 9]], dtype=torch.float64) - rho * spread
    )


def test_an_ensemble_of_one_or_of_equals_has_finite_gradients() -> None:
    for ensemble in (1, 4):
        qs = torch.ones(2, ensemble, 3, requires_grad=True)
        pessimistic_value(qs, 0.5).sum().backward()
        torch.testing.assert_close(qs.grad, torch.full_like(qs, 1 / ensemble))


def test_loss_divides_by_all_rows_and_keeps_replicas_apart() -> None:
    qs = torch.tensor([[[1.0, 5.0], [3.0, 5.0]], [[0.0, 0.0], [0.0, 0.0]]])
    target, valid = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert td_loss(qs, target, valid).tolist() == [(1 + 9) / 4, (4 + 4) / 4]
    assert td_loss(qs, target).tolist() == [(1 + 9 + 16 + 16) / 4, (4 + 4) / 4]
    assert td_loss(qs, qs + 2.0).tolist() == [4.0, 4.0]


@given(st.floats(0.01, 0.99), st.lists(st.floats(-100, 100), min_size=1, max_size=5))
def test_expectile_weighs_the_two_sides(expectile: float, values: list[float]) -> None:
    difference = torch.tensor(values, dtype=torch.float64)
    expected = [(expectile if d >= 0 else 1 - expectile) * d * d for d in values]
    torch.testing.assert_close(
        expectile_loss(difference, expectile), torch.tensor(expected, dtype=torch.float64)
    )


def test_minimiser_of_the_expectile_loss_is_the_expectile() -> None:
    """Of the law {0 with 3/4, 1 with 1/4}, the 0.9-expectile is 0.25 * 0.9 / (0.3) = 0.75."""
    outcomes = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    value = torch.tensor(0.75, dtype=torch.float64, requires_grad=True)
    expectile_loss(outcomes - value, 0.9).mean().backward()
    assert value.grad.item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("expectile", [0.0, 1.0, -0.5])
def test_impossible_expectiles_are_refused(expectile: float) -> None:
    with pytest.raises(ValueError, match="strictly between"):
        expectile_loss(torch.zeros(1), expectile)


@given(st.floats(0, 1))
def test_ema_moves_by_its_rate(tau: float) -> None:
    online = [torch.nn.Parameter(torch.tensor([2.0, 4.0])), torch.nn.Parameter(torch.ones(1, 1))]
    target = [torch.zeros(2), torch.full((1, 1), -1.0)]
    ema_update(target, online, tau)
    torch.testing.assert_close(target[0], tau * torch.tensor([2.0, 4.0]))
    torch.testing.assert_close(target[1], torch.full((1, 1), 2 * tau - 1))


def test_ema_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="1 targets"):
        ema_update([torch.zeros(1)], [], 0.1)
    with pytest.raises(ValueError, match="tau"):
        ema_update([torch.zeros(1)], [torch.zeros(1)], 1.5)

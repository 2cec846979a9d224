"""Lambda solved from reference samples, and corrected by the measured KL."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from qlearn import RandomStreams
from trustregion import CosineBudget, DualDescent, correct_dual, solve_dual


@pytest.fixture
def double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def dual_of(replicas: int = 1, *, eps: float = 0.4, ema: float = 0.1) -> DualDescent:
    return DualDescent(replicas, budget=eps, ema=ema, bounds=(1e-3, 1e4), scale=2.0)


@pytest.mark.usefixtures("double")
def test_lambda_of_normal_values_has_its_closed_form() -> None:
    # Values N(m, sd^2): KL* = sd^2/(2 lambda^2), averaged over states of different spread.
    levels = (torch.arange(200_000) + 0.5) / 200_000
    quantiles = math.sqrt(2.0) * torch.erfinv(2.0 * levels - 1.0)
    spreads = torch.tensor([0.5, 3.0, 1.5])
    values = (7.0 + spreads[:, None] * quantiles)[None]
    dual = dual_of(eps=0.1)
    metrics = solve_dual(dual, torch.zeros(1), values, 3)
    expected = math.sqrt(float(spreads.square().mean()) / (2.0 * 0.3))
    assert float(dual.lambda_) == pytest.approx(expected, rel=2e-3)
    assert float(metrics["lambda_solved"]) == pytest.approx(expected, rel=2e-3)
    assert float(metrics["tilted_kl"]) == pytest.approx(0.1, rel=1e-4)


@pytest.mark.usefixtures("double")
def test_lambda_follows_a_critic_of_another_scale_geometrically() -> None:
    values = RandomStreams([0, 1]).normal(4, 1_000)
    dual = dual_of(2, ema=0.2)
    first = solve_dual(dual, torch.zeros(2), values, 2)["lambda"]
    for updates in range(1, 30):
        metrics = solve_dual(dual, torch.zeros(2), 10.0 * values - 3.0, 2)
        torch.testing.assert_close(metrics["lambda_solved"], 10.0 * first, rtol=1e-4, atol=0.0)
        expected = first * 10.0 ** (1.0 - 0.8**updates)
        torch.testing.assert_close(metrics["lambda"], expected, rtol=1e-4, atol=0.0)
    # The KL that the lagging lambda gives is above the budget until it has caught up.
    assert bool((metrics["tilted_kl"] > 0.4).all())
    torch.testing.assert_close(metrics["tilted_kl"], torch.full((2,), 0.4), rtol=0.02, atol=0.0)


def test_lambda_stays_inside_its_bounds_where_values_do_not_differ() -> None:
    dual = dual_of()
    found = solve_dual(dual, torch.zeros(1), torch.ones(1, 3, 10), 2)["lambda"]
    assert float(found) == pytest.approx(2e-3, rel=1e-4)
    assert float(dual.lam) == pytest.approx(1e-3, rel=1e-4)


def test_nothing_is_read_from_the_device() -> None:
    # A fake tensor has no numbers: reading one, or branching on one, raises.
    budget = CosineBudget(0.1, 0.4, 10)
    with FakeTensorMode():
        dual = DualDescent(2, budget=budget)
        correction = torch.empty(2)
        assert solve_dual(dual, correction, torch.empty(2, 4, 50), 3)["lambda"].shape == (2,)
        assert correct_dual(dual, correction, torch.empty(2))["lambda_correction"].shape == (2,)


@pytest.mark.usefixtures("double")
def test_a_kl_off_the_budget_moves_the_solved_lambda_against_it() -> None:
    values = RandomStreams([0, 1, 2, 3]).normal(4, 1_000)
    dual, correction = dual_of(4, ema=1.0), torch.zeros(4)
    solve_dual(dual, correction, values, 2)
    # Twice the budget, half of it, a hundred times it (capped at twice), and nothing known.
    kl = torch.tensor([0.8, 0.2, 40.0, math.nan])
    for updates in range(1, 4):
        factor = correct_dual(dual, correction, kl)["lambda_correction"]
        up = 2.0 ** (0.01 * updates)
        torch.testing.assert_close(factor, torch.tensor([up, 1.0 / up, up, 1.0]))
    metrics = solve_dual(dual, correction, values, 2)
    torch.testing.assert_close(metrics["lambda"], factor * metrics["lambda_solved"])
    for _ in range(200):
        factor = correct_dual(dual, correction, kl)["lambda_correction"]
    torch.testing.assert_close(factor, torch.tensor([2.0, 0.5, 2.0, 1.0]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_leaves_its_replicas_lambda(bad: float) -> None:
    values = RandomStreams([0, 1]).normal(4, 1_000)
    dual = dual_of(2)
    before = solve_dual(dual, torch.zeros(2), values, 2)
    values[1, 2, 3] = bad
    after = solve_dual(dual, torch.zeros(2), 10.0 * values, 2)
    assert after["lambda"][1] == before["lambda"][1]
    assert after["lambda"][0] > 1.2 * before["lambda"][0]
    assert after["lambda_solved"].isnan().tolist() == [False, True]


@pytest.mark.usefixtures("double")
def test_correction_brings_a_policy_that_misses_its_aim_to_the_budget() -> None:
    # A policy whose KL is 1.5 times that of its aim, as on quick.
    values = RandomStreams([0]).normal(4, 1_000)
    dual, correction = dual_of(ema=0.2), torch.zeros(1)
    for _ in range(600):
        kl = 1.5 * solve_dual(dual, correction, values, 2)["tilted_kl"]
        correct_dual(dual, correction, kl)
    assert float(kl) == pytest.approx(0.4, rel=1e-3)

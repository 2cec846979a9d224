"""KL of the tilted law as a function of lambda, its dual, and the solved lambda."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trustregion import (
    LinearGaussian,
    dual_function,
    solve_lambda,
    tilted_kl,
    tilted_kl_derivative,
)


def rewards(seed, *shape, spread=1.0, level=0.0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(shape, generator=generator, dtype=torch.float64)
    return level + spread * (q + 0.3 * q.square())


seeds = st.integers(0, 2**31)
spreads = st.floats(1e-2, 1e2)
lambdas = st.floats(1e-2, 1e3)


@settings(deadline=None, max_examples=60)
@given(seed=seeds, spread=spreads, lam=lambdas, level=st.floats(-1e3, 1e3))
def test_it_is_the_kl_of_the_weights_and_ignores_the_level_of_q(seed, spread, lam, level):
    q = rewards(seed, 3, 50, spread=spread)
    weights = torch.softmax(q / lam, -1)
    expected = (torch.xlogy(weights, weights) + weights * math.log(50)).sum(-1)
    kl = tilted_kl(q, lam)
    torch.testing.assert_close(kl, expected, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(tilted_kl(q + level, lam), kl, rtol=1e-6, atol=1e-12)
    assert torch.all(kl >= 0.0)
    assert torch.all(kl <= math.log(50) + 1e-12)


@settings(deadline=None, max_examples=60)
@given(seed=seeds, lam=st.floats(0.3, 50.0))
def test_it_falls_in_lambda_with_the_stated_derivative(seed, lam):
    q = rewards(seed, 4, 64)
    lam_leaf = torch.full((4,), lam, dtype=torch.float64, requires_grad=True)
    kl = tilted_kl(q, lam_leaf)
    (slope,) = torch.autograd.grad(kl.sum(), lam_leaf)
    stated = tilted_kl_derivative(q, lam_leaf.detach())
    torch.testing.assert_close(stated, slope, rtol=1e-6, atol=1e-9)
    assert torch.all(stated < 0.0)
    assert torch.all(tilted_kl(q, 1.01 * lam) < kl)


@settings(deadline=None, max_examples=60)
@given(seed=seeds, lam=st.floats(0.05, 50.0), budget=st.floats(0.01, 3.0))
def test_the_dual_is_convex_with_slope_budget_minus_kl(seed, lam, budget):
    q = rewards(seed, 4, 64)
    lam_leaf = torch.full((4,), lam, dtype=torch.float64, requires_grad=True)
    value = dual_function(q, lam_leaf, budget)
    (slope,) = torch.autograd.grad(value.sum(), lam_leaf)
    torch.testing.assert_close(slope, budget - tilted_kl(q, lam), rtol=1e-7, atol=1e-9)
    chord = 0.5 * (dual_function(q, 0.5 * lam, budget) + dual_function(q, 1.5 * lam, budget))
    assert torch.all(chord >= value.detach() - 1e-12)
    # Weak duality: the reward of any law within the budget is at most the dual.
    weights = torch.softmax(q / lam, -1)
    feasible = tilted_kl(q, lam) <= budget
    best = dual_function(q, solve_lambda(q, budget, bounds=(1e-6, 1e6)), budget)
    assert torch.all(((weights * q).sum(-1) <= best + 1e-9) | ~feasible)


def test_large_tilts_of_large_rewards_stay_finite():
    q = rewards(0, 5, 64, spread=300.0, level=1e6)
    for dtype in (torch.float32, torch.float64):
        kl = tilted_kl(q.to(dtype), 1e-3)
        torch.testing.assert_close(kl, torch.full((5,), math.log(64), dtype=dtype))
        assert torch.all(torch.isfinite(dual_function(q.to(dtype), 1e-3, 0.5)))


def test_small_tilts_keep_their_digits_in_float32():
    # KL = Var/(2 lambda^2) there; the naive difference of logarithms would leave no digit.
    q = rewards(0, 5, 4096).float()
    expected = q.double().var(-1, correction=0) / (2 * 1000.0**2)
    torch.testing.assert_close(tilted_kl(q, 1000.0).double(), expected, rtol=0.02, atol=0.0)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
def test_any_sample_axis(dim):
    q = rewards(3, 4, 5, 6)
    moved = q.movedim(dim, -1)
    torch.testing.assert_close(tilted_kl(q, 0.8, dim), tilted_kl(moved, 0.8))
    torch.testing.assert_close(tilted_kl_derivative(q, 0.8, dim), tilted_kl_derivative(moved, 0.8))
    torch.testing.assert_close(dual_function(q, 0.8, 0.1, dim), dual_function(moved, 0.8, 0.1))
    torch.testing.assert_close(solve_lambda(q, 0.3, dim=dim), solve_lambda(moved, 0.3))


@settings(deadline=None, max_examples=40)
@given(
    seed=seeds,
    spread=spreads,
    budget=st.floats(1e-3, 2.0),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_solved_lambda_meets_the_budget(seed, spread, budget, dtype):
    q = rewards(seed, 3, 256, spread=spread).to(dtype)
    lam = solve_lambda(q, budget)
    limit = 1e-10 if dtype == torch.float64 else 2e-4
    torch.testing.assert_close(
        tilted_kl(q, lam), torch.full((3,), budget, dtype=dtype), rtol=limit, atol=limit * 1e-3
    )


def test_the_solved_lambda_scales_with_the_reward_and_each_entry_has_its_own_budget():
    q = rewards(1, 3, 256)
    budget = torch.tensor([0.1, 0.5, 1.5], dtype=torch.float64)
    lam = solve_lambda(q, budget)
    torch.testing.assert_close(tilted_kl(q, lam), budget)
    torch.testing.assert_close(solve_lambda(7.0 * q - 3.0, budget), 7.0 * lam)
    assert torch.all(solve_lambda(q, 2.0 * budget) < lam)


def test_a_shared_lambda_meets_the_budget_on_average():
    q = rewards(2, 3, 10, 128) * torch.linspace(0.1, 2.0, 10, dtype=torch.float64)[:, None]
    lam = solve_lambda(q, 0.4, shared=1)
    assert lam.shape == (3,)
    kl = tilted_kl(q, lam[:, None])
    torch.testing.assert_close(kl.mean(1), torch.full((3,), 0.4, dtype=torch.float64))
    assert torch.all(kl.max(1).values > 0.8)
    assert torch.all(kl.min(1).values < 0.01)
    everything = solve_lambda(q, 0.4, shared=(0, 1))
    assert everything.shape == ()
    torch.testing.assert_close(float(tilted_kl(q, everything).mean()), 0.4)


def test_it_agrees_with_the_closed_form_of_the_linear_gaussian_problem():
    problem = LinearGaussian(mean=0.5, std=0.7, slope=1.5, event_ndim=0)
    # Quantiles instead of random samples: a deterministic quadrature of the Gaussian.
    levels = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    x = 0.5 + 0.7 * torch.special.ndtri(levels)
    for budget in (0.05, 0.3, 1.0):
        expected = problem.optimal_lambda(budget)
        assert abs(expected - 0.7 * 1.5 / math.sqrt(2 * budget)) < 1e-9
        lam = float(solve_lambda(problem.reward(x), budget))
        assert abs(lam / expected - 1.0) < 0.01


def test_without_an_answer_inside_the_bounds_the_nearer_bound_is_returned():
    constant = torch.ones(2, 16)
    torch.testing.assert_close(
        solve_lambda(constant, 0.5, bounds=(0.1, 10.0)), torch.full((2,), 0.1), rtol=1e-3, atol=0
    )
    two_valued = torch.tensor([0.0, 1.0] * 8)
    beyond = solve_lambda(two_valued, 5.0, bounds=(0.1, 10.0))  # KL is at most log 2
    torch.testing.assert_close(beyond, torch.tensor(0.1), rtol=1e-3, atol=0)
    tight = solve_lambda(100.0 * two_valued, 1e-3, bounds=(0.1, 10.0))
    torch.testing.assert_close(tight, torch.tensor(10.0), rtol=1e-3, atol=0)


def test_bad_input_is_refused():
    q = rewards(0, 3, 8)
    for lam in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="lam must be positive"):
            tilted_kl(q, lam)
    with pytest.raises(ValueError, match="budget must be a positive"):
        solve_lambda(q, 0.0)
    with pytest.raises(ValueError, match="0 < low < high"):
        solve_lambda(q, 0.1, bounds=(1.0, 1.0))
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        solve_lambda(q, 0.1, iterations=0)
    with pytest.raises(ValueError, match="same axis twice"):
        solve_lambda(q, 0.1, dim=-1, shared=1)
    with pytest.raises(ValueError, match="no axis"):
        tilted_kl(q, 1.0, dim=2)
    with pytest.raises(ValueError, match="holds no samples"):
        tilted_kl(q[:, :0], 1.0)
    for budget in (-1.0, 0.0, math.nan, "0.5", None):
        with pytest.raises(ValueError, match="budget must be a positive"):
            solve_lambda(q, budget)
        with pytest.raises(ValueError, match="budget must be a positive"):
            dual_function(q, 1.0, budget)


def test_samples_that_are_never_taken_have_weight_zero():
    q = rewards(0, 4, 256)
    with_invalid = torch.cat([q, torch.full((4, 256), -math.inf).double()], -1)
    lam = torch.tensor([0.1, 0.5, 1.0, 20.0], dtype=torch.float64, requires_grad=True)
    kl = tilted_kl(with_invalid, lam)
    # Half of the samples are excluded, which costs log 2 whatever lambda is.
    torch.testing.assert_close(kl, tilted_kl(q, lam.detach()) + math.log(2.0))
    (slope,) = torch.autograd.grad(kl.sum(), lam)
    torch.testing.assert_close(slope, tilted_kl_derivative(q, lam.detach()))
    solved = solve_lambda(with_invalid, 0.4 + math.log(2.0))
    torch.testing.assert_close(solved, solve_lambda(q, 0.4))


def test_what_is_not_known_is_nan_and_not_the_loosest_lambda():
    q = rewards(0, 3, 4, 64)
    for bad in (math.nan, math.inf):
        broken = q.clone()
        broken[1, 2, 5] = bad
        solved = solve_lambda(broken, 0.3)
        assert solved.isnan().nonzero().tolist() == [[1, 2]]
        assert solve_lambda(broken, 0.3, shared=1).isnan().tolist() == [False, True, False]
        torch.testing.assert_close(solved.nan_to_num(0.0)[0], solve_lambda(q, 0.3)[0])
    assert solve_lambda(torch.full((8,), -math.inf), 0.3).isnan()
    budgets = torch.tensor([0.3, math.nan, -1.0, 0.0], dtype=torch.float64)
    assert solve_lambda(q, budgets).isnan().tolist() == [[False, True, True, True]] * 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_summed_in_float32(dtype):
    q = rewards(0, 20_000).to(dtype)
    lam = solve_lambda(q, 1e-4)
    assert lam.dtype == torch.float32
    torch.testing.assert_close(lam, solve_lambda(q.float(), 1e-4))
    torch.testing.assert_close(tilted_kl(q, lam), torch.tensor(1e-4), rtol=1e-2, atol=0.0)

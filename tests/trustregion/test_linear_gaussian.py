"""The closed forms against each other and against numerical integration."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsde import LinearInterpolant, ode_sample
from trustregion import LinearGaussian

problems = st.builds(
    LinearGaussian,
    mean=st.floats(-2.0, 2.0),
    std=st.floats(0.1, 3.0),
    slope=st.floats(0.1, 3.0),
    curvature=st.floats(0.0, 3.0),
)
times = st.floats(0.01, 0.99)
lambdas = st.floats(0.1, 10.0)


def column(value):
    return torch.tensor([[value]], dtype=torch.float64)


@settings(deadline=None, max_examples=50)
@given(problem=problems, t=st.floats(0.05, 0.95), standardised=st.floats(-3.0, 3.0))
def test_the_velocity_is_the_conditional_expectation(problem, t, standardised):
    # E[x_1 - x_0 | x_t = x] by summing over x_1, with x_0 = (x - t x_1)/(1 - t) given both.
    time = torch.tensor([t], dtype=torch.float64)
    deviation = float(problem.marginal_variance(time)) ** 0.5
    x = t * problem.mean + deviation * standardised
    x1 = problem.mean + problem.std * torch.linspace(-9.0, 9.0, 20_001, dtype=torch.float64)
    x0 = (x - t * x1) / (1.0 - t)
    log_weight = -0.5 * ((x1 - problem.mean) / problem.std).square() - 0.5 * x0.square()
    expected = (torch.softmax(log_weight, 0) * (x1 - x0)).sum()
    velocity = problem.velocity(column(x), time)
    torch.testing.assert_close(velocity, expected.reshape(1, 1), rtol=1e-6, atol=1e-6)


def test_the_flow_takes_noise_to_the_data():
    problem = LinearGaussian(mean=0.7, std=0.4)
    noise = torch.tensor([[-2.0], [0.0], [1.5]], dtype=torch.float64)
    end = ode_sample(problem.velocity, noise, 2000, "midpoint")
    torch.testing.assert_close(end, 0.7 + 0.4 * noise, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(problem=problems, lam=lambdas)
def test_the_tilted_density_is_proportional_to_base_times_exp_reward(problem, lam):
    x = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64).unsqueeze(-1)
    base = torch.distributions.Normal(column(problem.mean), column(problem.std))
    tilted = torch.distributions.Normal(
        column(problem.tilted_mean(lam)), column(problem.tilted_std(lam))
    )
    difference = (tilted.log_prob(x) - base.log_prob(x)).squeeze(-1) - problem.reward(x) / lam
    torch.testing.assert_close(difference, difference[:1].expand(9), rtol=1e-9, atol=1e-9)
    expected = torch.distributions.kl_divergence(tilted, base)
    torch.testing.assert_close(
        problem.optimal_kl(lam).reshape(1, 1), expected, rtol=1e-9, atol=1e-12
    )


@settings(deadline=None, max_examples=50)
@given(problem=problems, lam=lambdas, t=times, x=st.floats(-3.0, 3.0))
def test_the_control_of_a_linear_reward_is_minus_the_adjoint(problem, lam, t, x):
    problem = LinearGaussian(problem.mean, problem.std, problem.slope)
    t_, x_ = torch.tensor([t], dtype=torch.float64), column(x)
    change = problem.optimal_velocity(x_, t_, lam) - problem.velocity(x_, t_)
    adjoint = problem.adjoint(-problem.reward_gradient(x_) * torch.ones_like(x_), t_)
    g = LinearInterpolant().memoryless_noise(t_)
    sigma = g / math.sqrt(lam)
    torch.testing.assert_close(2.0 * change / sigma, -sigma * adjoint, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(problem=problems, budget=st.floats(0.01, 3.0))
def test_the_optimal_lambda_meets_the_budget(problem, budget):
    lam = problem.optimal_lambda(budget)
    assert float(problem.optimal_kl(lam)) == pytest.approx(budget, rel=1e-9)


def test_dimensions_add_up():
    std, slope = torch.tensor([[0.5, 2.0], [1.0, -0.3]], dtype=torch.float64)
    problem = LinearGaussian(0.0, std, slope)
    expected = float((std * slope).square().sum()) / (2 * 0.7**2)
    assert float(problem.optimal_kl(0.7)) == pytest.approx(expected)
    x = torch.tensor([[1.0, 2.0]]).double()
    torch.testing.assert_close(problem.reward(x), torch.tensor([0.4]).double())


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="std must be positive"):
        LinearGaussian(std=0.0)
    with pytest.raises(ValueError, match="curvature must not be negative"):
        LinearGaussian(curvature=-1.0)
    with pytest.raises(ValueError, match="event_ndim"):
        LinearGaussian(event_ndim=-1)
    with pytest.raises(ValueError, match="positive number of nats"):
        LinearGaussian().optimal_lambda(0.0)
    with pytest.raises(ValueError, match="the reward is constant, or too flat"):
        LinearGaussian(slope=0.0).optimal_lambda(1.0)
    # KL grows only as log(1/lambda)/2 there: 13 nats at the least lambda.
    with pytest.raises(ValueError, match="no lambda above 1e-12 has a KL of 20"):
        LinearGaussian(slope=0.0, curvature=1.0).optimal_lambda(20.0)
    for settings_ in ({"std": [1.0, 2.0]}, {"mean": math.nan}, {"std": math.inf}, {"slope": "1"}):
        with pytest.raises(ValueError, match="must be a finite number or tensor"):
            LinearGaussian(**settings_)
    for lam in (0.0, -1.0, math.nan):
        for quantity in ("optimal_kl", "tilted_mean", "tilted_std"):
            with pytest.raises(ValueError, match="lam must be positive"):
                getattr(LinearGaussian(), quantity)(lam)


def test_coefficients_of_numbers_count_as_one_dimension():
    number, vector = LinearGaussian(), LinearGaussian(slope=torch.ones(3))
    assert float(vector.optimal_kl(0.7)) == pytest.approx(3.0 * float(number.optimal_kl(0.7)))

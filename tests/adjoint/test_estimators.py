"""Every estimator at the optimum of the linear-Gaussian problem, where its regression is known."""

import math

import pytest
import torch
from torch import Tensor

from adjoint import (
    AdjointEstimate,
    AdjointEstimator,
    LeanAdjoint,
    LinearDriftAdjoint,
    ReinforceAdjoint,
    ScalarAdjoint,
)
from flowsde import BridgeKernel, CosineInterpolant, MemorylessEuler, along_path, bridge_path
from trustregion import LinearGaussian

LAM = 0.6
LINEAR = LinearGaussian(mean=0.3, std=0.5, slope=1.0)
QUADRATIC = LinearGaussian(mean=0.3, std=0.5, slope=1.0, curvature=3.0)
BRIDGE = {"steps": 4, "ode_steps": 5}


def noise(steps: int, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    start = torch.randn((count, 1), generator=generator, dtype=torch.float64)
    return start, torch.randn((steps, count, 1), generator=generator, dtype=torch.float64)


def at_the_optimum(
    estimator: AdjointEstimator, problem: LinearGaussian, count: int
) -> AdjointEstimate:
    start, steps = noise(estimator.steps, count)
    return estimator(
        lambda x, t: problem.optimal_velocity(x, t, LAM),
        problem.velocity,
        problem.reward,
        start,
        steps,
        lam=LAM,
    )


def target(estimate: AdjointEstimate) -> Tensor:
    """What the fine-tuned velocity is regressed on: the minimiser of the loss per sample."""
    kernel = estimate.kernel
    adjoints = kernel.control_adjoints(estimate.adjoints)
    stds, gains = along_path(kernel.stds, adjoints), along_path(kernel.gains, adjoints)
    return estimate.reference - stds.square() / gains * adjoints / LAM


def fitted(values: Tensor, x: Tensor) -> Tensor:
    """Mean, and rise of the least-squares line per standard deviation of x, per time, (K, 2)."""
    centred = x - x.mean(1, keepdim=True)
    rise = (centred * values).mean(1) / centred.square().mean(1).sqrt()
    return torch.cat([values.mean(1), rise], dim=1)


def test_the_optimum_is_the_fixed_point_of_the_lean_adjoint() -> None:
    # The base is linear and so is the reward: nothing in the target is random.
    kernel = MemorylessEuler(120, adjoint_time="consistent")
    estimate = at_the_optimum(LeanAdjoint(kernel), LINEAR, 50)
    control = (estimate.fine - estimate.base)[12:108]
    error = (target(estimate) - estimate.fine)[12:108].abs().max() / control.abs().max()
    assert 1e-3 < float(error) < 0.1  # of first order in 1/120


@pytest.mark.parametrize("problem", [LINEAR, QUADRATIC], ids=["linear", "quadratic"])
def test_the_optimum_is_the_fixed_point_of_the_linear_drift(problem: LinearGaussian) -> None:
    # The target is affine in the sample, so its mean given x_t is its value at E[x_1 | x_t].
    estimator = LinearDriftAdjoint(4, ode_steps=1, score_time=0.9999, scale=0.8)
    sample = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]
    t = torch.tensor([0.125, 0.375, 0.625, 0.875], dtype=torch.float64)[:, None, None]
    mean, std = problem.tilted_mean(LAM), problem.tilted_std(LAM)
    weight = std**2 * t / (t.square() * std**2 + (1 - t).square())
    x = t * mean + (sample - mean) / weight
    estimate = estimator(
        lambda x, t: (sample - start).expand_as(x),
        problem.velocity,
        problem.reward,
        start := torch.zeros_like(sample),
        (x - t * sample) / (1 - t),
        lam=LAM,
    )
    torch.testing.assert_close(estimate.path.inputs, x)
    expected = problem.optimal_velocity(x, t[..., 0].expand(4, 9), LAM)
    torch.testing.assert_close(target(estimate), expected, rtol=1e-5, atol=1e-5)


def test_the_scalar_adjoint_has_another_fixed_point() -> None:
    estimator = ScalarAdjoint(steps=5, ode_steps=100)
    estimate = at_the_optimum(estimator, LINEAR, 6)
    tau, h = torch.arange(1, 6, dtype=torch.float64) / 5, 1 / 5
    control = target(estimate) - estimate.base
    expected = tau * (1 - tau + h) / (tau + h) * LINEAR.slope / LAM
    torch.testing.assert_close(control, expected[:, None, None].expand_as(control))
    # Without the shift by h: (1 - tau) c/lambda, where the tilted law has s^2/V of it.
    fine = at_the_optimum(ScalarAdjoint(steps=2_000, ode_steps=5), LINEAR, 2)
    tau = torch.tensor(fine.kernel.times, dtype=torch.float64)[200:-1]
    control = (target(fine) - fine.base)[200:-1].mean((1, 2))
    torch.testing.assert_close(control, (1 - tau) * LINEAR.slope / LAM, rtol=0.02, atol=2e-3)
    variance = LINEAR.marginal_variance(tau)
    optimal = LINEAR.std**2 / variance * (1 - tau) * LINEAR.slope / LAM
    ratio = control[:-40] / optimal[:-40]
    torch.testing.assert_close(ratio, (variance / LINEAR.std**2)[:-40], rtol=0.05, atol=0)
    assert float(ratio.max()) > 2.0  # a narrow base is pushed harder early on


@pytest.mark.parametrize("problem", [LINEAR, QUADRATIC], ids=["linear", "quadratic"])
def test_the_score_function_leaves_out_the_path_cost(problem: LinearGaussian) -> None:
    estimate = at_the_optimum(ReinforceAdjoint(4, ode_steps=200), problem, 40_000)
    x, t = estimate.path.inputs, torch.tensor(estimate.kernel.times).double()[:, None, None]
    mean, std = problem.tilted_mean(LAM), problem.tilted_std(LAM)
    weight = std**2 * t / (t.square() * std**2 + (1 - t).square())
    conditional = mean + weight * (x - t * mean)
    gradient = (problem.slope - problem.curvature * conditional) * weight
    expected = problem.velocity(x, t[..., 0]) + (1 - t) / t * gradient / LAM
    found = fitted(target(estimate) - expected, x)
    size = (estimate.fine - estimate.base).square().mean((1, 2)).sqrt().max()
    assert float(found.abs().max() / size) < 0.03
    # That is the optimum for a linear reward, and not for a curved one.
    bias = fitted(expected - estimate.fine, x)
    if problem.curvature == 0.0:
        assert float(bias.abs().max()) < 1e-6
    else:
        assert float(bias.abs().max() / size) > 0.2


def test_the_reward_of_the_score_function_is_not_differentiated() -> None:
    start, steps = noise(4, 64)

    def steps_of_reward(x: Tensor) -> Tensor:
        assert not x.requires_grad
        return (x[..., 0] > 0.5).double()

    estimate = ReinforceAdjoint(**BRIDGE)(
        LINEAR.velocity, LINEAR.velocity, steps_of_reward, start, steps
    )
    assert bool(estimate.adjoints[1:].abs().sum() > 0)
    shifted = ReinforceAdjoint(**BRIDGE)(
        LINEAR.velocity, LINEAR.velocity, lambda x: steps_of_reward(x) + 100.0, start, steps
    )
    torch.testing.assert_close(shifted.adjoints, estimate.adjoints)


@pytest.mark.parametrize(
    "estimator",
    [
        LeanAdjoint(MemorylessEuler(3, event_ndim=2)),
        ScalarAdjoint(3, 5, event_ndim=2),
        LinearDriftAdjoint(3, 5, event_ndim=2),
        ReinforceAdjoint(3, 5, event_ndim=2),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_any_event_shape_and_gradient_into_the_fine_field_only(estimator: AdjointEstimator) -> None:
    fine, base = (torch.nn.Linear(3, 3) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 5, 4, 3, generator=generator)
    steps = torch.randn(3, 2, 5, 4, 3, generator=generator)
    lam = torch.tensor([[0.5], [2.0]])
    estimate = estimator(
        lambda x, t: fine(x),
        lambda x, t: base(x),
        lambda x: x.square().sum((-2, -1)),
        start,
        steps,
        lam=lam,
        clip=(-1.0, 1.0),
    )
    loss = estimate.matching_loss(lam)
    assert loss.shape == (2, 5)
    loss.sum().backward()
    assert base.weight.grad is None
    assert fine.weight.grad is not None
    assert bool((fine.weight.grad != 0).any())
    assert not estimate.adjoints.requires_grad
    assert not estimate.sample.requires_grad
    # Replicas do not mix: the first alone gives its own numbers.
    alone = estimator(
        lambda x, t: fine(x),
        lambda x, t: base(x),
        lambda x: x.square().sum((-2, -1)),
        start[:1],
        steps[:, :1],
        lam=lam[:1],
        clip=(-1.0, 1.0),
    )
    torch.testing.assert_close(alone.matching_loss(lam[:1]), loss[:1])


def test_weights_and_states_of_a_bridge() -> None:
    kernel = BridgeKernel(4)
    assert kernel.times == (0.25, 0.5, 0.75, 1.0)
    shifted = [2 * (1 - t + 0.25) / (t + 0.25) for t in kernel.times]
    assert kernel.stds == pytest.approx([math.sqrt(0.25 * g) for g in shifted])
    sample = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    e = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(2))
    path = bridge_path(kernel, sample, e)
    torch.testing.assert_close(path.inputs[1], 0.5 * sample + 0.5 * e[1])
    assert torch.equal(path.sample, sample)
    middle = BridgeKernel(2, interpolant=CosineInterpolant(), at="midpoints")
    t = torch.tensor(middle.times, dtype=torch.float64)
    eta = CosineInterpolant().eta(t)
    assert middle.stds == pytest.approx((eta * 2 / 2).sqrt().tolist())


def test_what_a_bridge_refuses() -> None:
    kernel = BridgeKernel(3)
    with pytest.raises(ValueError, match=r"noise has shape \(2, 5, 1\).*\(3, 5, 1\)"):
        bridge_path(kernel, torch.zeros(5, 1), torch.zeros(2, 5, 1))
    with pytest.raises(ValueError, match="no transitions"):
        kernel.mean(torch.zeros(5, 1), torch.zeros(5, 1), 0)
    with pytest.raises(ValueError, match="'ends' or 'midpoints'"):
        BridgeKernel(3, at="starts")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="control_offset"):
        BridgeKernel(3, control_offset=0)
    with pytest.raises(ValueError, match="scale must be positive"):
        LinearDriftAdjoint(scale=0.0)
    with pytest.raises(ValueError, match="score_time"):
        LinearDriftAdjoint(score_time=1.0)


SHIFTED = [1.0, 0.9, 0.75, 0.5, 0.0]  # sigmas


@pytest.mark.parametrize("kind", [ScalarAdjoint, LinearDriftAdjoint, ReinforceAdjoint])
def test_the_estimators_take_a_schedulers_grid(kind) -> None:
    estimator = kind(grid=torch.tensor(SHIFTED, dtype=torch.float64), ode_times=[1.0, 0.9, 0.0])
    assert (estimator.steps, estimator.kernel.steps) == (4, 4)
    assert hash(estimator) == hash(kind(grid=SHIFTED, ode_times=[1.0, 0.9, 0.0]))
    even = [k / 4 for k in range(5)]
    same = kind(grid=even, ode_times=[k / 5 for k in range(6)])
    first, second = (at_the_optimum(e, QUADRATIC, 8) for e in (kind(4, 5), same))
    torch.testing.assert_close(first.adjoints, second.adjoints)
    torch.testing.assert_close(first.sample, second.sample)
    torch.testing.assert_close(first.matching_loss(LAM), second.matching_loss(LAM))
    estimate = at_the_optimum(estimator, QUADRATIC, 8)
    assert estimate.adjoints.shape == (5, 8, 1)
    half = torch.arange(8)[:, None] < 4
    loss = estimate.matching_loss(LAM, mask=half)
    torch.testing.assert_close(loss[:4], estimate.matching_loss(LAM)[:4])
    assert not loss[4:].any()

"""The scale-free dual: its rule, what it holds, how fast, and that scales do not matter."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from trustregion import DualDescent, LinearBudget, LinearGaussian, RelativeDualDescent

BUDGETS = torch.tensor([0.01, 0.1, 1.0, 10.0])


def lagging(problem, dual, updates, lag=20.0, noise=0.0, seed=0):
    """KLs over budget of a policy that follows lambda with a lag, (updates, R)."""
    generator = torch.Generator().manual_seed(seed)
    shift = torch.zeros(len(dual.lam))
    ratios = []
    for _ in range(updates):
        # The optimum's shift of the mean is proportional to 1/lambda; the policy starts at 0.
        shift += (problem.std * abs(problem.slope) / dual.lambda_ - shift) / lag
        kl = 0.5 * shift.square()
        draw = torch.randn(len(kl), generator=generator)
        budget = dual.budget(dual.step)
        dual.update(kl * torch.exp(noise * draw - 0.5 * noise**2))
        ratios.append(kl / budget)
    return torch.stack(ratios)


@settings(deadline=None, max_examples=40)
@given(kls=st.lists(st.floats(0.0, 100.0), min_size=1, max_size=20))
def test_the_update_rule(kls):
    dual = RelativeDualDescent(budget=0.8, rate=0.3, damping=0.7, ema=0.25, scale=2.0, initial=1.2)
    log_lam, average, before = math.log(1.2), 0.0, None
    for n, kl in enumerate(kls, 1):
        metrics = dual.update(torch.tensor([kl]))
        weight = max(0.25, 1.0 / n)
        average = (1.0 - weight) * average + weight * min(kl, 8.0)
        relative = average / 0.8
        error = relative - 1.0 if relative >= 0.5 else math.log(max(2.0 * relative, 1e-30)) - 0.5
        error = min(max(error, -2.0), 2.0)
        log_lam += 0.3 * error + (0.7 * (error - before) if before is not None else 0.0)
        log_lam = min(max(log_lam, math.log(1e-4)), math.log(1e4))
        before = error
        assert float(metrics["lambda"]) == pytest.approx(2.0 * math.exp(log_lam), rel=1e-3)
        assert float(metrics["kl_ema"]) == pytest.approx(average, rel=1e-4, abs=1e-5)


def test_it_settles_within_300_updates_over_three_decades_of_budgets():
    problem = LinearGaussian(std=0.8, slope=1.5)
    for lag in (1.0, 10.0, 30.0):
        dual = RelativeDualDescent(4, budget=lambda step: BUDGETS, initial=3.0)
        ratios = lagging(problem, dual, 400, lag)
        assert (ratios[300:] - 1.0).abs().max() < 0.1
    # The published step is proportional to the budget, and far from there after as many updates.
    published = DualDescent(4, budget=lambda step: BUDGETS)
    assert (lagging(problem, published, 400, 10.0)[300:, 0] - 1.0).abs().max() > 0.5


def test_neither_reward_nor_budget_has_a_unit():
    one = RelativeDualDescent(budget=0.3, initial=1.0)
    other = RelativeDualDescent(budget=30.0, initial=7.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        kl = torch.rand(1, generator=generator)
        first, second = one.update(kl), other.update(100.0 * kl)
        torch.testing.assert_close(7.0 * first["lambda"], second["lambda"], rtol=1e-4, atol=0.0)


@pytest.mark.parametrize(("noise", "above"), [(0.5, 0.0), (0.7, 0.0003), (1.0, 0.011)])
def test_the_mean_is_held_to_the_documented_bias(noise, above):
    problem = LinearGaussian(std=0.8, slope=1.5)
    dual = RelativeDualDescent(400, budget=0.5)
    held = lagging(problem, dual, 1500, lag=5.0, noise=noise)[500:].mean()
    assert abs(float(held) - 1.0 - above) < 0.02
    published = DualDescent(400, budget=0.5)
    capped = lagging(problem, published, 2500, lag=5.0, noise=noise)[1500:].mean()
    assert float(capped) > float(held)


def test_unknown_estimates_and_replicas_leave_each_other_alone():
    packed, alone = RelativeDualDescent(2, budget=0.5), RelativeDualDescent(budget=0.5)
    kls = torch.rand((30, 2), generator=torch.Generator().manual_seed(0))
    unknown = {0, 1, 7, 20}
    for n, kl in enumerate(kls):
        packed.update(torch.stack([torch.tensor(math.nan) if n in unknown else kl[0], kl[1]]))
        if n not in unknown:
            alone.update(kl[:1])
    assert torch.equal(packed.lam[:1], alone.lam)
    assert packed.known.tolist() == [26, 30]
    assert packed.lam.isfinite().all()


def test_rate_zero_is_fixed():
    dual = RelativeDualDescent(budget=0.5, rate=0.0, initial=0.7)
    for kl in (0.1, 5.0, 0.0):
        dual.update(torch.tensor([kl]))
    assert float(dual.lam) == pytest.approx(0.7, rel=1e-6)


def test_state_resumes_bit_for_bit_and_nothing_is_read_from_the_device():
    kls = torch.rand((20, 3), generator=torch.Generator().manual_seed(0))
    whole = RelativeDualDescent(3, budget=LinearBudget(0.2, 0.9, steps=15))
    for kl in kls[:10]:
        whole.update(kl)
    second = RelativeDualDescent(3, budget=LinearBudget(0.2, 0.9, steps=15))
    second.load_state_dict({name: value.clone() for name, value in whole.state_dict().items()})
    for kl in kls[10:]:
        expected, metrics = whole.update(kl), second.update(kl)
        assert all(torch.equal(metrics[name], expected[name]) for name in expected)
    with FakeTensorMode():
        assert RelativeDualDescent(2, budget=0.5).update(torch.empty(2))["lambda"].shape == (2,)
    assert RelativeDualDescent(budget=0.5).half().error.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [({"damping": -0.1}, "damping must be"), ({"clip": 1.0}, "clip must be more than 1")],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RelativeDualDescent(**({"budget": 1.0} | options))

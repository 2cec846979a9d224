"""Projected dual descent: the update rule, where it converges, replicas, state, schedules."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from trustregion import (
    ConstantBudget,
    CosineBudget,
    DualDescent,
    LinearBudget,
    LinearGaussian,
    solve_lambda,
    tilted_kl,
)


@settings(deadline=None, max_examples=40)
@given(kls=st.lists(st.floats(0.0, 10.0), min_size=1, max_size=20))
def test_the_update_rule(kls):
    dual = DualDescent(
        budget=0.8, rate=0.3, ema=0.25, clip=2.0, bounds=(0.5, 1.5), scale=2.0, initial=1.2
    )
    lam, average = 1.2, 0.0
    for kl in kls:
        metrics = dual.update(torch.tensor([kl]))
        capped = min(kl, 2.0 * 0.8)
        average = 0.75 * average + 0.25 * capped
        lam = min(max(lam + 0.3 * (average - 0.8), 0.5), 1.5)
        expected = {
            "lam": lam,
            "lambda": 2.0 * lam,
            "kl_ema": average,
            "kl_capped": capped,
            "kl_cap_active": float(kl > 1.6),
            "kl_budget": 0.8,
        }
        assert set(metrics) == set(expected)
        for name, value in expected.items():
            assert metrics[name].shape == (1,)
            if name != "kl_cap_active" or abs(kl - 1.6) > 1e-5:
                assert abs(float(metrics[name]) - value) < 1e-5, name
    assert int(dual.step) == len(kls)


@pytest.mark.parametrize("budget", [0.2, 1.0])
@pytest.mark.parametrize("initial", [0.05, 5.0])
def test_it_converges_to_the_solved_lambda(budget, initial):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn((3, 512), generator=generator) * torch.tensor([[0.5], [1.0], [2.0]])
    dual = DualDescent(3, budget=budget, rate=0.05, initial=initial, scale=1.0)
    for _ in range(3000):
        dual.update(tilted_kl(q, dual.lambda_))
    torch.testing.assert_close(dual.lambda_, solve_lambda(q, budget), rtol=1e-3, atol=0.0)
    torch.testing.assert_close(dual.kl_ema, torch.full((3,), budget), rtol=1e-3, atol=0.0)


def test_it_converges_to_the_closed_form_on_noisy_estimates():
    problem = LinearGaussian(std=0.8, slope=1.5)
    dual = DualDescent(budget=0.5, rate=0.01)
    generator = torch.Generator().manual_seed(1)
    tail = []
    for update in range(4000):
        noise = torch.empty(1).exponential_(generator=generator)  # mean 1
        noisy = problem.optimal_kl(dual.lambda_) * (0.5 + 0.5 * noise)
        dual.update(noisy)
        if update >= 2000:
            tail.append(float(dual.lambda_))
    expected = 0.8 * 1.5 / math.sqrt(2 * 0.5)
    assert abs(sum(tail) / len(tail) / expected - 1.0) < 0.05
    assert abs(problem.optimal_lambda(0.5) - expected) < 1e-6


def test_replicas_do_not_mix():
    generator = torch.Generator().manual_seed(0)
    kls = torch.rand((50, 4), generator=generator) * 3.0
    kls[20, 2] = math.nan
    packed = DualDescent(4, budget=0.5)
    alone = [DualDescent(budget=0.5) for _ in range(4)]
    for kl in kls:
        packed.update(kl)
        for r, dual in enumerate(alone):
            dual.update(kl[r : r + 1])
    for r, dual in enumerate(alone):
        torch.testing.assert_close(packed.lam[r : r + 1], dual.lam, equal_nan=True, rtol=0, atol=0)
    assert torch.all(torch.isfinite(packed.lam))


def test_a_kl_that_is_nan_moves_nothing_and_an_infinite_one_counts_as_the_cap():
    dual = DualDescent(3, budget=0.5, clip=2.0)
    dual.update(torch.tensor([0.9, 0.9, 0.9]))
    held = dual.lam.clone(), dual.kl_ema.clone()
    metrics = dual.update(torch.tensor([math.nan, math.inf, 1.0]))
    assert (dual.lam[0], dual.kl_ema[0]) == (held[0][0], held[1][0])
    assert metrics["kl_capped"].isnan().tolist() == [True, False, False]
    assert metrics["kl_cap_active"].tolist() == [0.0, 1.0, 0.0]
    assert torch.equal(dual.lam[1], dual.lam[2])
    assert dual.kl_ema[1] > held[1][1]
    dual.update(torch.tensor([0.9, 0.9, 0.9]))
    assert dual.kl_ema[0] > held[1][0]


def test_nothing_is_read_from_the_device():
    # A fake tensor has no numbers: reading one, or branching on one, raises.
    with FakeTensorMode():
        dual = DualDescent(2, budget=LinearBudget(0.2, 0.9, steps=15))
        assert dual.update(torch.empty(2))["lambda"].shape == (2,)


def test_rate_zero_is_fixed_temperature():
    dual = DualDescent(2, budget=0.5, rate=0.0, initial=0.7)
    for _ in range(10):
        dual.update(torch.tensor([5.0, 0.0]))
    torch.testing.assert_close(dual.lambda_, torch.full((2,), 2.1))
    assert dual.kl_ema[0] > 0.0


def test_state_dict_round_trip_continues_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    kls = torch.rand((20, 3), generator=generator)
    schedule = LinearBudget(0.2, 0.9, steps=15)
    whole = DualDescent(3, budget=schedule)
    first = DualDescent(3, budget=schedule)
    for kl in kls[:10]:
        whole.update(kl)
        first.update(kl)
    state = {name: value.clone() for name, value in first.state_dict().items()}
    assert set(state) == {"lam", "kl_ema", "step"}
    second = DualDescent(3, budget=schedule)
    second.load_state_dict(state)
    for kl in kls[10:]:
        expected, metrics = whole.update(kl), second.update(kl)
        assert all(torch.equal(metrics[name], expected[name]) for name in expected)
    assert int(second.step) == 20


def test_metrics_are_copies_and_the_state_stays_in_place():
    dual = DualDescent(2, budget=0.5)
    storage = dual.lam.data_ptr(), dual.kl_ema.data_ptr(), dual.step.data_ptr()
    before = dual.update(torch.tensor([3.0, 0.1]))
    kept = {name: value.clone() for name, value in before.items()}
    dual.update(torch.tensor([0.0, 3.0]))
    assert all(torch.equal(before[name], kept[name]) for name in kept)
    assert storage == (dual.lam.data_ptr(), dual.kl_ema.data_ptr(), dual.step.data_ptr())


def test_schedules():
    def at(schedule, step):
        return float(schedule(torch.tensor(step)))

    assert at(ConstantBudget(0.3), 10) == pytest.approx(0.3)
    linear, cosine = LinearBudget(1.0, 0.2, 100), CosineBudget(1.0, 0.2, 100)
    for schedule in (linear, cosine):
        assert at(schedule, 0) == pytest.approx(1.0)
        assert at(schedule, 50) == pytest.approx(0.6)
        assert at(schedule, 100) == pytest.approx(0.2)
        assert at(schedule, 1000) == pytest.approx(0.2)
    assert at(linear, 25) == pytest.approx(0.8)
    assert at(cosine, 25) == pytest.approx(0.6 + 0.4 * math.cos(math.pi / 4))

    dual = DualDescent(budget=linear)
    budgets = [float(dual.update(torch.tensor([0.5]))["kl_budget"]) for _ in range(3)]
    assert budgets == pytest.approx([1.0, 0.992, 0.984])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 0.0}, "positive number of nats"),
        ({"budget": -1.0}, "positive number of nats"),
        ({"budget": math.nan}, "positive number of nats"),
        ({"budget": math.inf}, "positive number of nats"),
        ({"rate": -0.1}, "rate must be"),
        ({"rate": math.nan}, "rate must be"),
        ({"ema": 0.0}, "ema must be"),
        ({"ema": 1.5}, "ema must be"),
        ({"clip": 1.0}, "clip must be more than 1"),
        ({"bounds": (0.0, 1.0)}, "0 < low < high"),
        ({"bounds": (2.0, 1.0)}, "0 < low < high"),
        ({"bounds": (1.0, math.inf)}, "0 < low < high"),
        ({"initial": 200.0}, "inside the bounds"),
        ({"scale": 0.0}, "scale must be"),
        ({"replicas": 0}, "replicas must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DualDescent(**({"budget": 1.0} | settings))


def test_schedules_out_of_range_are_refused():
    for schedule in (LinearBudget, CosineBudget):
        with pytest.raises(ValueError, match="end must be a positive"):
            schedule(1.0, 0.0, 10)
        with pytest.raises(ValueError, match="steps must be at least 1"):
            schedule(1.0, 0.5, 0)


def test_a_kl_per_sample_is_refused():
    with pytest.raises(ValueError, match="average it over the batch first"):
        DualDescent(2, budget=1.0).update(torch.zeros(2, 5).mean(0))


@pytest.mark.parametrize("budget", ["0.5", None, [0.5, 0.6], torch.tensor([0.5, 0.6])])
def test_a_budget_that_is_no_number_is_refused(budget):
    with pytest.raises(ValueError, match="for one per replica\\) must be a positive number"):
        DualDescent(2, budget=budget)


def test_a_schedule_may_give_each_replica_its_own_budget():
    budgets = torch.tensor([0.2, 2.0])
    packed = DualDescent(2, budget=lambda step: budgets)
    alone = [DualDescent(budget=float(budget)) for budget in budgets]
    for _ in range(5):
        metrics = packed.update(torch.tensor([1.0, 1.0]))
        for dual in alone:
            dual.update(torch.tensor([1.0]))
    assert metrics["kl_budget"].tolist() == budgets.tolist()
    torch.testing.assert_close(packed.lam, torch.cat([dual.lam for dual in alone]))


def test_minus_infinity_tells_nothing():
    dual = DualDescent(2, budget=0.5)
    dual.update(torch.tensor([-math.inf, 0.1]))
    assert dual.kl_ema.isfinite().all()
    assert float(dual.lam[0]) == 1.0
    assert float(dual.lam[1]) < 1.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_does_not_freeze_in_a_model_of_low_precision(dtype):
    model = torch.nn.ModuleDict(
        {"net": torch.nn.Linear(2, 2), "dual": DualDescent(budget=0.5, initial=50.3)}
    ).to(dtype)
    assert model["net"].weight.dtype == dtype
    exact = DualDescent(budget=0.5, initial=50.3)
    for _ in range(100):
        model["dual"].update(torch.tensor([0.0], dtype=dtype))
        exact.update(torch.tensor([0.0]))
    assert torch.equal(model["dual"].lam, exact.lam)
    assert DualDescent(budget=0.5).double().lam.dtype == torch.float64
    assert DualDescent(budget=0.5).to("meta").lam.device.type == "meta"


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_buffers_are_float32_after_any_way_there(narrow: torch.dtype) -> None:
    dual = DualDescent(2, budget=0.3)
    assert dual.double().lam.dtype == torch.float64
    assert dual.float().lam.dtype == torch.float32
    assert dual.to(narrow).lam.dtype == torch.float32
    assert dual.step.dtype == torch.int64

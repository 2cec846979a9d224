"""Lambda solved from reference samples, and budgets that change during training."""

import math
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.agents import Problem, draw
from bench.agents.dual import budget_of, correct_dual, solve_dual
from qlearn import RandomStreams
from trustregion import DualDescent, tilted_kl

from .small_agents import PROBLEM, ROWS, batch_of, build, train


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
    budget = budget_of("cosine", 0.1, 0.4, 10)
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


def test_without_a_rate_the_solved_lambda_is_not_corrected() -> None:
    agent = build("trqam", [0], dual="solve", kl_budget=0.1, dual_rate=0.0)
    assert train(agent, [0], 3)["lambda_correction"].item() == 1.0


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_budget_moves_along_its_schedule(name: str) -> None:
    agent = build(
        "trqam", [0, 1], kl_budget=0.2, budget_schedule=name, budget_end=0.6, budget_steps=4
    )
    seen = [train(agent, [0, 1], 1)["kl_budget"][0].item() for _ in range(6)]
    middle = {"linear": [0.3, 0.4, 0.5], "cosine": [0.258579, 0.4, 0.541421]}[name]
    assert seen == pytest.approx([0.2, *middle, 0.6, 0.6], rel=1e-5)


@pytest.mark.parametrize("settings", [{"budget_end": 0.6}, {"budget_steps": 4}, {}])
def test_a_schedule_without_an_end_or_a_length_is_refused(settings: dict[str, Any]) -> None:
    missing = "budget_steps" if "budget_end" in settings else "budget_end"
    with pytest.raises(ValueError, match=f"budget_schedule=linear .* give {missing}"):
        build("trqam", [0], budget_schedule="linear", **settings)


def test_a_fixed_lambda_has_no_budget_among_its_metrics() -> None:
    metrics = train(build("trqam", [0], dual_rate=0.0), [0], 2)
    assert {"lambda", "lam", "path_kl"} <= set(metrics)
    assert not {"kl_budget", "kl_ema", "kl_capped", "kl_cap_active"} & set(metrics)


def test_a_lambda_outside_its_bounds_is_refused_by_the_names_of_the_settings() -> None:
    with pytest.raises(ValueError, match=r"lambda_initial=1000 .* lambda_max=100"):
        build("trqam", [0], lambda_initial=1000.0)


def test_a_constant_budget_ignores_the_settings_of_schedules() -> None:
    agent = build("trqam", [0], kl_budget=0.2, budget_end=7.0, budget_steps=1)
    assert train(agent, [0], 3)["kl_budget"].item() == pytest.approx(0.2)


def test_solving_uses_the_reference_and_the_target_critic_of_the_batch() -> None:
    agent = build("trqam", [0, 1], dual="solve", kl_budget=0.1, dual_states=5, dual_samples=40)
    train(agent, [3, 4], 3)  # reference, its average, policy and critics are apart
    streams = RandomStreams([0, 1])
    batch, noise = batch_of(streams), draw(streams, agent.noise(ROWS))
    values = agent.reference_values(batch.observations, noise["reference"])
    assert values.shape == (2, 5, 40)
    base = agent.target_slow.field(batch.observations[:, 3:4])
    x = noise["reference"][:, 3, 7:8]
    for k in range(agent.config.flow_steps):
        t = torch.full((2, 1), k / agent.config.flow_steps)
        x = x + base(x, t) / agent.config.flow_steps
    alone = agent.target_critic(batch.observations[:, 3:4], x.clamp(-1, 1)).mean(-2)
    torch.testing.assert_close(values[:, 3, 7:8], alone.detach(), rtol=1e-4, atol=1e-6)
    dual = agent.dual
    metrics = agent.update(batch, noise)
    assert torch.equal(metrics["lambda"], dual.lambda_)
    per_state = tilted_kl(values, metrics["lambda_solved"][:, None].expand(2, 5))
    torch.testing.assert_close(
        per_state.mean(-1) / PROBLEM.horizon, torch.full((2,), 0.1), rtol=1e-3, atol=0.0
    )


@pytest.mark.usefixtures("double")
def test_the_solved_lambda_is_the_one_of_the_matching_loss() -> None:
    # A descent that is held at the solved lambda has the same losses.
    agent = build("trqam", [0], dual="solve", kl_budget=0.1)
    train(agent, [2], 3)
    streams = RandomStreams([0]).spawn("batches")
    batch, noise = batch_of(streams), draw(streams, agent.noise(ROWS))
    state = {key: value.clone() for key, value in agent.state_dict().items()}
    metrics = agent.update(batch, noise)
    held = build(
        "trqam", [0], dual_rate=0.0, lambda_scale=1.0, lambda_initial=float(metrics["lambda"])
    )
    held.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith("dual.")}, strict=False
    )
    ours = held.losses(batch, noise)
    torch.testing.assert_close(ours["adjoint_loss"].detach(), metrics["adjoint_loss"])


def test_a_solving_replica_in_a_pack_equals_its_run_alone() -> None:
    settings: dict[str, Any] = {"dual": "solve", "kl_budget": 0.1}
    together = train(build("trqam", [3, 8], **settings), [3, 8], 3)
    alone = train(build("trqam", [8], **settings), [8], 3)
    for name, value in alone.items():
        torch.testing.assert_close(together[name][1], value[0], rtol=1e-4, atol=1e-6)


def test_too_few_samples_for_a_budget_are_refused() -> None:
    # 0.5 nats x 3 actions and one to spare: e^2.5 = 12.2 samples.
    build("trqam", [0], dual="solve", kl_budget=0.5, dual_samples=13)
    with pytest.raises(ValueError, match="at least 13"):
        build("trqam", [0], dual="solve", kl_budget=0.5, dual_samples=12)
    with pytest.raises(ValueError, match="at least 13"):
        build(
            "trqam", [0], dual="solve", kl_budget=0.1, budget_schedule="linear", budget_end=0.5,
            budget_steps=4, dual_samples=12,
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"e\^3001 samples.*; give a smaller budget"):
        build("trqam", [0], dual="solve", kl_budget=1000.0)


def test_the_weight_of_a_penalty_is_not_solved_for() -> None:
    with pytest.raises(ValueError, match="external"):
        build("trqam", [0], Problem(3, 1), dual="solve", trust_region="external")

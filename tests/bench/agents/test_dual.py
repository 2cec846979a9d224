"""TRQAM's dual: budgets that change during training, and its settings."""

from typing import Any

import pytest
import torch

from bench.agents import Problem, draw
from qlearn import RandomStreams
from trustregion import tilted_kl

from .small_agents import PROBLEM, ROWS, batch_of, build, train


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

"""Classifier guidance: the LINEX loss, the guided flow, and the published defects as options."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.agents import draw
from qlearn import RandomStreams, td_loss

from .small_agents import PROBLEM, ROWS, batch_of, build, train

AGENT: Any = build("cgql-l", [0])


def agent_with(**values: Any) -> Any:
    """The agent of this module with other settings; its networks are not touched."""
    AGENT.config = replace(AGENT.config, **values)
    return AGENT


@given(
    st.lists(st.floats(-2.0, 2.0), min_size=2, max_size=6),
    st.floats(0.2, 3.0),
)
@settings(max_examples=50, deadline=None)
def test_linex_is_least_at_the_log_mean_exponential(values: list[float], tau: float) -> None:
    clean = torch.tensor(values, dtype=torch.float64)
    agent = agent_with(inverse_temperature=tau, linex_clip=50.0, linex_tail="linear")
    best = (torch.logsumexp(tau * clean, 0) - math.log(len(values))) / tau
    noisy = best.clone().requires_grad_()
    (slope,) = torch.autograd.grad(agent.linex(noisy.expand_as(clean), clean).mean(), noisy)
    assert abs(float(slope)) < 1e-9
    for other in (best - 0.1, best + 0.1):
        assert agent.linex(other, clean).mean() > agent.linex(best, clean).mean()


@pytest.mark.parametrize(("tail", "continuous"), [("linear", True), ("published", False)])
def test_the_linear_tail_continues_value_and_slope(tail: str, continuous: bool) -> None:
    agent = agent_with(inverse_temperature=2.0, linex_clip=1.5, linex_tail=tail)
    clean = torch.zeros(2, dtype=torch.float64)
    edge = -1.5 / 2.0
    noisy = torch.tensor([edge + 1e-9, edge - 1e-9], dtype=torch.float64, requires_grad=True)
    below, above = agent.linex(noisy, clean).unbind()
    (slopes,) = torch.autograd.grad(below + above, noisy)
    assert (abs(float((below - above).detach())) < 1e-6) is continuous
    assert (abs(float(slopes[0] - slopes[1])) < 1e-6) is continuous


def test_the_linear_tail_stays_finite() -> None:
    agent = agent_with(inverse_temperature=10.0, linex_clip=5.0, linex_tail="linear")
    noisy = torch.tensor([-1e4], requires_grad=True)
    (slope,) = torch.autograd.grad(agent.linex(noisy, torch.zeros(1)).sum(), noisy)
    assert slope.isfinite().all()
    assert float(slope) < 0.0  # the critic grows towards its target


@pytest.mark.usefixtures("double")
def test_guidance_is_the_velocity_of_the_critics_score() -> None:
    agent = build("cgql-l", [0], guidance=0.3, inverse_temperature=2.0)
    streams = RandomStreams([1])
    observations, x = streams.normal(4, 5), streams.normal(4, PROBLEM.chunk_dim)
    t = torch.full((1, 4), 0.4)
    x.requires_grad_()
    value = agent.target_critic(observations, x, t.unsqueeze(-1)).mean(-2).sum()
    (score,) = torch.autograd.grad(value, x)
    flow = agent.target_flow(observations, x, t)
    expected = flow + 0.3 * (x + 0.6 * 2.0 * score) / 0.4
    torch.testing.assert_close(agent.guided(observations)(x, t), expected)


def test_without_temperature_or_scale_the_flow_is_not_guided() -> None:
    streams = RandomStreams([1])
    observations, noise = streams.normal(4, 5), streams.normal(4, PROBLEM.chunk_dim)
    plain = build("cgql-l", [0], inverse_temperature=0.0).sample(observations, noise)
    unscaled = build("cgql-l", [0], guidance=0.0).sample(observations, noise)
    torch.testing.assert_close(unscaled, plain, rtol=1e-5, atol=1e-6)
    guided = build("cgql-l", [0], guidance=0.5).sample(observations, noise)
    assert not torch.allclose(guided, plain, atol=1e-2)


def perturbed_sample(critic: str, **values: Any) -> tuple[Tensor, Tensor]:
    streams = RandomStreams([1])
    observations, noise = streams.normal(4, 5), streams.normal(4, PROBLEM.chunk_dim)
    agent = build("cgql-l", [0], inverse_temperature=5.0, **values)
    before = agent.sample(observations, noise)
    with torch.no_grad():
        for parameter in getattr(agent, critic).parameters():
            parameter.mul_(1.5)
    return before, agent.sample(observations, noise)


@pytest.mark.parametrize("guide", ["target", "online"])
def test_the_critic_that_was_asked_for_guides(guide: str) -> None:
    critics = {"target": "target_critic", "online": "critic"}
    before, after = perturbed_sample(critics.pop(guide), guidance_critic=guide)
    assert not torch.allclose(before, after, atol=1e-3)
    before, after = perturbed_sample(critics.popitem()[1], guidance_critic=guide)
    assert torch.equal(before, after)


@pytest.mark.parametrize("mode", ["simple", "mse", "linex"])
def test_modes(mode: str) -> None:
    agent = build("cgql-l", [0], mode=mode)
    streams = RandomStreams([0])
    batch, noise = batch_of(streams), draw(streams, agent.noise(ROWS))
    losses = agent.losses(batch, noise)
    assert ("noisy_loss" in losses) is (mode != "simple")
    metrics = train(agent, [0], 2)
    assert all(bool(value.isfinite().all()) for value in metrics.values())
    if mode == "mse":
        t = noise["noisy_t"].unsqueeze(-1)
        noisy = (1.0 - t) * noise["noisy_x0"] + t * batch.actions
        agent = build("cgql-l", [0], mode=mode)
        clean = agent.target_critic(batch.observations, batch.actions, torch.ones_like(t))
        expected = td_loss(agent.critic(batch.observations, noisy, t), clean, batch.valid)
        torch.testing.assert_close(losses["noisy_loss"], expected)


def test_the_simple_mode_asks_for_clean_actions_only() -> None:
    agent = build("cgql-l", [0], mode="simple")
    streams = RandomStreams([1])
    observations, x = streams.normal(4, 5), streams.normal(4, PROBLEM.chunk_dim)
    seen: list[Tensor] = []
    original = agent.target_critic.forward

    def forward(*inputs: Tensor) -> Tensor:
        seen.append(inputs[2])
        return torch.as_tensor(original(*inputs))

    agent.target_critic.forward = forward
    agent.guided(observations)(x, torch.full((1, 4), 0.3))
    assert len(seen) == 1
    assert bool((seen[0] == 1.0).all())

"""QC, QGF and RQL: what their reference files, whose chunks are whole, do not show."""

import pytest
import torch

from bench.agents import draw
from flowsde import ode_sample
from qlearn import RandomStreams

from .small_agents import ROWS, batch_of, build, played


@pytest.mark.parametrize(
    ("name", "loss"),
    [("qgf", "value_loss"), ("qgf", "flow_loss"), ("rql", "actor_loss"), ("rql", "flow_loss")],
)
def test_chunks_that_an_episode_cuts_teach_nothing(name: str, loss: str) -> None:
    agent = build(name, [0])
    streams = RandomStreams([0])
    batch, noise = batch_of(streams), draw(streams, agent.noise(ROWS))
    before = agent.losses(batch, noise)[loss].detach()
    batch.observations[:, -1] += 1.0  # the last row has valid = 0
    assert torch.equal(agent.losses(batch, noise)[loss].detach(), before)
    batch.observations[:, 1] += 1.0
    assert not torch.allclose(agent.losses(batch, noise)[loss].detach(), before)


def test_guidance_climbs_the_critic_and_is_not_trained() -> None:
    plain, guided = build("qgf", [0], guidance=0.0), build("qgf", [0], guidance=0.5)
    streams = RandomStreams([1])
    observations, noise = streams.normal(50, 5), streams.normal(50, 6)
    first, second = (agent.sample(observations, noise) for agent in (plain, guided))
    flow = ode_sample(plain.flow.field(observations), noise, 3).clamp(-1.0, 1.0)
    assert torch.equal(first, flow)
    values = [plain.target_critic(observations, a).amin(-2).mean() for a in (first, second)]
    assert values[1] > values[0] + 1e-3
    batch, numbers = batch_of(streams), draw(streams, plain.noise(ROWS))
    for name, value in plain.losses(batch, numbers).items():
        assert torch.equal(value, guided.losses(batch, numbers)[name]), name


def test_more_chunks_are_worth_more_to_the_critic_that_chooses() -> None:
    values = []
    for count in (1, 4, 32):
        agent = build("qc", [0], num_action_samples=count)
        observations = RandomStreams([0]).spawn("acting").normal(40, 5)
        actions = played(agent, [0], rows=40)
        values.append(float(agent.critic(observations, actions).detach().mean()))
    assert values[0] < values[1] < values[2]


@pytest.mark.usefixtures("double")
def test_reversing_finds_where_the_flow_was() -> None:
    agent = build("rql", [0, 1], flow_steps=400)
    streams = RandomStreams([0, 1])
    observations, noise = streams.normal(6, 5), streams.normal(6, 6)
    with torch.no_grad():
        field = agent.flow.field(observations)
        middle = ode_sample(field, noise, 400, t1=0.6)
        end = ode_sample(field, middle, 400, t0=0.6)
        found, times = agent.reverse(field, end, torch.full((2, 6), 0.4))
    torch.testing.assert_close(times, torch.full_like(times, 0.6))
    torch.testing.assert_close(found, middle, rtol=0.0, atol=5e-3)
    assert float((end - middle).abs().max()) > 0.1


def test_half_of_a_batch_is_reversed_by_whole_steps() -> None:
    agent = build("rql", [0], flow_steps=4)
    spans = agent.spans(RandomStreams([3]).uniform(2_000))[0]
    first, second = spans[:1_000], spans[1_000:]
    assert first.unique().numel() > 900
    values, counts = second.unique(return_counts=True)
    assert values.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert 150 < int(counts.min()) <= int(counts.max()) < 250
    assert agent.spans(torch.ones(1, 3) - 1e-7).max() == 1.0

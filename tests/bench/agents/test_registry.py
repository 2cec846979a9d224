"""What holds for every agent of the registry: it trains, acts, packs, and keeps its names."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.agents import AGENTS, Agent, Problem, draw, networks
from qlearn import ChunkBatch, RandomStreams

PROBLEM = Problem(observation_dim=5, action_dim=2, horizon=3)
ROWS = 8


def small(name: str, **settings: Any) -> Any:
    """A config with small networks and three flow steps."""
    entry = AGENTS[name]
    known = {field.name for field in fields(entry.config)}
    values = {"actor_hidden": (16, 16), "critic_hidden": (16, 16), "critics": 3, "flow_steps": 3}
    return entry.config(**{k: v for k, v in (values | settings).items() if k in known})


def build(name: str, seeds: list[int], problem: Problem = PROBLEM, **settings: Any) -> Any:
    streams = RandomStreams(seeds)
    return AGENTS[name].agent(small(name, **settings), problem, streams)


def batch_of(streams: RandomStreams, problem: Problem = PROBLEM) -> ChunkBatch:
    rows = (len(streams.seeds), ROWS)
    valid = torch.ones(rows)
    valid[:, -1] = 0.0
    masks = torch.ones(rows)
    masks[:, 0] = 0.0
    return ChunkBatch(
        observations=streams.normal(ROWS, problem.observation_dim),
        actions=2.0 * streams.uniform(ROWS, problem.chunk_dim) - 1.0,
        rewards=-streams.uniform(ROWS),
        masks=masks,
        valid=valid,
        next_observations=streams.normal(ROWS, problem.observation_dim),
    )


def train(agent: Agent, seeds: list[int], updates: int, problem: Problem = PROBLEM) -> Any:
    """``updates`` updates on batches and noise of each replica's own stream; last metrics."""
    streams = RandomStreams(seeds).spawn("batches")
    for _ in range(updates):
        metrics = agent.update(batch_of(streams, problem), draw(streams, agent.noise(ROWS)))
    return metrics


def played(agent: Agent, seeds: list[int], problem: Problem = PROBLEM, rows: int = 4) -> Tensor:
    streams = RandomStreams(seeds).spawn("acting")
    observations = streams.normal(rows, problem.observation_dim)
    return agent.act(observations, draw(streams, agent.acting_noise(rows)))


@pytest.fixture(params=AGENTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_trains_and_acts(name: str) -> None:
    agent = build(name, [0, 1])
    before = {key: value.clone() for key, value in agent.state_dict().items()}
    metrics = train(agent, [0, 1], 3)
    for metric, value in metrics.items():
        assert value.shape == (2,), metric
        assert bool(value.isfinite().all()), metric
        assert not value.requires_grad, metric
    assert {"total_loss", "gradient_norm"} <= set(metrics)
    unmoved = [key for key, value in agent.state_dict().items() if torch.equal(value, before[key])]
    assert unmoved == []
    actions = played(agent, [0, 1])
    assert actions.shape == (2, 4, PROBLEM.chunk_dim)
    assert not actions.requires_grad
    assert -1.0 <= float(actions.min()) < float(actions.max()) <= 1.0


@pytest.mark.parametrize("replica", [0, 1])
def test_a_replica_in_a_pack_equals_its_run_alone(name: str, replica: int) -> None:
    seeds = [3, 8]
    pack, alone = build(name, seeds), build(name, [seeds[replica]])
    together, single = train(pack, seeds, 3), train(alone, [seeds[replica]], 3)
    for metric, value in single.items():
        torch.testing.assert_close(together[metric][replica], value[0], rtol=1e-4, atol=1e-5)
    ours = pack.state_dict()
    for key, value in alone.state_dict().items():
        # Entries whose gradient is all rounding move by up to the step size, whatever its sign.
        whole = ours[key] if value.dim() == 0 else ours[key][replica : replica + 1]
        assert float((whole - value).abs().max()) < 2e-3, key
        assert float((whole - value).abs().double().mean()) < 2e-5, key
    torch.testing.assert_close(
        played(pack, seeds)[replica], played(alone, [seeds[replica]])[0], rtol=1e-3, atol=1e-4
    )


def test_one_critic_and_one_action_component(name: str) -> None:
    problem = Problem(observation_dim=3, action_dim=1)
    agent = build(name, [0], problem, critics=1)
    metrics = train(agent, [0], 2, problem)
    assert all(bool(value.isfinite().all()) for value in metrics.values())
    assert played(agent, [0], problem).shape == (1, 4, 1)


def test_one_flow_step(name: str) -> None:
    agent = build(name, [0], flow_steps=1)
    metrics = train(agent, [0], 2)
    assert all(bool(value.isfinite().all()) for value in metrics.values())


def test_rows_are_acted_on_independently(name: str) -> None:
    agent = build(name, [0], best_of=3)
    streams = RandomStreams([0])
    observations = streams.normal(4, PROBLEM.observation_dim)
    noise = draw(streams, agent.acting_noise(4))
    together = agent.act(observations, noise)
    for row in range(4):
        alone = agent.act(
            observations[:, row : row + 1], {k: v[:, row : row + 1] for k, v in noise.items()}
        )
        torch.testing.assert_close(together[:, row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_state_continues_exactly(name: str) -> None:
    agent, other = build(name, [0]), build(name, [1])
    train(agent, [0], 2)
    other.load_state_dict({k: v.clone() for k, v in agent.state_dict().items()})
    other.learner.load_state_dict({k: v.clone() for k, v in agent.learner.state_dict().items()})
    expected, found = train(agent, [5], 2), train(other, [5], 2)
    for metric, value in expected.items():
        assert torch.equal(found[metric], value), metric


def test_rows_that_an_episode_cuts_teach_no_critic(name: str) -> None:
    if name == "bc":
        pytest.skip("has no critic")
    agent = build(name, [0])
    streams = RandomStreams([0])
    batch, noise = batch_of(streams), draw(streams, agent.noise(ROWS))
    before = agent.losses(batch, noise)["critic_loss"].detach()
    batch.rewards[:, -1] += 100.0  # the last row has valid = 0
    assert torch.equal(agent.losses(batch, noise)["critic_loss"].detach(), before)
    batch.rewards[:, 1] += 100.0
    assert not torch.allclose(agent.losses(batch, noise)["critic_loss"].detach(), before)


def test_pretrained_agents_start_from_the_cloned_flow(name: str) -> None:
    agent = build(name, [0])
    streams = RandomStreams([9])
    clone = networks.flow_actor(PROBLEM, (16, 16), streams, layer_norm=False)
    before = {key: value.clone() for key, value in agent.state_dict().items()}
    agent.start_from(clone)
    kernel = clone.network.kernels[0]
    taken = [key for key, value in agent.named_parameters() if torch.equal(value, kernel)]
    if AGENTS[name].pretrained:
        assert taken, "no network has the clone's parameters"
    else:
        assert all(torch.equal(v, before[k]) for k, v in agent.state_dict().items())


def test_settings_are_documented(name: str) -> None:
    config = AGENTS[name].config
    for field in fields(config):
        assert f"        {field.name}: " in (config.__doc__ or ""), field.name


def test_only_rlpd_waits_for_the_online_phase() -> None:
    assert [name for name, entry in AGENTS.items() if entry.online_only] == ["rlpd"]

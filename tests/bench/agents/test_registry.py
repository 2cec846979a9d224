"""What holds for every agent of the registry: it trains, acts, packs, and keeps its names."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from bench.agents import AGENTS, Problem, draw, networks
from bench.agents.settings import setting_meanings
from qlearn import RandomStreams

from .small_agents import PROBLEM, ROWS, batch_of, build, played, train

DOCS = Path(__file__).parents[3] / "docs" / "agents"


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
@pytest.mark.usefixtures("double")
def test_a_replica_in_a_pack_equals_its_run_alone(name: str, replica: int) -> None:
    seeds = [3, 8]
    pack, alone = build(name, seeds), build(name, [seeds[replica]])
    together, single = train(pack, seeds, 3), train(alone, [seeds[replica]], 3)
    for metric, value in single.items():
        torch.testing.assert_close(together[metric][replica], value[0], rtol=1e-7, atol=1e-9)
    ours = pack.state_dict()
    for key, value in alone.state_dict().items():
        mine = ours[key] if value.dim() == 0 else ours[key][replica : replica + 1]
        torch.testing.assert_close(mine, value, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(
        played(pack, seeds)[replica], played(alone, [seeds[replica]])[0], rtol=1e-6, atol=1e-8
    )


def test_one_critic_and_one_action_component(name: str) -> None:
    problem = Problem(observation_dim=3, action_dim=1)
    agent = build(name, [0], problem, num_critics=1)
    metrics = train(agent, [0], 2, problem)
    assert all(bool(value.isfinite().all()) for value in metrics.values())
    assert played(agent, [0], problem).shape == (1, 4, 1)


def test_one_flow_step(name: str) -> None:
    agent = build(name, [0], flow_steps=1)
    metrics = train(agent, [0], 2)
    assert all(bool(value.isfinite().all()) for value in metrics.values())


def test_rows_are_acted_on_independently(name: str) -> None:
    agent = build(name, [0], num_action_samples=3)
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


@pytest.mark.parametrize("name", [name for name in AGENTS if name != "bc"])
def test_rows_that_an_episode_cuts_teach_no_critic(name: str) -> None:
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
    assert setting_meanings(config).keys() == {field.name for field in fields(config)}


def test_only_rlpd_waits_for_the_online_phase() -> None:
    assert [name for name, entry in AGENTS.items() if entry.online_only] == ["rlpd"]


def test_every_metric_has_its_equation_on_the_agents_page(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    metrics = train(build(name, [0]), [0], 1)
    assert [metric for metric in metrics if f"`{metric}`" not in page] == []
    assert f"[{name}]({name}.md)" in (DOCS / "README.md").read_text(encoding="utf-8")

"""ReBRAC against the published implementation, with and without a move of the averages."""

import pytest
import torch

from bench.agents import ReBRAC, ReBRACConfig
from qlearn import RandomStreams

from .conftest import (
    EXPECT,
    Reference,
    check_after,
    check_expected,
    check_gradients,
    error,
    load_parameters,
    total_loss,
    translated,
)

FILES = {"A14_rebrac": 1, "A15_rebrac_critic_step": 0}
MODULES = {name: name for name in ("actor", "target_actor", "critic", "target_critic")}


@pytest.fixture(params=FILES)
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(request.param)


@pytest.fixture
def agent(reference: Reference, streams: RandomStreams) -> ReBRAC:
    c = reference.config
    config = ReBRACConfig(
        **reference.settings(),
        cloning_weight=c["alpha_actor"],
        target_noise=c["actor_noise"],
        target_noise_clip=c["actor_noise_clip"],
        target_every=c["actor_freq"],
    )
    agent = ReBRAC(config, reference.problem, streams)
    load_parameters(agent, reference.group("init/"), MODULES)
    return agent


def test_losses(agent: ReBRAC, reference: Reference) -> None:
    losses = agent.losses(reference.batch(), reference.noise())
    weighted = agent.config.cloning_weight * losses["cloning_loss"]
    for name, found in (
        ("critic/critic_loss", losses["critic_loss"]),
        ("actor/actor_loss", losses["q_loss"]),
        ("actor/mse", losses["cloning_loss"]),
        ("actor/bc_loss", weighted),
        ("actor/total_loss", losses["q_loss"] + weighted),
    ):
        assert error(found[0].detach(), reference.tensor(f"info/{name}")) < EXPECT, name


def test_gradients(agent: ReBRAC, reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    total = total_loss(agent, reference, monkeypatch)
    check_expected(reference, {"total_loss": total[0]})
    check_gradients(agent, total, translated(reference.group("grad/"), MODULES))


def test_one_update(agent: ReBRAC, reference: Reference, request: pytest.FixtureRequest) -> None:
    # The averages move at even updates: the second of two begins with one update behind it.
    moves = FILES[request.node.callspec.params["reference"]]
    state = agent.learner.state_dict()
    agent.learner.load_state_dict(state | {"steps": torch.tensor(moves)})
    agent.update(reference.batch(), reference.noise())
    check_after(agent, translated(reference.group("after/"), MODULES))
    init = translated(reference.group("init/"), MODULES)
    parameters = dict(agent.named_parameters())
    kept = [n for n in init if n.startswith("target") and torch.equal(parameters[n], init[n])]
    assert len(kept) == (0 if moves else sum(name.startswith("target") for name in init))

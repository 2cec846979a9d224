"""Agents against the published implementations, by reference files that describe themselves.

A file whose `config` names an `agent` of the registry, its own `settings` and the `modules` in
which the reference's networks are found needs no code here; tests/reference/README.md has the keys.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.agents import AGENTS
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

FILES = Reference.describing_themselves()


@pytest.fixture(params=FILES)
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(request.param)


@pytest.fixture
def agent(reference: Reference, streams: RandomStreams) -> Any:
    entry = AGENTS[reference.config["agent"]]
    config = entry.config(**reference.settings() | reference.config["settings"])
    agent = entry.agent(config, reference.problem, streams)
    load_parameters(agent, reference.group("init/"), reference.config["modules"])
    return agent


def expected(reference: Reference, prefix: str) -> dict[str, Tensor]:
    return translated(reference.group(prefix), reference.config["modules"])


def test_there_are_such_files() -> None:
    assert {Reference(name).config["agent"] for name in FILES} >= {"qc", "qgf", "rql"}


def test_every_parameter_is_given(agent: Any, reference: Reference) -> None:
    names = [name for name, _ in agent.named_parameters()]
    assert sorted(expected(reference, "init/")) == sorted(expected(reference, "after/"))
    assert sorted(expected(reference, "init/")) == sorted(names)


def test_losses_and_gradients(
    agent: Any, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = total_loss(agent, reference, monkeypatch)
    losses = agent.losses(reference.batch(), reference.noise())
    assert {f"expect/{name}" for name in losses} <= reference.arrays.keys()
    found = {name: value[0] for name, value in losses.items()}
    check_expected(reference, found | {"total_loss": total[0]})
    check_gradients(agent, total, expected(reference, "grad/"))


def test_one_update(agent: Any, reference: Reference) -> None:
    metrics = agent.update(reference.batch(), reference.noise())
    check_expected(reference, {"gradient_norm": metrics["gradient_norm"][0]})
    check_after(agent, expected(reference, "after/"))


def test_acting(agent: Any, reference: Reference) -> None:
    observations = reference.tensor("act/observations")[None]
    (name,) = agent.acting_noise(1)
    actions = agent.act(observations, {name: reference.tensor("act/noise")[None]})
    assert error(actions[0], reference.tensor("act/action")) < EXPECT


def test_the_choice_among_next_chunks(streams: RandomStreams) -> None:
    # Otherwise the loss of QC's critic would say little about which of the chunks was taken.
    reference = Reference("A16_qc")
    entry = AGENTS["qc"]
    config = entry.config(**reference.settings() | reference.config["settings"])
    agent = entry.agent(config, reference.problem, streams)
    load_parameters(agent, reference.group("init/"), reference.config["modules"])
    batch, noise = reference.batch(), reference.noise()
    chosen = agent.choose(batch.next_observations, noise["next_action"])
    check_expected(reference, {"next_action": chosen[0]})
    first = agent.sample(batch.next_observations, noise["next_action"][:, :, 0])
    assert not torch.allclose(first, chosen, atol=0.1)

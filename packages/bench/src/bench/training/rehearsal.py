"""The whole life of a run on a few made-up rows: what can fail at its end fails before."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from bench.agents import AGENTS, Agent, Measuring, Problem, draw
from bench.agents.settings import FlowSizes
from bench.errors import CheckpointError
from bench.storage import load_checkpoint, save_checkpoint
from bench.training.cost import made_up, rehearse, update_once
from bench.training.trainer import agent_state, load_agent
from qlearn import FlowActor, RandomStreams

__all__ = ["rehearse_life"]

_ROWS = 2


def rehearse_life(agent: str, config: object, problem: Problem) -> None:
    """Lead an agent through all that a run asks of it, but for the environment.

    It starts from a clone, learns, measures itself, is written as a checkpoint, comes back in
    another agent, goes on there as it does here, and plays; if it can be exported, without
    gradients. Environments have a rehearsal of their own, see :func:`bench.simulation.rehearse`.

    Args:
        agent: name in the registry.
        config: its settings, with narrow networks.
        problem: sizes.

    Raises:
        ValueError: the agent refuses its settings, goes on differently after a checkpoint, or does
            not act in chunks of the problem's actions.
    """
    first = rehearse(agent, config, problem)
    if AGENTS[agent].pretrained and isinstance(config, FlowSizes):
        first.start_from(_clone(config, problem))
        update_once(first, problem, RandomStreams([1]))
    if isinstance(first, Measuring) and first.measured_rows:
        first.measure(made_up(problem, RandomStreams([2]), first.measured_rows), RandomStreams([3]))
    second: Agent = AGENTS[agent].agent(config, problem, RandomStreams([4]))
    try:
        load_agent(second, _stored(first))
    except CheckpointError as error:
        raise ValueError(f"agent {agent!r} cannot be resumed: {error}") from error
    for built in (first, second):
        update_once(built, problem, RandomStreams([5]))
    here, there = (_played(agent, built, problem) for built in (first, second))
    if not torch.allclose(here, there, rtol=0.0, atol=0.0, equal_nan=True):
        raise ValueError(
            f"agent {agent!r} goes on differently after a checkpoint, so no run of it could be "
            "resumed: something that it learns or draws from is in neither its state_dict() nor "
            "its learner's"
        )


def _clone(config: FlowSizes, problem: Problem) -> FlowActor:
    return FlowActor(
        1,
        problem.observation_dim,
        problem.chunk_dim,
        config.actor_hidden,
        layer_norm=config.actor_layer_norm,
        streams=RandomStreams([0]),
    )


def _stored(agent: Agent) -> Mapping[str, Tensor]:
    """What a checkpoint gives back."""
    with TemporaryDirectory(prefix="bench-rehearsal-") as place:
        save_checkpoint(Path(place), 1, agent_state(agent), {})
        checkpoint = load_checkpoint(Path(place))
    assert checkpoint is not None
    return checkpoint.tensors


def _played(name: str, agent: Agent, problem: Problem) -> Tensor:
    streams = RandomStreams([6])
    observations = streams.normal(_ROWS, problem.observation_dim)
    noise = draw(streams, agent.acting_noise(_ROWS))
    chunks = agent.act(observations, noise)
    if chunks.shape != (1, _ROWS, problem.chunk_dim):
        raise ValueError(
            f"agent {name!r} acts in tensors of shape {tuple(chunks.shape)}, expected "
            f"{(1, _ROWS, problem.chunk_dim)}: replicas, rows, actions of a chunk"
        )
    if AGENTS[name].exportable:
        try:
            with torch.inference_mode():
                agent.act(observations, noise)
        except RuntimeError as error:  # torch's word for gradients where there are none
            raise ValueError(
                f"agent {name!r} is registered as exportable, but acts by gradients, which "
                f"torch.export does not record ({error}); register it with exportable=False"
            ) from error
    return chunks.detach()

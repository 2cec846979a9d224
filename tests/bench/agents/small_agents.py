"""Agents with small networks, batches for them, and what they do with both."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from bench.agents import AGENTS, Agent, Problem, draw
from qlearn import ChunkBatch, RandomStreams

PROBLEM = Problem(observation_dim=5, action_dim=2, horizon=3)
ROWS = 8


def small(name: str, **settings: Any) -> Any:
    """A config with small networks and three flow steps."""
    entry = AGENTS[name]
    known = {field.name for field in fields(entry.config)}
    values = {
        "actor_hidden": (16, 16),
        "critic_hidden": (16, 16),
        "num_critics": 3,
        "flow_steps": 3,
    }
    return entry.config(**{k: v for k, v in (values | settings).items() if k in known})


def build(name: str, seeds: list[int], problem: Problem = PROBLEM, **settings: Any) -> Any:
    streams = RandomStreams(seeds)
    return AGENTS[name].agent(small(name, **settings), problem, streams)


def batch_of(streams: RandomStreams, problem: Problem = PROBLEM) -> ChunkBatch:
    rows = (len(streams.seeds), ROWS)
    valid = torch.ones(rows, device=streams.device)
    valid[:, -1] = 0.0
    masks = torch.ones(rows, device=streams.device)
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

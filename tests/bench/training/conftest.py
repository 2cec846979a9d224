"""Tiny data and a tiny pack that trains in milliseconds an update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from bench.agents import AGENTS, BCConfig, Problem, TRQAMConfig
from bench.data import generate
from bench.suites import SUITES, smoke
from bench.training.cells import Pack
from bench.training.trainer import BegunEvaluation, Failure, Trainer
from qlearn import ChunkBatch, ChunkSampler, ChunkSource, EpisodeData, RandomStreams

CONFIG = TRQAMConfig(
    actor_hidden=(16, 16), critic_hidden=(16, 16), num_critics=2, flow_steps=3, kl_budget=0.4
)
PROBLEM = Problem(observation_dim=3, action_dim=2, horizon=2)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of `--suite quick --preset smoke`."""
    place = tmp_path_factory.mktemp("data")
    generate("pointmaze-medium-navigate-5k-v0", place, transitions=5_000, processes=1)
    return place


@dataclass
class Recorded:
    """A recorder that keeps what it is told."""

    rows: list[tuple[int, Mapping[str, list[float]]]] = field(default_factory=list)
    evaluated: list[int] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    restarts: list[int] = field(default_factory=list)
    forgotten: list[tuple[int, bool, bool]] = field(default_factory=list)

    def restart(self, step: int, failures: Sequence[Failure] = ()) -> None:
        self.restarts.append(step)

    def training(self, step: int, metrics: Mapping[str, list[float]]) -> None:
        self.rows.append((step, metrics))

    def evaluate(self, step: int, metrics: Mapping[str, list[float]], seconds: float) -> None:
        self.evaluated.append(step)

    def wait(self, before: int | None = None) -> None:
        pass

    def has_evaluated(self, step: int) -> bool:
        return True

    def still_played(self, before: int) -> BegunEvaluation | None:
        return None

    def forget(self, step: int, *, training: bool, evaluation: bool) -> None:
        self.forgotten.append((step, training, evaluation))

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)


def episodes(observation_dim: int) -> EpisodeData:
    """Ten episodes of eleven rows with the rewards of two tasks."""
    source = torch.Generator().manual_seed(0)
    rows = 110
    terminals = torch.zeros(rows)
    terminals[10::11] = 1
    return EpisodeData.from_rows(
        torch.randn(rows, observation_dim, generator=source),
        torch.rand(rows, 2, generator=source) * 2 - 1,
        terminals,
        -torch.ones(2, rows),
        torch.ones(2, rows),
    )


class Poisoned:
    """Rewards of replica 1 that are not finite from some batch on."""

    def __init__(self, source: ChunkSource, first: int) -> None:
        self.source, self.first, self.batches = source, first, 0

    def sample(self, streams: RandomStreams, batch: int) -> ChunkBatch:
        self.batches += 1
        drawn = self.source.sample(streams, batch)
        if self.batches < self.first:
            return drawn
        rewards = drawn.rewards.clone()
        rewards[1] = float("nan")
        return replace(drawn, rewards=rewards)


def build_pack(seeds: tuple[int, ...] = (0,), steps: int = 20) -> Pack:
    """TRQAM on tasks 1 and 5 of the smoke suite, with a shorter protocol."""
    suite = smoke(SUITES["quick"])
    protocol = replace(suite.protocol, offline_steps=steps)
    domain = replace(suite.domains[0], tasks=(1, 2))
    return Pack(suite.name, domain, protocol, "trqam", seeds)


def build_trainer(pack: Pack, directory: Path, problem: Problem = PROBLEM) -> Trainer:
    """A trainer of the pack on made-up episodes."""
    streams = RandomStreams(pack.replica_seeds)
    config = BCConfig(CONFIG.actor_hidden, flow_steps=3) if pack.agent == "bc" else CONFIG
    agent = AGENTS[pack.agent].agent(config, problem, streams)
    tasks = [pack.domain.tasks.index(cell.task) for cell in pack.cells]
    data = episodes(problem.observation_dim)
    sampler = ChunkSampler(data, problem.horizon, CONFIG.discount, tasks=tasks[: streams.replicas])
    return Trainer(pack, agent, streams, sampler, directory, Recorded())

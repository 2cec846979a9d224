"""The online phase: every replica acts in its own environment and fills its own ring."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bench.agents import Agent, Problem, draw
from bench.errors import CheckpointError
from bench.simulation import ArraySpec, ArrayTree, EnvironmentLimits, OnlineEnvironments
from bench.storage import load_checkpoint, part
from bench.suites import OnlineProtocol
from bench.training.cells import Pack
from bench.training.policy import ActionScale, Normalizer
from bench.training.trainer import load_agent, stopped_replicas
from qlearn import (
    BalancedSampler,
    ChunkSampler,
    ChunkSource,
    LeafSpec,
    Observation,
    ObservationSpec,
    RandomStreams,
    RingBuffer,
    ShardRotation,
    UnionSampler,
    tree_map,
)

__all__ = ["OnlineExperience", "grown", "is_balanced", "load_offline_result", "replay"]


def is_balanced(protocol: OnlineProtocol, *, from_scratch: bool) -> bool:
    """Whether batches have a fixed share of data; `auto` says so for agents from scratch (RLPD)."""
    return from_scratch if protocol.replay == "auto" else protocol.replay == "balanced"


def replay(pack: Pack, offline: ChunkSampler, ring: RingBuffer) -> ChunkSource:
    """What the batches of an online pack are drawn from: chunks of the data set and of the ring."""
    protocol, size = pack.protocol.online, pack.domain.shard
    shards = None
    if protocol.data == "shard" and size is not None:
        shards = ShardRotation.of(offline, size, protocol.shard_steps, ring.added.device)
    if is_balanced(protocol, from_scratch=pack.from_scratch):
        return BalancedSampler(offline, ring, protocol.offline_share, shards)
    return UnionSampler(offline, ring, shards)


def load_offline_result(checkpoints: Path, pack: Pack, agent: Agent, device: str) -> dict[int, str]:
    """Fill an agent and its optimiser from the end of the offline phase.

    Args:
        checkpoints: of the offline pack of the same cells.
        pack: the online pack.
        agent: built for it.
        device: where the tensors go.

    Returns:
        Replicas that were stopped in the offline phase, with what happened.

    Raises:
        CheckpointError: the offline phase has not reached its end.
    """
    checkpoint = load_checkpoint(checkpoints, device=device)
    if checkpoint is None or checkpoint.step < pack.protocol.offline_steps:
        found = "nothing" if checkpoint is None else f"step {checkpoint.step:,}"
        raise CheckpointError(
            f"the online phase of {pack.name} starts from offline step "
            f"{pack.protocol.offline_steps:,}, but {checkpoints} has {found}"
        )
    load_agent(agent, checkpoint.tensors)
    return {
        replica: f"its offline phase was stopped ({reason})"
        for replica, reason in stopped_replicas(checkpoint).items()
    }


@dataclass(slots=True)
class OnlineExperience:
    """Environments that are played chunk by chunk, and the rings that keep what happened.

    A chunk of ``H`` actions is played open loop; an episode's end drops the rest of it. Replica r
    draws from its own stream, and only when it needs a chunk: a run in a pack plays what it plays
    alone. Rewards and masks follow the data's rule (`bench.data.task_rewards`): OGBench's single
    tasks judge the state before the action, as the data's columns do.

    Attributes:
        environments: one per replica.
        ring: one per replica, of normalised observations; images and named leaves as they are.
        streams: one random stream per replica, for acting alone.
        problem: sizes.
        normalizer: of the data set.
        sparse: reward -1 until everything is solved, as `bench.suites.Domain.sparse`.
        scale: of the environment's actions.
        random_steps: as many first steps play uniformly random chunks (agents that start from
            scratch; the others collect with the policy they have).
    """

    environments: OnlineEnvironments
    ring: RingBuffer
    streams: RandomStreams
    problem: Problem
    normalizer: Normalizer
    sparse: bool = False
    random_steps: int = 0
    scale: ActionScale = field(default_factory=ActionScale)
    _steps: int = field(default=0, init=False)
    _chunks: Tensor = field(init=False)
    _left: Tensor = field(init=False)
    _episodes: Tensor = field(init=False)
    _successes: Tensor = field(init=False)
    _stopped: dict[int, tuple[int, str]] = field(default_factory=dict, init=False)

    @classmethod
    def of(
        cls,
        pack: Pack,
        problem: Problem,
        normalizer: Normalizer,
        streams: RandomStreams,
        discount: float,
        *,
        workers: int | None = None,
        limits: EnvironmentLimits | None = None,
    ) -> "OnlineExperience":
        """Begin the online phase of a pack; its rings keep every transition of the phase.

        Args:
            pack: of the online phase.
            problem: sizes.
            normalizer: of the data set.
            streams: for acting alone; the rings are on their device.
            discount: per step, for the reward sum inside a chunk.
            workers: processes of the environments, see `bench.simulation.OnlineEnvironments`.
            limits: what an environment may take there.

        Raises:
            BenchError: an environment cannot be built or reset.
        """
        environments = OnlineEnvironments(
            [cell.task_name for cell in pack.cells],
            [cell.stream("online environments") for cell in pack.cells],
            workers=workers,
            limits=limits,
        )
        ring = RingBuffer(
            len(pack.cells),
            pack.protocol.online.steps,
            _observed(environments) if normalizer.passes else problem.observation_dim,
            problem.action_dim,
            horizon=problem.horizon,
            discount=discount,
            mode=pack.protocol.chunks,
            device=streams.device,
        )
        return cls(
            environments,
            ring,
            streams,
            problem,
            normalizer,
            sparse=pack.domain.sparse,
            random_steps=pack.protocol.online.warm_up if pack.from_scratch else 0,
            scale=ActionScale.of(pack.domain),
        )

    def __post_init__(self) -> None:
        replicas, problem = self.ring.replicas, self.problem
        self._chunks = torch.zeros(replicas, problem.horizon, problem.action_dim)
        self._left, self._episodes, self._successes = torch.zeros(
            3, replicas, dtype=torch.int64
        ).unbind()

    def step(self, agent: Agent) -> None:
        """Play one action of every replica's queue, asking the agent where a queue is empty."""
        if waiting := torch.nonzero(self._left == 0).flatten().tolist():
            self._chunks[waiting] = self._plan(agent, waiting)
            self._left[waiting] = self.problem.horizon
        place = (self.problem.horizon - self._left).reshape(-1, 1, 1)
        actions = self._chunks.take_along_dim(place, 1).squeeze(1)
        before = self._normalised(self.environments.observe())
        outcome = self.environments.step(self.scale(actions.numpy()))
        self._steps += 1
        for replica, failure in enumerate(self.environments.failures):
            if failure is not None and replica not in self._stopped:
                reason = f"its environment failed in episode {failure.episode}: {failure.reason}"
                self._stopped[replica] = (self._steps, reason)
        ended = torch.from_numpy(outcome.terminated | outcome.truncated)
        masks = torch.from_numpy(~outcome.terminated).float()
        self.ring.add(
            before,
            # A stopped run goes on as rows of zeros; its action may be what is not finite.
            actions.masked_fill(torch.from_numpy(outcome.failed).unsqueeze(-1), 0.0),
            -masks if self.sparse else torch.from_numpy(outcome.rewards),
            masks,
            ended,
            self._normalised(outcome.observations),
        )
        self._left = (self._left - 1).masked_fill(ended, 0)
        self._episodes += ended
        self._successes += ended & torch.from_numpy(outcome.successes)

    def metrics(self) -> dict[str, list[float]]:
        """Episodes played and solved since the phase began."""
        return {
            "episodes": self._episodes.tolist(),
            "episodes_solved": self._successes.tolist(),
        }

    def failures(self) -> Mapping[int, tuple[int, str]]:
        """Replicas whose environment failed, with step and reason."""
        return self._stopped

    def state_dict(self) -> dict[str, Tensor]:
        """Simulators, rings, queues, counters and streams."""
        images = self.environments.state_dict()
        return {
            "steps": torch.tensor(self._steps),
            "chunks": self._chunks,
            "left": self._left,
            "episodes": self._episodes,
            "successes": self._successes,
            **{f"ring.{name}": value for name, value in self.ring.state_dict().items()},
            **{f"streams.{name}": value for name, value in self.streams.state_dict().items()},
            **{f"environments.{name}": torch.from_numpy(i) for name, i in images.items()},
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where :meth:`state_dict` was taken.

        A ring that holds a shorter phase is made as long as this one: neither is ever full.

        Raises:
            ValueError: the state is of other tasks.
        """
        self._steps = int(state["steps"])
        self._chunks, self._left = state["chunks"].cpu(), state["left"].cpu()
        self._episodes, self._successes = state["episodes"].cpu(), state["successes"].cpu()
        own = self.ring.state_dict()
        ring = part(state, "ring.")
        self.ring.load_state_dict({name: grown(ring[name], own[name]) for name in ring})
        self.streams.load_state_dict(part(state, "streams."))
        images = part(state, "environments.")
        self.environments.load_state_dict({n: image.cpu().numpy() for n, image in images.items()})

    def _plan(self, agent: Agent, waiting: list[int]) -> Float[Tensor, "n H A"]:
        """Chunks for the replicas that wait, the others' streams left alone."""
        streams, shape = self.streams.select(waiting), self._chunks.shape[1:]
        if self._steps < self.random_steps:
            return (streams.uniform(*shape) * 2.0 - 1.0).cpu()
        noise: dict[str, Tensor] = {}
        for name, drawn in draw(streams, agent.acting_noise(1)).items():
            noise[name] = drawn.new_zeros(self.ring.replicas, *drawn.shape[1:])
            noise[name][waiting] = drawn
        observations: Any = tree_map(
            lambda leaf: leaf.unsqueeze(1).to(self.streams.device),
            self._normalised(self.environments.observe()),
        )
        chunks = agent.act(observations, noise)
        return chunks[waiting].reshape(-1, *shape).float().cpu()

    def _normalised(self, observations: ArrayTree) -> Observation:
        return tree_map(torch.from_numpy, self.normalizer(observations))


def _observed(environments: OnlineEnvironments) -> ObservationSpec:
    """What the environments observe, in the types that a ring keeps."""

    def leaf(spec: ArraySpec) -> LeafSpec:
        return LeafSpec(spec.shape, torch.from_numpy(np.zeros(0, spec.dtype)).dtype)

    observed = environments.spaces.observed
    return tree_map(leaf, observed) if isinstance(observed, dict) else leaf(observed)


def grown(stored: Tensor, like: Tensor) -> Tensor:
    """A stored buffer ``(R, C, ...)`` with the slots of one that has more, the new ones empty."""
    if stored.ndim < 2 or stored.shape[1] >= like.shape[1]:
        return stored
    grown = torch.zeros_like(like)
    grown[:, : stored.shape[1]] = stored
    return grown

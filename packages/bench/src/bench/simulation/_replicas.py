"""Environments of the online phase in one process: one per replica, one step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.simulation._episodes import Failure, Spaces, succeeded
from bench.simulation._errors import EnvironmentFaultError, describe_error
from bench.simulation._marker import Marker
from bench.simulation._observations import ArrayTree, stack_rows
from bench.simulation._plain import pack, unpack
from bench.simulation._seeding import episode_seed
from bench.simulation.environments import SeededEnv, make

__all__ = ["ReplicaHost", "ReplicaStart", "ReplicaSteps"]

_ONLINE = 1  # purpose of the episode seeds, see `episode_seed`


@dataclass(frozen=True, slots=True)
class ReplicaStart:
    """A replica's index, task and base seed."""

    replica: int
    task: str
    seed: int


@dataclass(frozen=True, slots=True)
class ReplicaSteps:
    """One step of the replicas `indices` `(n,)`; every field has one row per replica.

    `reached` are the observations that the step led to, `current` those to act on next (of the
    following episode, where one ended); `returns` and `lengths` cover the episode so far, the one
    that ended included.
    """

    indices: np.ndarray
    reached: ArrayTree
    current: ArrayTree
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    successes: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray
    failures: tuple[Failure, ...]


@dataclass(slots=True)
class _Replica:
    environment: SeededEnv
    seed: int
    current: ArrayTree
    episode: int = 0
    total: float = 0.0
    length: int = 0

    def begin(self) -> None:
        seed = episode_seed(self.seed, _ONLINE, self.episode)
        self.current = self.environment.reset(seed)[0]
        self.total, self.length = 0.0, 0

    def step(self, action: np.ndarray) -> tuple[ArrayTree, float, bool, bool, bool, float, int]:
        reached, reward, terminated, truncated, info = self.environment.step(action)
        self.total += reward
        self.length += 1
        self.current = reached
        row = (reached, reward, terminated, truncated, succeeded(info), self.total, self.length)
        if terminated or truncated:
            self.episode += 1
            self.begin()
        return row

    def state(self) -> np.ndarray:
        return pack(
            {
                "environment": self.environment.state(),
                "seed": self.seed,
                "current": self.current,
                "episode": self.episode,
                "total": self.total,
                "length": self.length,
            }
        )

    def load_state(self, image: np.ndarray) -> None:
        saved = unpack(image)
        self.environment.load_state(saved["environment"])
        self.seed, self.episode = saved["seed"], saved["episode"]
        self.total, self.length = saved["total"], saved["length"]
        self.current = saved["current"]


class ReplicaHost:
    """Steps the environments of some replicas, beginning the next episode where one ends."""

    def __init__(self, marker: Marker) -> None:
        self._marker = marker
        self._replicas: dict[int, _Replica] = {}

    def begin(self, starts: Sequence[ReplicaStart]) -> dict[int, tuple[Spaces, ArrayTree]]:
        """Build an environment for each replica and begin its first episode.

        Returns:
            Per replica its spaces and the first observation.

        Raises:
            EnvironmentFaultError: If one cannot be built or reset.
        """
        prototypes: dict[str, SeededEnv] = {}
        opened: dict[int, tuple[Spaces, ArrayTree]] = {}
        for start in starts:
            self._marker.enter(start.replica)
            if start.task in prototypes:
                environment = prototypes[start.task].fork()
            else:
                environment = prototypes[start.task] = make(start.task)
            replica = _Replica(environment, start.seed, np.zeros(0))
            try:
                replica.begin()
            except Exception as error:  # an environment is a user's code and raises what it likes
                raise EnvironmentFaultError(f"{start.task}: {describe_error(error)}") from error
            self._replicas[start.replica] = replica
            opened[start.replica] = (Spaces.of(environment), replica.current)
        self._marker.leave()
        return opened

    def step(self, indices: np.ndarray, actions: np.ndarray) -> ReplicaSteps:
        """Play one action `(n, A)` in each of the replicas `indices` `(n,)`."""
        played: list[int] = []
        rows: list[tuple[Any, ...]] = []
        failures: list[Failure] = []
        for index, action in zip(indices.tolist(), actions, strict=True):
            self._marker.enter(index)
            replica = self._replicas[index]
            try:
                rows.append((*replica.step(action), replica.current))
                played.append(index)
            except Exception as error:
                failures.append(Failure(index, describe_error(error)))
        self._marker.leave()
        columns = [np.array([row[place] for row in rows]) for place in range(1, 7)]
        return ReplicaSteps(
            indices=np.array(played, dtype=np.int64),
            reached=stack_rows([row[0] for row in rows]),
            rewards=columns[0],
            terminated=columns[1],
            truncated=columns[2],
            successes=columns[3],
            returns=columns[4],
            lengths=columns[5],
            current=stack_rows([row[7] for row in rows]),
            failures=tuple(failures),
        )

    def state(self, indices: Sequence[int]) -> dict[int, np.ndarray]:
        """Return the state of the environments of some replicas, as bytes."""
        return {index: self._replicas[index].state() for index in indices}

    def load_state(self, images: dict[int, np.ndarray]) -> dict[int, tuple[ArrayTree, int]]:
        """Continue from such states; returns the observations to act on and episode numbers."""
        for index, image in images.items():
            self._marker.enter(index)
            self._replicas[index].load_state(image)
        self._marker.leave()
        replicas = {index: self._replicas[index] for index in images}
        return {index: (replica.current, replica.episode) for index, replica in replicas.items()}

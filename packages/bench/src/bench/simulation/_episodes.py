"""Many episodes in one process, advanced one action chunk at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.simulation._errors import describe_error
from bench.simulation._marker import Marker
from bench.simulation._observations import ArraySpec, ArrayTree, ObservationSpace, stack_rows
from bench.simulation.environments import SeededEnv, make

__all__ = [
    "Chunk",
    "Episode",
    "EpisodeHost",
    "Failure",
    "Opening",
    "Spaces",
    "succeeded",
    "told_success",
]


@dataclass(frozen=True, slots=True)
class Episode:
    """What an episode depends on.

    Attributes:
        index: Place of the episode in the evaluation, replica-major.
        task: Name of its task.
        seed: Its own seed.
    """

    index: int
    task: str
    seed: int


@dataclass(frozen=True, slots=True)
class Failure:
    """An episode that an exception ended: its index and the exception's text."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Spaces:
    """Shapes and types of observations, and action bounds `(A,)`, of a task."""

    observed: ObservationSpace
    action_low: np.ndarray
    action_high: np.ndarray

    @classmethod
    def of(cls, environment: SeededEnv) -> Spaces:
        """Read them from an environment."""
        return cls(environment.observed, environment.action_low, environment.action_high)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of an observation that is one array; empty for a dictionary."""
        return self.observed.shape if isinstance(self.observed, ArraySpec) else ()

    def describe(self) -> str:
        """Observations and actions, for messages."""
        observed = self.observed
        if isinstance(observed, ArraySpec):
            return f"observations {observed} and {self.action_low.size} actions"
        entries = ", ".join(f"{name} {leaf}" for name, leaf in observed.items())
        return f"observations {{{entries}}} and {self.action_low.size} actions"

    @classmethod
    def common(cls, spaces: Mapping[str, Spaces]) -> Spaces:
        """Return the spaces that all tasks, given by name, have in common.

        Raises:
            ValueError: If two tasks differ.
        """
        first, mine = next(iter(spaces.items()))
        for task, other in spaces.items():
            if (
                other.observed != mine.observed
                or not np.array_equal(other.action_low, mine.action_low)
                or not np.array_equal(other.action_high, mine.action_high)
            ):
                raise ValueError(
                    "replicas that run together need the same observations and actions: "
                    f"{first!r} has {mine.describe()}, {task!r} has {other.describe()}"
                )
        return mine


@dataclass(frozen=True, slots=True)
class Opening:
    """First observation of every episode by index, and the spaces of every task by name."""

    observations: dict[int, ArrayTree]
    spaces: dict[str, Spaces]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one chunk of actions led to in the episodes `indices` `(n,)`.

    `observations` `(n, *observation)` are the last ones reached, `rewards` `(n,)` the sums over the
    steps played, `steps` `(n,)` their numbers; `done` and `successes` `(n,)` tell whether the
    episode ended and whether its last step was a success.
    """

    indices: np.ndarray
    observations: ArrayTree
    rewards: np.ndarray
    steps: np.ndarray
    done: np.ndarray
    successes: np.ndarray
    failures: tuple[Failure, ...]


@dataclass(slots=True)
class _Running:
    environment: SeededEnv
    steps_left: float


class EpisodeHost:
    """Plays episodes side by side in one process and keeps the environments for the next ones."""

    def __init__(self, marker: Marker) -> None:
        self._marker = marker
        self._running: dict[int, _Running] = {}
        self._idle: dict[str, list[SeededEnv]] = {}

    def begin(self, episodes: Sequence[Episode], step_limit: int | None) -> Opening:
        """Drop what was running and begin these episodes.

        Args:
            episodes: The episodes; their indices name them from here on.
            step_limit: Ends every episode after so many steps, where not None.
        """
        for running in self._running.values():
            self._idle.setdefault(running.environment.task_name, []).append(running.environment)
        self._running.clear()
        # A compiled model takes up to 70 MB: keep only those that are needed now.
        wanted = {episode.task for episode in episodes}
        self._idle = {task: idle for task, idle in self._idle.items() if task in wanted}
        prototypes: dict[str, SeededEnv] = {task: idle[0] for task, idle in self._idle.items()}
        observations: dict[int, ArrayTree] = {}
        spaces: dict[str, Spaces] = {}
        failures: list[Failure] = []
        for episode in episodes:
            self._marker.enter(episode.index)
            try:
                environment = self._acquire(episode.task, prototypes)
                observations[episode.index] = environment.reset(episode.seed)[0]
            except ValueError as error:
                if episode.task not in prototypes:
                    raise  # the task itself is refused, not this episode
                failures.append(Failure(episode.index, describe_error(error)))
                continue
            except Exception as error:
                failures.append(Failure(episode.index, describe_error(error)))
                continue
            spaces[episode.task] = Spaces.of(environment)
            limit = float("inf") if step_limit is None else step_limit
            self._running[episode.index] = _Running(environment, limit)
        self._marker.leave()
        return Opening(observations, spaces, tuple(failures))

    def _acquire(self, task: str, prototypes: dict[str, SeededEnv]) -> SeededEnv:
        idle = self._idle.get(task)
        if idle:
            return idle.pop()
        if task not in prototypes:
            prototypes[task] = make(task)
            return prototypes[task]
        return prototypes[task].fork()

    def play(self, indices: np.ndarray, actions: np.ndarray) -> Chunk:
        """Play a chunk of actions open loop in some of the running episodes.

        Args:
            indices: Which episodes `(n,)`.
            actions: Their actions `(n, H, A)`; what is left after an episode's end is not played.
        """
        played: list[int] = []
        rows: list[tuple[ArrayTree, float, int, bool, bool]] = []
        failures = []
        for index, chunk in zip(indices.tolist(), actions, strict=True):
            try:
                rows.append(self._play_chunk(index, chunk))
                played.append(index)
            except Exception as error:
                del self._running[index]  # its environment may be broken: not used again
                failures.append(Failure(index, describe_error(error)))
        self._marker.leave()
        columns = [np.array([row[place] for row in rows]) for place in range(1, 5)]
        return Chunk(
            indices=np.array(played, dtype=np.int64),
            observations=stack_rows([row[0] for row in rows]),
            rewards=columns[0],
            steps=columns[1],
            done=columns[2],
            successes=columns[3],
            failures=tuple(failures),
        )

    def _play_chunk(
        self, index: int, chunk: np.ndarray
    ) -> tuple[ArrayTree, float, int, bool, bool]:
        running = self._running[index]
        total, steps, done = 0.0, 0, False
        info: dict[str, Any] = {}
        for action in chunk:
            self._marker.enter(index)
            observation, reward, terminated, truncated, info = running.environment.step(action)
            total += reward
            steps += 1
            running.steps_left -= 1
            done = terminated or truncated or running.steps_left <= 0
            if done:
                break
        return observation, total, steps, done, succeeded(info)


def told_success(info: Mapping[str, Any]) -> bool | None:
    """Read success from the information of a step: of an episode's last one in most environments.

    Args:
        info: As the environment returned it. `info["success"]` counts, else `info["is_success"]`:
            a bool, a number, or an array of one.

    Returns:
        Whether the step was a success; None where the environment does not say (neither is there,
        or it is None).

    Raises:
        ValueError: If it is something else, or NaN.
    """
    for name in ("success", "is_success"):
        told = info.get(name)
        if told is None:
            continue
        value = np.asarray(told)
        if value.size != 1 or value.dtype.kind not in "biuf" or not np.isfinite(value).all():
            raise ValueError(
                f"info[{name!r}] is {told!r}, expected a bool or one number (None for not said)"
            )
        return bool(value.item())
    return None


def succeeded(info: Mapping[str, Any]) -> bool:
    """Whether a step was a success; one of which the environment does not say so was none."""
    return bool(told_success(info))

"""The whole life of an environment on a few steps, in a process that may be lost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from bench.errors import BenchError
from bench.simulation._episodes import Spaces, told_success
from bench.simulation._errors import EnvironmentFaultError, describe_error
from bench.simulation._limits import EnvironmentLimits
from bench.simulation._marker import Marker
from bench.simulation._observations import ArrayTree
from bench.simulation._pool import SimulatorPool, WorkerDeath
from bench.simulation.environments import SeededEnv, make

__all__ = ["Rehearsal", "RehearsalHost", "rehearse"]

_STEPS = 8
_LONGEST_EPISODE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What an environment does when it is reset, stepped, stored and continued.

    Attributes:
        spaces: Of observations and actions.
        max_episode_steps: Steps after which an episode is truncated, or None.
        reward_threshold: Return from which it is registered as solved, or None.
        tells_success: Whether some step of an episode says in its information if it was a success.
        reproducible: Whether the same seed and actions lead to the same numbers.
        unsavable: Why an episode cannot be stored and continued, or None if it can.
    """

    spaces: Spaces
    max_episode_steps: int | None
    reward_threshold: float | None
    tells_success: bool = False
    reproducible: bool = True
    unsavable: str | None = None


@cache
def rehearse(task: str, limits: EnvironmentLimits | None = None) -> Rehearsal:
    """Build an environment in a process of its own and lead it through all that a run asks of it.

    It is reset and stepped through an episode, reset to the same seed again, stored, and continued
    in a second instance. Where its actions are unbounded or its episodes have no limit, only its
    spaces are read. Answers are kept for this process.

    Args:
        task: See `bench.simulation.make`.
        limits: What it may take.

    Raises:
        ValueError: If the name is unknown or a space is of a kind that nothing here can play.
        EnvironmentFaultError: If the environment raises, hangs, takes too much memory, ends its
            process, or returns what it did not announce; the text names it.
    """
    with SimulatorPool(1, RehearsalHost, limits) as pool:
        try:
            (result,) = pool.call("play", [(task,)])
        except EnvironmentFaultError as error:
            raise EnvironmentFaultError(_named(task, str(error))) from error
    if isinstance(result, WorkerDeath):
        raise EnvironmentFaultError(_named(task, result.reason))
    assert isinstance(result, Rehearsal)
    return result


def _named(task: str, reason: str) -> str:
    return reason if task in reason else f"environment {task!r}: {reason}"


class RehearsalHost:
    """Leads one environment through a run's life, in the process that it is in."""

    def __init__(self, marker: Marker) -> None:
        self._marker = marker

    def play(self, task: str) -> Rehearsal:
        """Lead an environment through a run's life; see `rehearse`."""
        self._marker.enter(0)
        environment = make(task)
        try:
            return self._play(environment)
        except BenchError:
            raise
        except Exception as error:  # an environment is a user's code and raises what it likes
            raise EnvironmentFaultError(describe_error(error)) from error
        finally:
            self._marker.leave()

    def _play(self, environment: SeededEnv) -> Rehearsal:
        spaces = Spaces.of(environment)
        low, high = spaces.action_low, spaces.action_high
        specification = environment.unseeded.spec
        threshold = None if specification is None else specification.reward_threshold
        bounded = np.isfinite(low).all() and np.isfinite(high).all()
        if not bounded or environment.max_episode_steps is None:
            return Rehearsal(spaces, environment.max_episode_steps, threshold)
        told = self._tells_success(environment, low + 0.5 * (high - low))
        shares = np.random.default_rng(0).uniform(0.0, 1.0, (_STEPS, *low.shape))
        actions = (low + shares * (high - low)).astype(np.float32)
        first, second = (self._rows(environment, actions, seed=1) for _ in range(2))
        reproducible = _same(first, second)
        return Rehearsal(
            spaces,
            environment.max_episode_steps,
            threshold,
            told,
            reproducible,
            self._unsavable(environment, actions, compare=reproducible),
        )

    def _tells_success(self, environment: SeededEnv, action: np.ndarray) -> bool:
        """Play an episode, because some environments tell success in its last step only."""
        self._marker.enter(0)
        environment.reset(0)
        deadline = time.monotonic() + _LONGEST_EPISODE_SECONDS
        ended, told = False, False
        while not (ended or time.monotonic() > deadline):
            self._marker.enter(0)
            _, _, terminated, truncated, info = environment.step(action)
            told = told_success(info) is not None or told
            ended = terminated or truncated
        return told

    def _rows(
        self, environment: SeededEnv, actions: np.ndarray, seed: int | None = None
    ) -> list[np.ndarray]:
        """Observations and rewards of some steps, no further than the episode's end."""
        self._marker.enter(0)
        rows = [] if seed is None else _arrays(environment.reset(seed)[0])
        for action in actions:
            self._marker.enter(0)
            observation, reward, terminated, truncated, _ = environment.step(action)
            rows += [*_arrays(observation), np.array([reward])]
            if terminated or truncated:
                break
        return rows

    def _unsavable(
        self, environment: SeededEnv, actions: np.ndarray, *, compare: bool
    ) -> str | None:
        """Why an episode cannot be stored and go on in another instance."""
        half = len(actions) // 2
        self._marker.enter(0)
        environment.reset(1)
        for action in actions[:half]:
            _, _, terminated, truncated, _ = environment.step(action)
            if terminated or truncated:
                environment.reset(2)
                break
        try:
            image = environment.state()
            expected = self._rows(environment, actions[half:])
            other = environment.fork()
            other.reset(3)
            other.load_state(image)
            found = self._rows(other, actions[half:])
        except ValueError as error:
            return str(error)
        if compare and not _same(expected, found):
            return (
                "an episode that is stored and continued in another instance goes on differently: "
                "it depends on something beside the attributes of the environment and its wrappers"
            )
        return None


def _arrays(observation: ArrayTree) -> list[np.ndarray]:
    """Copies of an observation's arrays: some environments go on writing into theirs."""
    leaves = observation.values() if isinstance(observation, dict) else [observation]
    return [leaf.copy() for leaf in leaves]


def _same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return len(first) == len(second) and all(map(np.array_equal, first, second))

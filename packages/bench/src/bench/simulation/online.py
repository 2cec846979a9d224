"""The online phase's environments: one per replica, stepped together, saved and continued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from bench.machine import available_cores
from bench.simulation._episodes import Spaces
from bench.simulation._errors import EvaluationError
from bench.simulation._pool import SimulatorPool, WorkerDeath
from bench.simulation._replicas import ReplicaHost, ReplicaStart

__all__ = ["OnlineEnvironments", "OnlineStep"]


@dataclass(frozen=True, slots=True)
class OnlineStep:
    """What one action of every replica led to.

    Attributes:
        observations: The observations reached `(R, *observation)`, at an episode's end its last
            one (what a replay buffer stores as next observation).
        rewards: Rewards `(R,)`.
        terminated: Whether the episode ended for good `(R,)`; the return beyond it is zero.
        truncated: Whether it was cut off `(R,)`; the return goes on beyond it.
        successes: Whether the step was a success `(R,)`.
        episode_returns: Undiscounted sums of rewards of the episodes so far `(R,)`.
        episode_lengths: Their steps `(R,)`.
        failed: Replicas that have stopped, see `OnlineEnvironments.failures` `(R,)`; their other
            entries are the last observation and zeros.
    """

    observations: Shaped[np.ndarray, "replicas *observation"]
    rewards: Float[np.ndarray, " replicas"]
    terminated: Bool[np.ndarray, " replicas"]
    truncated: Bool[np.ndarray, " replicas"]
    successes: Bool[np.ndarray, " replicas"]
    episode_returns: Float[np.ndarray, " replicas"]
    episode_lengths: Int[np.ndarray, " replicas"]
    failed: Bool[np.ndarray, " replicas"]


class OnlineEnvironments:
    """One environment per replica in worker processes.

    Episode n of replica r depends on (`tasks[r]`, `seeds[r]`, n) and the actions alone. The next
    episode begins by itself: `observe` gives its first observation after a step that ended one. A
    run that is killed and continued from `state_dict` goes on bit for bit, with any number of
    workers. Also a context manager.
    """

    def __init__(
        self, tasks: Sequence[str], seeds: Sequence[int], *, workers: int | None = None
    ) -> None:
        """Build the environments and begin the first episodes.

        Args:
            tasks: Task of each replica `(R,)`, see `bench.simulation.make`; shapes must agree.
            seeds: Base seed of each replica `(R,)`, >= 0.
            workers: Worker processes; None for one per core but not more than replicas, 0 to step
                in this process.

        Raises:
            ValueError: For unknown tasks, or tasks whose shapes differ.
            BenchError: If an environment cannot be built or reset.
        """
        if len(tasks) != len(seeds) or len(tasks) == 0:
            raise ValueError(
                f"expected one seed per task, got {len(tasks)} tasks and {len(seeds)} seeds"
            )
        if any(seed < 0 for seed in seeds):
            raise ValueError(f"seeds must be 0 or more, got {list(seeds)}")
        self.tasks, self.seeds = tuple(tasks), tuple(seeds)
        self.failures: list[EvaluationError | None] = [None] * len(tasks)
        wanted = available_cores() if workers is None else workers
        self._pool = SimulatorPool(min(wanted, len(tasks)), ReplicaHost)
        self._episode = np.zeros(len(tasks), dtype=np.int64)
        self._places = np.arange(len(tasks)) % len(self._pool)
        starts = [
            ReplicaStart(replica, task, seed)
            for replica, (task, seed) in enumerate(zip(tasks, seeds, strict=True))
        ]
        groups = [
            ([start for start in starts if self._places[start.replica] == place],)
            for place in range(len(self._pool))
        ]
        opened: dict[int, tuple[Spaces, np.ndarray]] = {}
        for part in self._call("begin", groups):
            opened |= part
        try:
            spaces = {tasks[replica]: space for replica, (space, _) in sorted(opened.items())}
            self._spaces = Spaces.common(spaces)
        except ValueError:
            self.close()
            raise
        self._current = np.stack([opened[replica][1] for replica in range(len(tasks))])

    def observe(self) -> Shaped[np.ndarray, "replicas *observation"]:
        """Return the observations to act on `(R, *observation)`."""
        return self._current.copy()

    def step(self, actions: Float[np.ndarray, "replicas action"]) -> OnlineStep:
        """Play one action per replica.

        Args:
            actions: `(R, A)`, clipped to the bounds of the action space. A replica whose action is
                not finite stops, as does one whose environment raises.

        Returns:
            What it led to; `observe` gives the observations to act on next.

        Raises:
            ValueError: If the actions have another shape.
            BenchError: If a worker process died. Continue from the last `state_dict`.
        """
        replicas = len(self.tasks)
        low, high = self._spaces.action_low, self._spaces.action_high
        actions = np.asarray(actions, dtype=np.float32)
        if actions.shape != (replicas, low.size):
            raise ValueError(f"got actions of shape {actions.shape}, expected {replicas, low.size}")
        for replica in np.flatnonzero(~np.isfinite(actions).all(axis=1)).tolist():
            self._fail(replica, "the action is not finite")
        alive = np.array([failure is None for failure in self.failures])
        actions = np.clip(actions, low, high)
        reached = self._current.copy()
        rewards, returns = np.zeros(replicas), np.zeros(replicas)
        terminated, truncated, successes = np.zeros((3, replicas), dtype=bool)
        lengths = np.zeros(replicas, dtype=np.int64)
        calls: list[tuple[Any, ...] | None] = []
        for place in range(len(self._pool)):
            mine = np.flatnonzero(alive & (self._places == place))
            calls.append((mine, actions[mine]) if mine.size > 0 else None)
        for part in self._call("step", calls):
            for failure in part.failures:
                self._fail(failure.index, failure.reason)
            if part.indices.size == 0:
                continue
            rows = part.indices
            reached[rows], self._current[rows] = part.reached, part.current
            rewards[rows], returns[rows], lengths[rows] = part.rewards, part.returns, part.lengths
            terminated[rows], truncated[rows] = part.terminated, part.truncated
            successes[rows] = part.successes
            self._episode[rows] += part.terminated | part.truncated
        failed = np.array([failure is not None for failure in self.failures])
        return OnlineStep(
            observations=reached,
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            successes=successes,
            episode_returns=returns,
            episode_lengths=lengths,
            failed=failed,
        )

    def _fail(self, replica: int, reason: str) -> None:
        if self.failures[replica] is None:
            self.failures[replica] = self._error(replica, reason)

    def _error(self, replica: int, reason: str) -> EvaluationError:
        return EvaluationError(self.tasks[replica], replica, int(self._episode[replica]), reason)

    def state_dict(self) -> dict[str, UInt8[np.ndarray, " bytes"]]:
        """Return the state of every replica's environment: flat arrays, one per replica.

        Raises:
            ValueError: If an environment keeps state in objects that cannot be stored.
        """
        states: dict[int, np.ndarray] = {}
        for part in self._call("state", [()] * len(self._pool)):
            states |= part
        return {f"replica{index}": states[index] for index in sorted(states)}

    def load_state_dict(self, state: Mapping[str, UInt8[np.ndarray, " bytes"]]) -> None:
        """Continue from what `state_dict` returned for the same tasks.

        Raises:
            ValueError: If the state belongs to other tasks or is damaged.
        """
        expected = {f"replica{replica}" for replica in range(len(self.tasks))}
        if set(state) != expected:
            raise ValueError(
                f"the saved state has {sorted(state)}, expected {sorted(expected)}: it belongs to "
                "another number of replicas"
            )
        calls: list[tuple[Any, ...] | None] = []
        for place in range(len(self._pool)):
            mine = np.flatnonzero(self._places == place).tolist()
            calls.append(({index: state[f"replica{index}"] for index in mine},))
        for part in self._call("load_state", calls):
            for index, (observation, episode) in part.items():
                self._current[index], self._episode[index] = observation, episode
        self.failures = [None] * len(self.tasks)

    def _call(self, method: str, arguments: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        results = self._pool.call(method, arguments)
        for result in results:
            if isinstance(result, WorkerDeath):
                self.close()
                raise self._error(max(result.index, 0), result.reason)
        return [result for result in results if result is not None]

    def close(self) -> None:
        """End the worker processes."""
        self._pool.close()

    def __enter__(self) -> OnlineEnvironments:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

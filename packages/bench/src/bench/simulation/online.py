"""The online phase's environments: one per replica, stepped together, saved and continued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from bench.machine import available_cores
from bench.simulation._episodes import Spaces
from bench.simulation._errors import EvaluationError
from bench.simulation._limits import EnvironmentLimits
from bench.simulation._observations import ArrayTree, map_arrays, put_rows, stack_rows
from bench.simulation._pool import SimulatorPool, WorkerDeath
from bench.simulation._replicas import ReplicaHost, ReplicaStart

__all__ = ["OnlineEnvironments", "OnlineStep"]

_DEATHS_WITHOUT_CULPRIT = 3


@dataclass(frozen=True, slots=True)
class OnlineStep:
    """What one action of every replica led to.

    Attributes:
        observations: The observations reached `(R, *observation)`, at an episode's end its last
            one (what a replay buffer stores as next observation); a dictionary of such arrays where
            the environment's are one.
        rewards: Rewards `(R,)`.
        terminated: Whether the episode ended for good `(R,)`; the return beyond it is zero.
        truncated: Whether it was cut off `(R,)`; the return goes on beyond it.
        successes: Whether the step was a success `(R,)`.
        episode_returns: Undiscounted sums of rewards of the episodes so far `(R,)`.
        episode_lengths: Their steps `(R,)`.
        failed: Replicas that have stopped, see `OnlineEnvironments.failures` `(R,)`; their other
            entries are the last observation and zeros.
    """

    observations: ArrayTree
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
    workers. A worker process that dies is replaced, and its replicas' steps since the last
    `state_dict` are played again; a replica that kills its worker twice, or takes longer than the
    limit for one call, stops, as one whose environment raises does. Also a context manager.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        seeds: Sequence[int],
        *,
        workers: int | None = None,
        limits: EnvironmentLimits | None = None,
    ) -> None:
        """Build the environments and begin the first episodes.

        Args:
            tasks: Task of each replica `(R,)`, see `bench.simulation.make`; shapes must agree.
            seeds: Base seed of each replica `(R,)`, >= 0.
            workers: Worker processes; None for one per core but not more than replicas, 0 to step
                in this process.
            limits: What an environment may take in a worker process; by default those of
                `EnvironmentLimits`.

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
        self._pool = SimulatorPool(min(wanted, len(tasks)), ReplicaHost, limits)
        self._episode = np.zeros(len(tasks), dtype=np.int64)
        self._places = np.arange(len(tasks)) % len(self._pool)
        # What a replaced worker is brought to: the last saved states, and the actions since.
        self._images: dict[int, np.ndarray] = {}
        self._history: list[list[tuple[np.ndarray, np.ndarray]]] = [
            [] for _ in range(len(self._pool))
        ]
        self._deaths: dict[tuple[int, int], int] = {}
        opened: dict[int, tuple[Spaces, ArrayTree]] = {}
        for part in self._call("begin", [(self._starts(p),) for p in range(len(self._pool))]):
            opened |= part
        try:
            spaces = {tasks[replica]: space for replica, (space, _) in sorted(opened.items())}
            self._spaces = Spaces.common(spaces)
        except ValueError:
            self.close()
            raise
        self._current = stack_rows([opened[replica][1] for replica in range(len(tasks))])

    @property
    def spaces(self) -> Spaces:
        """Observations and actions that all replicas have in common."""
        return self._spaces

    def observe(self) -> ArrayTree:
        """Return the observations to act on `(R, *observation)`, or a dictionary of such arrays."""
        return map_arrays(np.copy, self._current)

    def step(self, actions: Float[np.ndarray, "replicas action"]) -> OnlineStep:
        """Play one action per replica.

        Args:
            actions: `(R, A)`, clipped to the bounds of the action space. A replica whose action is
                not finite stops, as does one whose environment raises.

        Returns:
            What it led to; `observe` gives the observations to act on next.

        Raises:
            ValueError: If the actions have another shape.
            BenchError: If a worker process does not start.
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
        reached = self.observe()
        rewards, returns = np.zeros(replicas), np.zeros(replicas)
        terminated, truncated, successes = np.zeros((3, replicas), dtype=bool)
        lengths = np.zeros(replicas, dtype=np.int64)
        calls: list[tuple[Any, ...] | None] = []
        for place, history in enumerate(self._history):
            mine = np.flatnonzero(alive & (self._places == place))
            calls.append((mine, actions[mine]) if mine.size > 0 else None)
            if mine.size > 0 and self._pool.workers > 0:
                history.append((mine, actions[mine]))
        for place, part in enumerate(self._pool.call("step", calls)):
            if isinstance(part, WorkerDeath):
                part = self._recovered(place, part)
            if part is None:
                continue
            for failure in part.failures:
                self._fail(failure.index, failure.reason)
            if part.indices.size == 0:
                continue
            rows = part.indices
            put_rows(reached, rows, part.reached)
            put_rows(self._current, rows, part.current)
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

        That of a replica that has stopped is empty.

        Raises:
            ValueError: If an environment keeps state in objects that cannot be stored.
        """
        states = {replica: np.zeros(0, np.uint8) for replica in range(len(self.tasks))}
        for place, part in enumerate(self._pool.call("state", self._alive_by_place())):
            while isinstance(part, WorkerDeath):
                self._recovered(place, part)
                part = self._ask(place, "state", self._alive(place)) if self._alive(place) else {}
            states |= part or {}
        self._keep(states)
        return {f"replica{index}": states[index] for index in sorted(states)}

    def load_state_dict(self, state: Mapping[str, UInt8[np.ndarray, " bytes"]]) -> None:
        """Continue from what `state_dict` returned for the same tasks.

        Replicas that had stopped stay stopped.

        Raises:
            ValueError: If the state belongs to other tasks or is damaged.
            BenchError: If a worker process died.
        """
        expected = {f"replica{replica}" for replica in range(len(self.tasks))}
        if set(state) != expected:
            raise ValueError(
                f"the saved state has {sorted(state)}, expected {sorted(expected)}: it belongs to "
                "another number of replicas"
            )
        self.failures = [None] * len(self.tasks)
        images = {replica: state[f"replica{replica}"] for replica in range(len(self.tasks))}
        for replica, image in images.items():
            if image.size == 0:
                self._fail(replica, "it had stopped before this state was saved")
        calls = [({r: images[r] for r in self._alive(p)},) for p in range(len(self._pool))]
        for part in self._call("load_state", calls):
            for index, (observation, episode) in part.items():
                put_rows(self._current, index, observation)
                self._episode[index] = episode
        self._keep(images)

    def _keep(self, images: dict[int, np.ndarray]) -> None:
        self._images = images if self._pool.workers > 0 else {}
        for history in self._history:
            history.clear()

    def _alive(self, place: int) -> list[int]:
        """Replicas of a place that have not stopped."""
        mine = np.flatnonzero(self._places == place).tolist()
        return [replica for replica in mine if self.failures[replica] is None]

    def _alive_by_place(self) -> list[tuple[list[int]] | None]:
        found = [self._alive(place) for place in range(len(self._pool))]
        return [(alive,) if alive else None for alive in found]

    def _starts(self, place: int) -> list[ReplicaStart]:
        return [ReplicaStart(r, self.tasks[r], self.seeds[r]) for r in self._alive(place)]

    def _recovered(self, place: int, death: WorkerDeath) -> Any:
        """Replace a dead worker and bring its replicas to where they were.

        Returns:
            What the last step led to; None if no replica of the place goes on, or none has begun.
        """
        result: Any = death
        while isinstance(result, WorkerDeath):
            self._blame(place, result)
            self._pool.restart(place)
            if not (alive := self._alive(place)):
                return None
            result = self._ask(place, "begin", self._starts(place))
            if self._images and not isinstance(result, WorkerDeath):
                result = self._ask(place, "load_state", {r: self._images[r] for r in alive})
            if isinstance(result, WorkerDeath):
                continue
            result = None
            for replicas, actions in self._history[place]:
                still = np.isin(replicas, alive)
                if still.any():
                    result = self._ask(place, "step", replicas[still], actions[still])
                if isinstance(result, WorkerDeath):
                    break
        return result

    def _blame(self, place: int, death: WorkerDeath) -> None:
        """Stop the replica that a worker died of, unless it may have been an accident."""
        key = (place, death.index)
        self._deaths[key] = self._deaths.get(key, 0) + 1
        if death.index >= 0 and (death.certain or self._deaths[key] > 1):
            self._fail(death.index, death.reason)
        elif self._deaths[key] > _DEATHS_WITHOUT_CULPRIT:
            for replica in self._alive(place):
                self._fail(replica, death.reason)

    def _ask(self, place: int, method: str, *arguments: Any) -> Any:
        """Call one worker; returns its answer or a `WorkerDeath`."""
        calls: list[tuple[Any, ...] | None] = [None] * len(self._pool)
        calls[place] = arguments
        return self._pool.call(method, calls)[place]

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

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.close(5.0 if kind is None else 0.0)

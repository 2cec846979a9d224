"""Success rates of many replicas at once: all their episodes advance together, chunk by chunk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from bench.simulation._episodes import Chunk, Episode, Failure, Opening, Spaces
from bench.simulation._errors import EvaluationError
from bench.simulation._observations import (
    ArraySpec,
    ArrayTree,
    map_arrays,
    put_rows,
    zero_rows,
)
from bench.simulation._pool import SimulatorPool, WorkerDeath
from bench.simulation._seeding import episode_seed

__all__ = ["Evaluation", "EvaluationError", "Policy", "Progress", "evaluate"]

Policy = Callable[
    [ArrayTree, Bool[np.ndarray, "replicas episodes"]],
    Float[np.ndarray, "replicas episodes horizon action"],
]
"""Observations of all episodes and which of them wait for actions -> an action chunk for each.

Observations are `(replicas, episodes, *observation)`, or a dictionary of such arrays where the
environment's are one.

Called once per chunk: call number k is about chunk k of every episode that still runs. What it
returns for the other episodes is ignored.
"""

_EVALUATION = 0  # purpose of the episode seeds, see `episode_seed`
_DEATHS_WITHOUT_CULPRIT = 3


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an evaluation is: episodes finished of `total`, steps simulated, seconds passed."""

    finished: int
    total: int
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What R replicas did in E episodes each.

    Attributes:
        tasks: Task of each replica `(R,)`.
        seeds: Base seed of each replica's episodes `(R,)`.
        successes: Whether the last step of an episode was a success `(R, E)`.
        returns: Undiscounted sums of rewards `(R, E)`.
        lengths: Steps played `(R, E)`.
        failures: Per replica what stopped it, or None; the rows of a stopped replica are
            incomplete and must not be used, those of the others are complete.
        steps: Simulator steps of all episodes together.
        seconds: Wall time, in seconds.
        restarts: Worker processes that died and were replaced on the way.
    """

    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    successes: Bool[np.ndarray, "replicas episodes"]
    returns: Float[np.ndarray, "replicas episodes"]
    lengths: Int[np.ndarray, "replicas episodes"]
    failures: tuple[EvaluationError | None, ...]
    steps: int
    seconds: float
    restarts: int

    def raise_failures(self) -> None:
        """Raise the first replica's failure, if there is one.

        Raises:
            EvaluationError: The failure.
        """
        for failure in self.failures:
            if failure is not None:
                raise failure


def evaluate(
    policy: Policy,
    tasks: Sequence[str],
    seeds: Sequence[int],
    episodes: int = 50,
    *,
    pool: SimulatorPool | None = None,
    workers: int | None = None,
    step_limit: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Evaluation:
    """Play E episodes for each of R replicas, all at the same time.

    Episode e of replica r depends on (`tasks[r]`, `seeds[r]`, e) and the actions alone: not on the
    number of workers, nor on which other replicas are evaluated beside it. A worker process that
    dies is replaced and its episodes are played again up to where they were. An episode that kills
    its worker twice, an environment that raises, takes longer than the pool's limit for one call or
    returns what cannot be used (another shape, numbers that are not finite), and actions that are
    not finite stop that replica and leave the others going.

    Args:
        policy: See `Policy`. Actions are clipped to the bounds of the action space.
        tasks: Task of each replica (see `bench.simulation.make`); shapes must agree.
        seeds: Base seed of each replica, >= 0.
        episodes: E, episodes per replica.
        pool: Workers to use and leave running; by default they are started for this call.
        workers: Number of workers where no pool is given, as in `SimulatorPool`.
        step_limit: Ends every episode after so many steps, if the task does not do so earlier.
        progress: Called after every chunk.

    Returns:
        The outcome of every episode.

    Raises:
        ValueError: For arguments or actions of a wrong shape, and unknown tasks.
    """
    if len(tasks) != len(seeds) or len(tasks) == 0:
        raise ValueError(f"expected one seed per task, got {len(tasks)} tasks, {len(seeds)} seeds")
    if episodes < 1:
        raise ValueError(f"episodes must be 1 or more, got {episodes}")
    if step_limit is not None and step_limit < 1:
        raise ValueError(f"step_limit must be 1 or more, got {step_limit}")
    if any(seed < 0 for seed in seeds):
        raise ValueError(f"seeds must be 0 or more, got {list(seeds)}")
    if pool is None:
        with SimulatorPool(workers) as own:
            return evaluate(
                policy,
                tasks,
                seeds,
                episodes,
                pool=own,
                step_limit=step_limit,
                progress=progress,
            )
    with pool.lock:
        run = _Run(pool, tasks, seeds, episodes, step_limit)
        return run.play(policy, progress)


class _Run:
    """One evaluation under way: the record of every episode, and who plays it."""

    def __init__(
        self,
        pool: SimulatorPool,
        tasks: Sequence[str],
        seeds: Sequence[int],
        episodes: int,
        step_limit: int | None,
    ) -> None:
        self._clock = time.perf_counter()
        self._pool = pool
        self._tasks, self._seeds = tuple(tasks), tuple(seeds)
        self._shape = (len(tasks), episodes)
        self._step_limit = step_limit
        total = len(tasks) * episodes
        self._episodes = [
            Episode(row * episodes + e, tasks[row], episode_seed(seeds[row], _EVALUATION, e))
            for row in range(len(tasks))
            for e in range(episodes)
        ]
        # Neighbours go to different workers, so that the load stays even while replicas finish.
        self._places = np.arange(total) % len(pool)
        self._alive = np.ones(total, dtype=bool)
        self._successes = np.zeros(total, dtype=bool)
        self._returns = np.zeros(total)
        self._lengths = np.zeros(total, dtype=np.int64)
        self._failures: list[EvaluationError | None] = [None] * len(tasks)
        self._history: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(len(pool))]
        self._deaths: dict[tuple[int, int], int] = {}
        self._restarts = 0

    def play(self, policy: Policy, progress: Callable[[Progress], None] | None) -> Evaluation:
        self._open()
        while self._alive.any():
            indices = np.flatnonzero(self._alive)
            actions = self._act(policy)
            indices = indices[self._alive[indices]]  # less those whose actions were unusable
            self._advance(indices, actions)
            if progress is not None:
                progress(self._progress())
        final = self._progress()
        return Evaluation(
            tasks=self._tasks,
            seeds=self._seeds,
            successes=self._successes.reshape(self._shape),
            returns=self._returns.reshape(self._shape),
            lengths=self._lengths.reshape(self._shape),
            failures=tuple(self._failures),
            steps=final.steps,
            seconds=final.seconds,
            restarts=self._restarts,
        )

    def _progress(self) -> Progress:
        return Progress(
            finished=int((~self._alive).sum()),
            total=self._alive.size,
            steps=int(self._lengths.sum()),
            seconds=time.perf_counter() - self._clock,
        )

    def _open(self) -> None:
        openings: list[Opening] = []
        for place, result in enumerate(
            self._pool.call("begin", [self._begin(place) for place in range(len(self._pool))])
        ):
            while isinstance(result, WorkerDeath):
                self._record_death(place, result)
                calls: list[tuple[object, ...] | None] = [None] * len(self._pool)
                calls[place] = self._begin(place)
                result = self._pool.call("begin", calls)[place]
            openings.append(result)
        spaces = {task: space for opening in openings for task, space in opening.spaces.items()}
        if spaces:
            self._spaces = Spaces.common(spaces)
        else:  # no episode could begin: nothing will be asked of the policy
            nothing = ArraySpec((0,), np.dtype(np.float32))
            self._spaces = Spaces(nothing, np.zeros(0), np.zeros(0))
        self._observations = zero_rows(self._spaces.observed, self._alive.size)
        for opening in openings:
            for index, observation in opening.observations.items():
                put_rows(self._observations, index, observation)
            self._fail_all(opening.failures)

    def _begin(self, place: int) -> tuple[list[Episode], int | None]:
        indices = np.flatnonzero((self._places == place) & self._alive)
        return [self._episodes[index] for index in indices.tolist()], self._step_limit

    def _act(self, policy: Policy) -> np.ndarray:
        """Ask the policy once for all waiting episodes; returns `(R * E, H, A)`."""
        alive = self._alive.reshape(self._shape).copy()
        observations = map_arrays(
            lambda leaf: leaf.reshape(*self._shape, *leaf.shape[1:]).copy(), self._observations
        )
        actions = np.asarray(policy(observations, alive), dtype=np.float32)
        size = self._spaces.action_low.size
        if actions.ndim != 4 or actions.shape[:2] != self._shape or actions.shape[3] != size:
            raise ValueError(
                f"the policy returned actions of shape {actions.shape}, expected (replicas, "
                f"episodes, horizon, action) = ({self._shape[0]}, {self._shape[1]}, H, {size})"
            )
        if actions.shape[2] == 0:
            raise ValueError("the policy returned chunks of no actions, expected a horizon >= 1")
        flat = actions.reshape(self._alive.size, *actions.shape[2:])
        finite = np.isfinite(flat).all(axis=(1, 2))
        for index in np.flatnonzero(self._alive & ~finite).tolist():
            self._fail(
                index,
                "the policy returned actions that are not finite for the finite observations that "
                "it was given",
            )
        return np.clip(flat, self._spaces.action_low, self._spaces.action_high)

    def _advance(self, indices: np.ndarray, actions: np.ndarray) -> None:
        """Play one chunk in the episodes `indices` and record where it led."""
        calls: list[tuple[np.ndarray, np.ndarray] | None] = [None] * len(self._pool)
        for place in range(len(self._pool)):
            mine = indices[self._places[indices] == place]
            if mine.size > 0:
                given = (mine, actions[mine])
                calls[place] = given
                if self._pool.workers > 0:
                    self._history[place].append(given)
        for place, result in enumerate(self._pool.call("play", calls)):
            if isinstance(result, WorkerDeath):
                self._recover(place, result)
            elif result is not None:
                self._record(result)

    def _record(self, chunk: Chunk) -> None:
        self._fail_all(chunk.failures)
        indices = chunk.indices
        if indices.size == 0:
            return
        put_rows(self._observations, indices, chunk.observations)
        self._returns[indices] += chunk.rewards
        self._lengths[indices] += chunk.steps
        self._successes[indices[chunk.done]] = chunk.successes[chunk.done]
        self._alive[indices[chunk.done]] = False

    def _recover(self, place: int, death: WorkerDeath) -> None:
        """Replace a dead worker and play its unfinished episodes again, up to the last chunk."""
        result: object = death
        while isinstance(result, WorkerDeath):
            self._record_death(place, result)
            result = None
            calls: list[tuple[object, ...] | None] = [None] * len(self._pool)
            calls[place] = self._begin(place)
            opening = self._pool.call("begin", calls)[place]
            if isinstance(opening, WorkerDeath):
                result = opening
                continue
            for indices, actions in self._history[place]:
                still = self._alive[indices]
                if still.any():
                    calls[place] = (indices[still], actions[still])
                    result = self._pool.call("play", calls)[place]
                    if isinstance(result, WorkerDeath):
                        break
        if isinstance(result, Chunk):
            self._record(result)

    def _record_death(self, place: int, death: WorkerDeath) -> None:
        """Replace a dead worker; stop the replica whose episode it died of for the second time.

        The first death is taken for an accident (the system kills whoever is at hand when memory
        runs out), and so are a few that happen between episodes. Taking too long is no accident.
        """
        key = (place, death.index)
        self._deaths[key] = self._deaths.get(key, 0) + 1
        if death.certain or (death.index >= 0 and self._deaths[key] > 1):
            self._fail(death.index, death.reason)
        elif self._deaths[key] > _DEATHS_WITHOUT_CULPRIT:
            for index in np.flatnonzero((self._places == place) & self._alive).tolist():
                self._fail(index, death.reason)
        self._pool.restart(place)
        self._restarts += 1

    def _fail_all(self, failures: Sequence[Failure]) -> None:
        for failure in failures:
            self._fail(failure.index, failure.reason)

    def _fail(self, index: int, reason: str) -> None:
        """Stop the replica that an episode belongs to."""
        replica, episode = divmod(index, self._shape[1])
        if self._failures[replica] is None:
            self._failures[replica] = EvaluationError(
                self._tasks[replica], replica, episode, reason
            )
        self._alive.reshape(self._shape)[replica] = False

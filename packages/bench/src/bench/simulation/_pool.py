"""Worker processes that keep simulators alive between calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.util import Finalize
from typing import Any

from bench.machine import available_cores
from bench.simulation._episodes import EpisodeHost
from bench.simulation._limits import EnvironmentLimits
from bench.simulation._marker import Marker
from bench.simulation._worker import LocalWorker, ProcessWorker, WorkerDeath

__all__ = ["SimulatorPool", "WorkerDeath"]


class SimulatorPool:
    """Worker processes, started at the first call and kept until `close`.

    Building the environments of a manipulation task takes seconds, so a pool is meant to be used
    for many evaluations. Workers run one thread each, leave Ctrl-C and other signals to their
    parent, and leave when the parent closes its end of their pipe, however it died. Also a context
    manager.
    """

    def __init__(
        self,
        workers: int | None = None,
        host: Callable[[Marker], Any] = EpisodeHost,
        limits: EnvironmentLimits | None = None,
    ) -> None:
        """Prepare a pool; nothing is started yet.

        Args:
            workers: Number of processes; None for one per available core, 0 to do the work in this
                process (the sequential reference: same numbers, no processes).
            host: What each worker runs; called in the worker with its marker.
            limits: What an environment may take; by default those of `EnvironmentLimits`.

        Raises:
            ValueError: If `workers` is negative.
        """
        if workers is not None and workers < 0:
            raise ValueError(f"workers must be 0 or more, or None for one per core, got {workers}")
        self.workers = available_cores() if workers is None else workers
        self.lock = threading.Lock()
        self._host = host
        self.limits = EnvironmentLimits() if limits is None else limits
        self._members: list[ProcessWorker | LocalWorker] = []
        # At the interpreter's end Python waits for processes that nobody closed.
        Finalize(self, _stop_all, (self._members, 0.0), exitpriority=10)

    def __len__(self) -> int:
        """Return the number of places that work can be given to (1 if in this process)."""
        return max(1, self.workers)

    def call(self, method: str, arguments: Sequence[tuple[Any, ...] | None]) -> list[Any]:
        """Run a method of every worker's host at the same time.

        Args:
            method: Name of the method.
            arguments: Its arguments for each worker, None for those that stay out.

        Returns:
            Per worker the result, a `WorkerDeath`, or None where it stayed out.

        Raises:
            ValueError: What a host refused.
            BenchError: What went wrong in a host outside of any episode, or a process that did
                not start.
        """
        try:
            self._start()
            busy = [
                (place, self._members[place], given)
                for place, given in enumerate(arguments)
                if given is not None
            ]
            for _, member, given in busy:
                member.send(method, given)
            results: list[Any] = [None] * len(self)
            for place, member, _ in busy:
                results[place] = member.receive()
        except BaseException:
            # Answers may still be under way: nobody could tell them from those to the next call.
            self.close(patience=0.0)
            raise
        return results

    def restart(self, place: int) -> None:
        """Replace a worker that died by a fresh one."""
        self._members[place].stop(patience=0.0)
        self._members[place] = self._started(place)

    def _started(self, place: int) -> ProcessWorker:
        memory = self.limits.memory_of_each(len(self))
        return ProcessWorker(self._host, f"simulator-{place}", self.limits.seconds, memory)

    def _start(self) -> None:
        if self._members:
            return
        if self.workers == 0:
            self._members.append(LocalWorker(self._host))
        else:
            for place in range(self.workers):
                self._members.append(self._started(place))

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Return the ids of the running worker processes."""
        members = [member for member in self._members if isinstance(member, ProcessWorker)]
        return tuple(member.process_id for member in members)

    def close(self, patience: float = 5.0) -> None:
        """End the workers; a later call starts fresh ones.

        Args:
            patience: Seconds to wait for the workers to finish what they are doing.
        """
        _stop_all(self._members, patience)

    def __enter__(self) -> SimulatorPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(5.0 if kind is None else 0.0)


def _stop_all(members: list[ProcessWorker | LocalWorker], patience: float) -> None:
    stopped, members[:] = members[:], []
    deadline = time.monotonic() + patience
    for member in stopped:
        member.hang_up()
    for member in stopped:
        member.stop(max(0.0, deadline - time.monotonic()))

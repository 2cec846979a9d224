"""Worker processes that keep simulators alive between calls."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.machine import available_cores, environment_variables
from bench.simulation._episodes import EpisodeHost, Marker

__all__ = ["SimulatorPool", "WorkerDeath"]

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_START = threading.Lock()


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """A worker process ended by itself.

    Attributes:
        index: The episode (or replica) it was working on, -1 if on none.
        reason: How it ended.
    """

    index: int
    reason: str


class _LocalMarker:
    value = -1


class _Process:
    """One worker process: a host on the other end of a pipe."""

    def __init__(self, host: Callable[[Marker], Any], name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._marker = context.RawValue("q", -1)
        self._process: BaseProcess = context.Process(
            target=_serve, args=(theirs, self._marker, host), name=name, daemon=True
        )
        with _START, environment_variables(**_worker_variables()), _interrupts_held_back():
            self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def send(self, method: str, arguments: tuple[Any, ...]) -> None:
        # A closed pipe is found by `receive` too, which tells how the process ended.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send((method, arguments))

    def receive(self) -> Any:
        try:
            wait([self._connection])
            succeeded, result = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(timeout=5)
            return WorkerDeath(self._marker.value, _ending(self._process.exitcode))
        if not succeeded:
            kind, text = result
            raise ValueError(text) if kind == "ValueError" else BenchError(f"{kind}: {text}")
        return result

    def stop(self, patience: float) -> None:
        """End the process: it leaves as the pipe closes; killed after `patience` seconds."""
        self._connection.close()
        self._process.join(timeout=patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


class _Local:
    """The same host in this process."""

    def __init__(self, host: Callable[[Marker], Any]) -> None:
        self._host = host(_LocalMarker())
        self._call: tuple[str, tuple[Any, ...]] | None = None

    def send(self, method: str, arguments: tuple[Any, ...]) -> None:
        self._call = (method, arguments)

    def receive(self) -> Any:
        assert self._call is not None, "receive without send"
        method, arguments = self._call
        # NumPy's global generator keeps half of a normal pair outside the bit generator that the
        # environments swap out: the caller gets the whole of it back.
        outside = np.random.get_state(legacy=False)  # noqa: NPY002
        try:
            return getattr(self._host, method)(*arguments)
        finally:
            np.random.set_state(outside)  # noqa: NPY002

    def stop(self, patience: float) -> None:
        del patience


class SimulatorPool:
    """Worker processes, started at the first call and kept until `close`.

    Building the environments of a manipulation task takes seconds, so a pool is meant to be used
    for many evaluations. Workers run one thread each, ignore Ctrl-C (their parent acts on it), and
    leave when the parent closes its end of their pipe, however it died. Also a context manager.
    """

    def __init__(
        self, workers: int | None = None, host: Callable[[Marker], Any] = EpisodeHost
    ) -> None:
        """Prepare a pool; nothing is started yet.

        Args:
            workers: Number of processes; None for one per available core, 0 to do the work in this
                process (the sequential reference: same numbers, no processes).
            host: What each worker runs; called in the worker with its marker.

        Raises:
            ValueError: If `workers` is negative.
        """
        if workers is not None and workers < 0:
            raise ValueError(f"workers must be 0 or more, or None for one per core, got {workers}")
        self.workers = available_cores() if workers is None else workers
        self.lock = threading.Lock()
        self._host = host
        self._members: list[_Process | _Local] = []

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
            BenchError: What went wrong in a host outside of any episode.
        """
        self._start()
        try:
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
        self._members[place] = _Process(self._host, f"simulator-{place}")

    def _start(self) -> None:
        if self._members:
            return
        if self.workers == 0:
            self._members = [_Local(self._host)]
        else:
            for place in range(self.workers):
                self._members.append(_Process(self._host, f"simulator-{place}"))

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Return the ids of the running worker processes."""
        members = [member for member in self._members if isinstance(member, _Process)]
        return tuple(member._process.pid or -1 for member in members)

    def close(self, patience: float = 5.0) -> None:
        """End the workers; a later call starts fresh ones.

        Args:
            patience: Seconds to wait for each worker to finish what it is doing.
        """
        members, self._members = self._members, []
        for member in members:
            member.stop(patience)

    def __enter__(self) -> SimulatorPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(connection: Connection, marker: Marker, host: Callable[[Marker], Any]) -> None:
    """Answer calls until the parent closes the pipe or dies (the main function of a worker)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hosted = host(marker)
    while True:
        try:
            method, arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            reply: tuple[bool, Any] = (True, getattr(hosted, method)(*arguments))
        except Exception as error:
            reply = (False, (type(error).__name__, str(error)))
        try:
            connection.send(reply)
        except OSError:
            return


def _worker_variables() -> dict[str, str]:
    """One thread each, whatever the training process uses; no drawing unless the user chose how."""
    drawing = os.environ.get("MUJOCO_GL", "disabled")
    return {**dict.fromkeys(_ONE_THREAD, "1"), "MUJOCO_GL": drawing}


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let a process started inside inherit a blocked SIGINT: Ctrl-C is the parent's to act on."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Python starts this helper with the first process, and unblocks SIGINT after it.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(code: int | None) -> str:
    if code is None:
        return "the worker process closed its pipe"
    if code < 0:
        return f"the worker process was killed by {signal.Signals(-code).name}"
    return f"the worker process exited with status {code}"

"""One process that keeps simulators alive between calls, and the same work done in this process."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.machine import ending, start_process
from bench.simulation._errors import EnvironmentFaultError
from bench.simulation._limits import limit_memory
from bench.simulation._marker import NO_MARKER, NOT_READY, Marker, SharedMarker
from bench.simulation._names import load_simulators

__all__ = ["LocalWorker", "ProcessWorker", "WorkerDeath"]

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_LONGEST_TICK = 0.5


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """A worker process ended by itself, or was ended because an environment kept it too long.

    Attributes:
        index: The episode (or replica) it was working on, -1 if on none.
        reason: How it ended.
        certain: Whether that episode is surely to blame, so that it is not tried again.
    """

    index: int
    reason: str
    certain: bool = False


class ProcessWorker:
    """A host on the other end of a pipe.

    Args:
        host: Called in the process with its marker.
        name: Of the process.
        seconds: Time that one call of an environment may take.
        memory: Bytes that the process may allocate.
    """

    def __init__(
        self, host: Callable[[Marker], Any], name: str, seconds: float, memory: int
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._marker = SharedMarker(context.RawArray("d", 2))
        self._seconds = seconds
        self._process: BaseProcess = context.Process(
            target=_serve, args=(theirs, self._marker, host, memory), name=name, daemon=True
        )
        start_process(self._process, **_worker_variables())
        theirs.close()  # so that the end of the process is the end of the pipe

    @property
    def process_id(self) -> int:
        """Id of the process."""
        return self._process.pid or -1

    def send(self, method: str, arguments: tuple[Any, ...]) -> None:
        """Ask for a call of the host's method."""
        # A closed pipe is found by `receive` too, which tells how the process ended.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send((method, arguments))

    def receive(self) -> Any:
        """Return the call's result, or how the process ended.

        Raises:
            ValueError: What the host refused.
            EnvironmentFaultError: What an environment did outside of any episode.
            BenchError: What else went wrong there, or a process that never began.
        """
        try:
            if self._is_overdue():
                index = self._marker.value
                self._process.kill()
                reason = (
                    f"the environment did not return from a call within {self._seconds:g} s "
                    "(--env-timeout sets this limit)"
                )
                return WorkerDeath(index, reason, certain=index >= 0)
            succeeded, result = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(timeout=5)
            end = ending(self._process.exitcode)
            if self._marker.value == NOT_READY:
                raise BenchError(f"a simulator process did not start: {end}") from None
            return WorkerDeath(self._marker.value, f"the simulator process ended: {end}")
        if not succeeded:
            kind, text = result
            known: dict[str, type[Exception]] = {
                error.__name__: error for error in (ValueError, EnvironmentFaultError)
            }
            raise known[kind](text) if kind in known else BenchError(f"{kind}: {text}")
        return result

    def _is_overdue(self) -> bool:
        """Wait for an answer; True where one call of an environment takes too long.

        Only time that passes here counts: a job that was suspended has not been waiting.
        """
        tick = min(_LONGEST_TICK, 0.25 * self._seconds)
        call, waited = 0.0, 0.0
        while not wait([self._connection], timeout=tick):
            began = self._marker.began
            waited = waited + tick if began == call and began > 0.0 else 0.0
            call = began
            if waited > self._seconds:
                return True
        return False

    def hang_up(self) -> None:
        """Close the pipe: the process leaves when it has finished what it is doing."""
        self._connection.close()

    def stop(self, patience: float) -> None:
        """End the process; it is killed where it has not left within `patience` seconds."""
        self.hang_up()
        self._process.join(timeout=patience)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


class LocalWorker:
    """The same host in this process."""

    def __init__(self, host: Callable[[Marker], Any]) -> None:
        self._host = host(NO_MARKER)
        self._call: tuple[str, tuple[Any, ...]] | None = None

    def send(self, method: str, arguments: tuple[Any, ...]) -> None:
        """Ask for a call of the host's method."""
        self._call = (method, arguments)

    def receive(self) -> Any:
        """Do the call."""
        assert self._call is not None, "receive without send"
        method, arguments = self._call
        # NumPy's global generator keeps half of a normal pair outside the bit generator that the
        # environments swap out: the caller gets the whole of it back.
        outside = np.random.get_state(legacy=False)  # noqa: NPY002
        try:
            return getattr(self._host, method)(*arguments)
        finally:
            np.random.set_state(outside)  # noqa: NPY002

    def hang_up(self) -> None:
        """Nothing to close."""

    def stop(self, patience: float) -> None:
        """Nothing to end."""
        del patience


def _serve(
    connection: Connection, marker: SharedMarker, host: Callable[[Marker], Any], memory: int
) -> None:
    """Answer calls until the parent closes the pipe or dies (the main function of a worker)."""
    # Signals that reach a whole group of processes are the parent's to act on: it saves first.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    load_simulators()  # takes seconds, which are not an environment's
    limit_memory(memory)
    hosted = host(marker)
    marker.leave()
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
        except (OSError, MemoryError):
            return


def _worker_variables() -> dict[str, str]:
    """One thread each, whatever the training process uses; no drawing unless the user chose how."""
    drawing = os.environ.get("MUJOCO_GL", "disabled")
    return {**dict.fromkeys(_ONE_THREAD, "1"), "MUJOCO_GL": drawing}

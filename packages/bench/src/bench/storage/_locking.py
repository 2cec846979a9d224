"""One process per run directory, by a lock that dies with its holder."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.errors import RunLockedError
from bench.storage._atomic import (
    hold_directory,
    release_directory,
    remove_leftovers,
    require_held,
)
from bench.storage._untrusted import plain_text

__all__ = ["LockHolder", "RunLock", "in_use", "lock_holder"]

LOCK_NAME = "lock"


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who holds a run directory: process id, host, command line and start (UTC, ISO 8601)."""

    pid: int
    host: str
    command: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.since}: {self.command})"


class RunLock:
    """Exclusive hold of a run directory, to be used in a `with` statement.

    Temporary files that killed processes left in it are removed. While it is held, a directory that
    is renamed or deleted is noticed at the next write (`RunDirectoryLostError`). The system
    releases the lock when the process ends in whatever way. The file `lock` stays: removing it
    would let two processes hold two files of the same name.

    Args:
        directory: the run directory; made if missing.
        command: what to show a second process; this process's command line if not given.
        alternative: what else a second process may be given, for its message.
        wait: seconds to wait for another process to release it.
    """

    def __init__(
        self,
        directory: Path,
        command: Sequence[str] | None = None,
        *,
        alternative: str = "another directory with --out",
        wait: float = 0.0,
    ) -> None:
        self.directory = directory
        self._command = shlex.join(sys.argv if command is None else command)
        self._alternative = alternative
        self._wait = wait
        self._handle: int | None = None

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            RunLockedError: another process holds it; the text names that process.
            OSError: the directory cannot be written.
            RunDirectoryLostError: it lies below a held directory that was renamed or deleted.
        """
        assert self._handle is None, "a lock is taken once"
        require_held(self.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / LOCK_NAME
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            deadline = time.monotonic() + self._wait
            while not (held := _try_lock(handle, path)) and time.monotonic() < deadline:
                time.sleep(0.1)
        except BaseException:
            os.close(handle)
            raise
        if not held:
            os.close(handle)
            raise RunLockedError(in_use(self.directory, _read_holder(path), self._alternative))
        self._handle = handle
        holder = LockHolder(
            os.getpid(),
            socket.gethostname(),
            self._command,
            datetime.now(UTC).isoformat(timespec="seconds"),
        )
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(asdict(holder)).encode(), 0)
        # A forked child (an environment worker) shares the lock and would keep it past our death.
        os.register_at_fork(after_in_child=self._forget)
        hold_directory(self.directory)
        remove_leftovers(self.directory)

    def release(self) -> None:
        """Gives the lock back; without effect when it is not held."""
        if self._handle is not None:
            release_directory(self.directory)
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None

    def _forget(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def in_use(
    directory: Path,
    holder: LockHolder | None,
    alternative: str = "another directory with --out",
) -> str:
    """The text of an error about a directory that another process holds.

    Args:
        directory: of the run.
        holder: who holds it, if that is known.
        alternative: what else may be given.
    """
    who = holder or "another process"
    return f"{directory} is in use by {who}; wait for it, stop it, or give {alternative}"


def lock_holder(directory: Path) -> LockHolder | None:
    """Who works on `directory` now; None if nobody does. Does not wait and takes nothing.

    Raises:
        OSError: the lock file exists but cannot be opened.
    """
    path = directory / LOCK_NAME
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_holder(path) or LockHolder(0, "unknown", "unknown", "unknown")
    finally:
        os.close(handle)
    return None


def _try_lock(handle: int, path: Path) -> bool:
    # `lock_holder` of a status display holds a shared lock for microseconds without a name in the
    # file; only such nameless holders are asked again.
    for _ in range(10):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if _read_holder(path) is not None:
                return False
            time.sleep(0.02)
        else:
            return True
    return False


def _read_holder(path: Path) -> LockHolder | None:
    try:
        written = json.loads(path.read_bytes())
        texts = {name: plain_text(str(written[name])) for name in ("host", "command", "since")}
        return LockHolder(int(written["pid"]), **texts)
    except (KeyError, OSError, RecursionError, TypeError, ValueError):
        return None  # the holder has the lock but has not written its name yet

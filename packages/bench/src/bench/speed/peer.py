"""Other programs whose updates per second stand in the same table.

A peer is a command that prints its updates per second as the last word of its output. It is run
anew at every turn, unless it stays alive by this protocol, so that it compiles but once:

1. When it is ready to measure, it prints the line ``ready``.
2. For every line that it reads, the seconds to measure for, it prints one line (and flushes it)
   whose last word is its updates per second.
3. At the end of its input it exits with 0.
"""

import contextlib
import shlex
import shutil
import subprocess
import tempfile
from types import TracebackType
from typing import Self

from bench.errors import BenchError

__all__ = ["Peer"]

_READY = "ready"
_SECONDS_TO_END = 10.0


class Peer:
    """A command that is asked for its rate turn by turn, in a `with` statement.

    Args:
        command: as a shell would split it.

    Raises:
        ValueError: there is no such program.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self._words = shlex.split(command)
        if not self._words or shutil.which(self._words[0]) is None:
            raise ValueError(f"--against {command!r}: there is no such program")
        self._process: subprocess.Popen[str] | None = None  # only one that stays alive

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile("w+")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(BrokenPipeError), process:  # waits, and closes the pipes
                if kind is not None:
                    process.kill()
                elif process.stdin is not None:
                    process.stdin.close()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_SECONDS_TO_END)
                    process.kill()
        self._errors.close()

    def rate(self, seconds: float) -> float:
        """Updates per second, measured over about ``seconds`` by a peer that stays alive.

        Raises:
            BenchError: the command fails or its last word is no positive number.
        """
        if self._process is None:
            printed, status = self._start()
            if status is not None:
                return self._read(printed, status)
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it ended: the empty answer says so
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        return self._read(answer, 0 if answer else process.wait())

    def _start(self) -> tuple[str, int | None]:
        """Run the command until it is ready or ends; what it printed, and its status if ended."""
        process = subprocess.Popen(  # noqa: S603 - the user's own command
            self._words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._process = process
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            if line.strip() == _READY:
                return "", None
            printed.append(line)
        process.communicate()
        self._process = None
        return "".join(printed), process.returncode

    def _read(self, printed: str, status: int) -> float:
        words = printed.split()
        try:
            rate = float(words[-1])
        except (IndexError, ValueError):
            rate = 0.0
        if status != 0 or not 0.0 < rate < float("inf"):
            self._errors.seek(0)
            last = (self._errors.read() or printed).strip().splitlines()[-1:]
            raise BenchError(
                f"{self.command!r} must print its updates per second last and exit with 0; it "
                f"exited with {status}{': ' + last[0] if last else ''}"
            )
        return rate

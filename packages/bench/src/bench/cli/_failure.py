"""What went wrong, as one line for people, and the traceback where it can be found."""

import contextlib
import os
import select
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from bench.errors import StoppedError, logged_in
from bench.failures import in_words, is_foreseen, is_interruption
from bench.storage import plain_text

__all__ = ["report"]

_RESUMED = ("offline", "online", "sweep", "ablate")


def report(error: BaseException, command: Sequence[str], *, debug: bool) -> int:
    """Say on standard error what went wrong; returns the exit status.

    Args:
        error: what ended the command.
        command: its arguments.
        debug: show the traceback as well.
    """
    if isinstance(error, BrokenPipeError) and _reader_has_gone():
        return 1
    if debug:
        traceback.print_exception(error)
    again = "; rerun the command to resume from the last checkpoint"
    resumed = again if command[:1] and command[0] in _RESUMED else ""
    if is_interruption(error):
        print(f"interrupted{resumed}", file=sys.stderr)
        return 130
    if isinstance(error, StoppedError):
        with contextlib.suppress(OSError):  # the terminal may be what has gone
            print(f"error: {plain_text(str(error))}{resumed}", file=sys.stderr)
        return 128 + error.signal
    line = plain_text(in_words(error))  # files and servers may have put in anything
    if not is_foreseen(error) and not debug:
        kept = _keep(error, command)
        line += f" (traceback: {kept})" if kept else " (--debug shows the traceback)"
    with contextlib.suppress(BrokenPipeError):  # standard error has gone as well
        print(f"error: {line}", file=sys.stderr)
    if isinstance(error, OSError):
        _discard_output()
    return 2 if isinstance(error, ValueError) else 1


def _keep(error: BaseException, command: Sequence[str]) -> Path | None:
    """Where the traceback was written: the run's log, else a file of its own."""
    if (log := logged_in(error)) is not None:
        return log
    name = f"bench-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    path = Path(tempfile.gettempdir()) / name
    text = "".join(traceback.format_exception(error))
    try:
        path.write_text(f"bench {' '.join(command)}\n\n{text}", encoding="utf-8", errors="replace")
    except OSError:
        return None
    return path


def _reader_has_gone() -> bool:
    """Whether nobody reads standard output any more, as behind `| head`; then it is given up."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        gone = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):  # no file of the system's, as in a notebook
        return False
    if gone:
        _discard_output()
    return gone


def _discard_output() -> None:
    """What is still buffered goes nowhere: Python would try again at its end, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

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

from bench.errors import BenchError, StoppedError, logged_in

__all__ = ["report"]

_PACKAGES = ("bench", "qlearn", "adjoint", "flowsde", "trustregion")
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
    again = "; the same command continues from the last checkpoint"
    resumed = again if command[:1] and command[0] in _RESUMED else ""
    if _is_interruption(error):
        print(f"interrupted{resumed}", file=sys.stderr)
        return 130
    if isinstance(error, StoppedError):
        with contextlib.suppress(OSError):  # the terminal may be what has gone
            print(f"error: {error}{resumed}", file=sys.stderr)
        return 128 + error.signal
    line = _line(error)
    if not _was_foreseen(error) and not debug:
        kept = _keep(error, command)
        line += f" (traceback: {kept})" if kept else " (--debug shows the traceback)"
    with contextlib.suppress(BrokenPipeError):  # standard error has gone as well
        print(f"error: {line}", file=sys.stderr)
    if isinstance(error, OSError):
        _discard_output()
    return 2 if isinstance(error, ValueError) else 1


def _line(error: BaseException) -> str:
    """The error in words, on one line."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}"
    if isinstance(error, ValueError | BenchError | OSError):
        return text or f"{type(error).__name__} in {_place(error)}"
    if _is_lack_of_memory(error):
        detail = f" ({text})" if text else ""
        return (
            f"there is not enough memory{detail}; ask for less at a time (smaller networks, "
            "--pack 1, --processes 1, --data-memory 0) or use a larger machine"
        )
    if isinstance(error, RecursionError):
        return f"something is nested too deeply to be read, in {_place(error)}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"there is no module {error.name!r}, needed by {_place(error)}; install it"
    if isinstance(error, ImportError):
        return f"a module cannot be imported: {text}"
    if type(error).__name__ == "PanicException":
        return f"polars gave up on a table: {text}; it may be damaged"
    if isinstance(error, NotImplementedError) and not text:
        text = "this is not implemented"
    return f"unexpected {type(error).__name__} in {_place(error)}: {text or 'no further words'}"


def _is_interruption(error: BaseException) -> bool:
    """Whether Ctrl-C is behind it; some libraries turn that into an ImportError."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, KeyboardInterrupt):
            return True
        found = found.__cause__ or found.__context__
    return False


def _is_lack_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate" in text or "out of memory" in text)
    )


def _was_foreseen(error: BaseException) -> bool:
    """Whether a text of ours says what to do: other traces are kept for those who look into it."""
    if isinstance(error, BenchError | OSError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, ValueError) and bool(frames) and _is_ours(frames[-1].filename)


def _is_ours(file: str) -> bool:
    modules = filter(None, map(sys.modules.get, _PACKAGES))
    return any(Path(file).is_relative_to(folder) for m in modules for folder in m.__path__)


def _place(error: BaseException) -> str:
    """File and line of the last frame, and those of ours that led there."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    last = frames[-1]
    return f"{Path(last.filename).name}, line {last.lineno}"


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

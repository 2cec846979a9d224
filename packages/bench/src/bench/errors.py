"""Errors that a person running an experiment can act on.

`ValueError` says that an argument was wrong, `OSError` that the system refused; these say that
something failed while the work was going on. `bench.cli` prints their text without a traceback.
"""

from __future__ import annotations

import signal
from pathlib import Path

__all__ = [
    "BenchError",
    "CheckpointError",
    "FormatVersionError",
    "MixedOriginError",
    "ResultsError",
    "RunDirectoryLostError",
    "RunLockedError",
    "StoppedError",
    "logged_in",
    "note_log",
]

_LOGGED = "logged in "


class BenchError(RuntimeError):
    """Something failed at run time; the text says what, where, and what to do about it."""


class StoppedError(SystemExit):
    """A signal ended the work; a run can go on from its last checkpoint.

    As a kind of `SystemExit` it is no fault of the code that it interrupts, which may be a user's
    environment, and a script that does not catch it ends with its `code`.

    Attributes:
        signal: the signal.
        code: exit status of a process that ends because of it, 128 and the signal's number.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(128 + number)
        self.signal = number

    def __str__(self) -> str:
        return f"ended by {self.signal.name}"


class CheckpointError(BenchError):
    """A checkpoint could not be written, or none of those that exist can be used."""


class FormatVersionError(BenchError):
    """A file was written in a format that this version does not read."""


class ResultsError(BenchError):
    """A result table is missing, unreadable or cannot be written."""


class MixedOriginError(ResultsError):
    """Rows that differ in data, simulator or protocol were about to be averaged."""


class RunDirectoryLostError(BenchError):
    """The run directory was renamed or deleted while a process worked in it."""


class RunLockedError(BenchError):
    """Another process is working on this run directory; the text names it."""


def note_log(error: BaseException, path: Path) -> None:
    """Note with an error that a log holds its traceback."""
    error.add_note(f"{_LOGGED}{path}")


def logged_in(error: BaseException) -> Path | None:
    """The log that holds an error's traceback; None if none does."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(_LOGGED)]
    return Path(notes[0].removeprefix(_LOGGED)) if notes else None

"""Where a function's progress is shown."""

import logging
import sys
from importlib.util import find_spec
from typing import IO, Any, Literal, cast

from rich.console import Console

from bench.terminal import standard_output

__all__ = ["Progress", "progress_console"]

Progress = Literal["auto", "log", "none"] | Console

_LINE = 400
_log = logging.getLogger("bench.progress")


class _Lines:
    """A text file whose lines are log records."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                _log.info(line.rstrip())
        return len(text)

    def flush(self) -> None:
        """Lines are whole already."""

    def isatty(self) -> bool:
        return False


def progress_console(progress: Progress) -> Console:
    """The console that stages and notes are printed on.

    Args:
        progress: `auto` draws bars in a terminal and in a notebook with ipywidgets, and prints a
            line now and then elsewhere; `log` sends these lines to the logger `bench.progress`;
            `none` shows nothing; or a rich console.

    Raises:
        ValueError: something else.
    """
    if isinstance(progress, Console):
        return progress
    if progress == "none":
        return Console(quiet=True)
    if progress == "log":
        lines = cast(IO[str], _Lines())
        return Console(file=lines, width=_LINE, no_color=True, highlight=False)
    if progress != "auto":
        expected = "'auto', 'log', 'none' or a rich console"
        raise ValueError(f"progress must be {expected}, got {progress!r}")
    console = standard_output()
    if console.is_jupyter and find_spec("ipywidgets") is None:
        options: dict[str, Any] = {"force_jupyter": False, "force_terminal": False}
        return Console(file=sys.stdout, width=120, **options)
    return console

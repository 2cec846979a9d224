"""What the subcommands of `bench data` share: names of datasets, bars."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Meter", "Name", "Names", "at_least_one", "progress_bar"]

Names = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME ...")]
Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]


def at_least_one(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names.

    Raises:
        ValueError: there are none.
    """
    if not names:
        raise ValueError("name a dataset; `bench data list` shows them")
    return names


class Meter:
    """Work done and its rate; drawn as a bar on a terminal, silent elsewhere."""

    def __init__(self, name: str, unit: str, bar: "Progress") -> None:
        self._unit = unit
        self._bar = bar
        self._task = bar.add_task(name, total=None, rate="")
        self._begin = time.perf_counter()
        self._first: int | None = None
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        """Take note of how far it is."""
        if self._first is None:
            self._first, self._begin = done, time.perf_counter()
        self._done = done
        self._bar.update(self._task, completed=done, total=total, rate=self._rate())

    def say(self, text: str) -> None:
        """A line on standard error about what is waited for, on a terminal and elsewhere."""
        from bench.storage import plain_text

        name = self._bar.tasks[0].description
        line = plain_text(f"{name}: {text}")  # a server may have put in anything
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _rate(self) -> str:
        new = self._done - (self._first or 0)
        seconds = time.perf_counter() - self._begin
        if not new or not seconds:
            return ""
        if self._unit == "bytes":
            return f"{new / seconds / 1e6:,.1f} MB/s"
        return f"{new / seconds:,.0f} {self._unit}/s"

    def summary(self) -> str:
        """How much was done at what rate; empty if nothing was."""
        rate = self._rate()
        return f"{self._done - (self._first or 0):,} {self._unit} at {rate}" if rate else ""


@contextmanager
def progress_bar(name: str, unit: str) -> Iterator[Meter]:
    """A meter for work that is counted in a unit."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        "{task.description}",
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    bar = Progress(
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        yield Meter(name, unit, bar)

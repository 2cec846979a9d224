"""What a person sees while a job runs: one bar per stage, with rate and remaining time."""

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from bench.terminal import standard_output

__all__ = ["Display", "Stages", "standard_output"]

_QUIET_SECONDS = 30.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s", style="cyan")


class Display(Protocol):
    """Where the stages of a job are shown."""

    def stage(
        self, name: str, total: int, unit: str
    ) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        """A stage of ``total`` units; yields the function that is told how many are done."""


class Stages:
    """Progress of the stages of a job, of several at once if need be, in a `with` statement.

    A line now and then where the output is not a terminal.

    Args:
        console: where to write.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    @contextlib.contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A stage of ``total`` units; yields the function that is told how many are done."""
        if not self.console.is_terminal:
            yield self._lines(name, total, unit)
            return
        task = self._progress.add_task(name, total=total, unit=unit)
        try:
            yield lambda done: self._progress.update(task, completed=done)
        finally:
            self._progress.stop_task(task)

    def _lines(self, name: str, total: int, unit: str) -> Callable[[int], None]:
        began = said = time.monotonic()
        first: int | None = None
        finished = False

        def tell(done: int) -> None:
            nonlocal said, first, began, finished
            now = time.monotonic()
            if first is None:
                first, began, said = done, now, now
                self.console.print(f"{name}: {done:,} of {total:,} {unit}")
                return
            if finished or (done < total and now - said < _QUIET_SECONDS):
                return
            said, finished = now, done >= total
            rate = (done - first) / max(now - began, 1e-9)
            left = "" if rate <= 0 else f", {rate:,.1f}/s, {(total - done) / rate:,.0f} s left"
            self.console.print(f"{name}: {done:,} of {total:,} {unit}{left}")

        return tell

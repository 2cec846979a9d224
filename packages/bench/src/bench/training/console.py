"""What a person sees while a job runs: one bar per stage, with rate and remaining time."""

import contextlib
import time
from collections.abc import Callable, Iterator

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

__all__ = ["Stages"]

_QUIET_SECONDS = 30.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s", style="cyan")


class Stages:
    """Progress of the stages of a job; a line now and then where the output is not a terminal.

    Args:
        console: where to write.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextlib.contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A stage of ``total`` units; yields the function that is told how many are done."""
        if self.console.is_terminal:
            with Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                _Rate(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
            ) as progress:
                task = progress.add_task(name, total=total)
                yield lambda done: progress.update(task, completed=done)
            return
        yield self._lines(name, total, unit)

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

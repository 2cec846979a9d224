"""The command itself: measure, print, write."""

import sys
from collections.abc import Callable, Sequence

from bench.speed.measure import measure
from bench.speed.request import SpeedRequest
from bench.speed.roofline import draw_roofline
from bench.speed.row import SpeedRow
from bench.speed.side_by_side import measure_side_by_side
from bench.speed.table import format_table, write_rows
from bench.training.allocator import keep_freed_memory

__all__ = ["measured_rows", "run_speed"]


def run_speed(request: SpeedRequest) -> int:
    """Print the table of a request and write it where that was asked for.

    Raises:
        ValueError: the request is impossible.
        BenchError: a peer's command or a process failed, or there is no compiler.
        OSError: a file cannot be written; a folder that cannot be made is found before measuring.
    """
    rows = measured_rows(request, lambda text: print(text, file=sys.stderr, flush=True))
    print(format_table(rows))
    return 0


def measured_rows(request: SpeedRequest, tell: Callable[[str], None]) -> Sequence[SpeedRow]:
    """Measure a request, and write table and picture where they were asked for.

    Args:
        request: what to measure.
        tell: called with a line before every longer step.

    Raises:
        ValueError: the request is impossible.
        BenchError: a peer's command or a process failed, or there is no compiler.
        OSError: a file cannot be written; a folder that cannot be made is found before measuring.
    """
    request.check()
    for file in filter(None, (request.out, request.roofline)):
        file.parent.mkdir(parents=True, exist_ok=True)
    if request.processes > 1:
        rows = measure_side_by_side(request)
    else:
        keep_freed_memory()
        rows = measure(request, tell=tell)
    if request.out is not None:
        write_rows(rows, request.out)
    if request.roofline is not None:
        draw_roofline(rows, request.roofline)
    return rows

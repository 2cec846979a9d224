"""One measurement in several processes at once, as packs of a run train side by side."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

from bench.errors import BenchError
from bench.speed.request import SpeedRequest
from bench.speed.row import SpeedRow

__all__ = ["measure_side_by_side"]

_OWN = ("processes", "threads", "against", "out", "roofline")


def measure_side_by_side(request: SpeedRequest) -> list[SpeedRow]:
    """Measure every combination in each of the processes, and add up what they did.

    The processes take the same turns of the same length, so all are busy all the time but for
    their start and end; their threads are shared out over the cores.

    Raises:
        ValueError: the request is impossible.
        BenchError: a process failed.
    """
    request.check()
    threads = request.threads or max(1, (os.cpu_count() or 1) // request.processes)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        files = [Path(folder) / f"{i}.json" for i in range(request.processes)]
        running = []
        for file in files:
            given = [*_arguments(request), "--threads", str(threads), "--out", str(file)]
            process = subprocess.Popen(  # noqa: S603 - this very program
                [sys.executable, "-m", "bench.speed", *given],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
            running.append(stack.enter_context(process))
            stack.callback(process.kill)
        for process in running:
            _, said = process.communicate()
            if process.returncode:
                raise BenchError(f"a measuring process failed: {said.strip().splitlines()[-1]}")
        measured = [[SpeedRow(**row) for row in json.loads(file.read_text())] for file in files]
    return [_together(rows) for rows in zip(*measured, strict=True)]


def _arguments(request: SpeedRequest) -> list[str]:
    """The options of one process."""
    given = []
    for field in fields(SpeedRequest):
        value = getattr(request, field.name)
        if field.name in _OWN or value is None:
            continue
        values = value if isinstance(value, tuple) else (value,)
        given += [f"--{field.name.replace('_', '-')}", *map(str, values)]
    return given


def _together(rows: Sequence[SpeedRow]) -> SpeedRow:
    """One row for what the processes did at the same time."""

    def total(name: str) -> float:
        return float(sum(getattr(row, name) for row in rows))

    first = rows[0]
    gflops, ceiling = total("gflops"), total("ceiling_gflops")
    return SpeedRow(
        agent=first.agent,
        width=first.width,
        replicas=first.replicas,
        batch=first.batch,
        precision=first.precision,
        mode=first.mode,
        device=first.device,
        processes=len(rows),
        threads=first.threads,
        updates_per_s=total("updates_per_s") / len(rows),
        slowest=min(row.slowest for row in rows),
        fastest=max(row.fastest for row in rows),
        replica_updates_per_s=total("replica_updates_per_s"),
        first_update_s=max(row.first_update_s or 0.0 for row in rows),
        memory_mb=total("memory_mb"),
        launches=first.launches,
        gflops=gflops,
        ceiling_gflops=ceiling,
        share=gflops / ceiling,
    )

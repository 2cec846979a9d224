"""What a suite costs, and how fast agents train here."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.agents import AGENTS
from bench.api.state import process_state_kept
from bench.experiment import (
    CostRequest,
    build_request,
    refuse_repeats,
    resolved_precision,
)
from bench.scale import (
    DeviceRate,
    SuiteCost,
    count_threads,
    device_rate,
    domain_sizes,
    read_rates,
    suite_cost,
)
from bench.speed import SpeedRequest
from bench.speed.command import measured_rows
from bench.speed.row import SpeedRow
from bench.speed.table import format_table
from bench.suites import suite, unknown
from bench.terminal import standard_output

__all__ = ["CostResult", "SpeedResult", "measure_speed", "plan"]


@dataclass(frozen=True, slots=True)
class CostResult:
    """Hours of devices and cores.

    Attributes:
        request: what was asked.
        title: suite, agent and how they are trained.
        cost: per domain and in total.
        rates: of the device, by width.
    """

    request: CostRequest
    title: str
    cost: SuiteCost
    rates: Mapping[int, DeviceRate]

    @property
    def domains(self) -> pl.DataFrame:
        """A row per domain: updates, operations, hours of one device and of one core."""
        return pl.DataFrame([asdict(domain) for domain in self.cost.domains])

    @property
    def measured(self) -> bool:
        """Whether every rate was measured at its width."""
        return all(rate.measured for rate in self.rates.values())

    def hours(self, devices: int) -> float:
        """Until the last of so many devices has trained its share."""
        return self.cost.hours(devices)

    def show(self, console: Console | None = None) -> None:
        """Print the table, what the rates rest on, and the hours."""
        console = console or standard_output(highlight=False, markup=False)
        console.print(self._table())
        for line in self._lines():
            # A pipe has no width, and what reads it wants whole lines.
            console.print(line, soft_wrap=not console.is_terminal)

    def _repr_html_(self) -> str:
        return self.domains._repr_html_()

    def _table(self) -> Table:
        # Headings of two lines: the table fits into 80 columns.
        table = Table(
            title=self.title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0
        )
        table.add_column("domain", overflow="fold")
        for heading in (
            "width", "runs", "million\nupdates", "PFLOP", "device\nhours", "million\nsteps",
            "core\nhours",
        ):  # fmt: skip
            table.add_column(heading, justify="right", no_wrap=True)
        for domain in self.cost.domains:
            mark = "" if self.rates[domain.width].measured else "~"
            table.add_row(
                domain.name,
                str(domain.width),
                str(domain.runs),
                _short(domain.updates / 1e6),
                _short(domain.flops / 1e15),
                mark + _short(domain.device_hours),
                _short(domain.simulator_steps / 1e6),
                _short(domain.core_hours),
            )
        return table

    def _lines(self) -> list[str]:
        request, cost = self.request, self.cost
        guessed = "" if self.measured else "~"
        lines = [f"width {width}: {self.rates[width].basis}" for width in sorted(self.rates)]
        if guessed:
            lines.append("~ rests on a rate that was not measured at this width")
        threads = {r.threads for r in self.rates.values() if r.threads is not None}
        unit = request.device
        if threads:
            # A table may hold rates of other numbers of threads at other widths.
            text = count_threads(*threads) if len(threads) == 1 else "threads as above"
            unit = f"{request.device} ({text})"
        for count in sorted({1, request.devices}):
            device = unit if count == 1 else f"{count} x {unit}"
            lines.append(f"{device}: {guessed}{_short(cost.hours(count))} hours of training")
        lines.append(
            f"simulators: {_short(cost.core_hours)} core hours at most, "
            f"{_short(cost.core_hours / request.cores)} hours on {request.cores} cores "
            + ("like this one" if request.measure else "of an AMD EPYC; --measure times this one")
        )
        return lines


def plan(request: CostRequest | None = None, /, **options: Any) -> CostResult:
    """Hours that a suite takes on one device and on several; nothing is trained.

    Args:
        request: what to estimate; or give its fields as keyword arguments.
        **options: fields of :class:`bench.CostRequest`, such as ``suite="ogbench50"``,
            ``device="h200"``, ``utilisation=0.3``.

    Raises:
        TypeError: an option that there is not.
        ValueError: an unknown name, or a device that was not measured, without a utilisation.
    """
    asked = build_request(CostRequest, request, options)
    refuse_repeats(asked)
    for name in ("devices", "cores", "seeds"):
        if getattr(asked, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(asked, name)}")
    if asked.agent not in AGENTS:
        raise ValueError(unknown("agent", asked.agent, AGENTS))
    chosen = suite(asked.suite).narrowed(asked.domains)
    precision = resolved_precision(asked.precision, gpu=asked.device != "cpu")
    rows = read_rates(asked.rates)
    found: dict[int, DeviceRate] = {}

    def rate(width: int) -> float:
        found[width] = device_rate(
            rows, asked.device, asked.agent, width, precision, asked.mode,
            utilisation=asked.utilisation,
        )  # fmt: skip
        return found[width].flops_per_s

    with process_state_kept():
        sizes = partial(domain_sizes, measure=asked.measure)
        cost = suite_cost(chosen, asked.agent, asked.seeds, sizes, rate, online=asked.online)
    title = f"{chosen.name}, {asked.agent}, {asked.seeds} seeds, {precision}, {asked.mode}"
    return CostResult(asked, title, cost, found)


@dataclass(frozen=True, slots=True)
class SpeedResult:
    """Updates per second.

    Attributes:
        measured: a row per combination.
        files: table and picture, where they were asked for.
    """

    measured: Sequence[SpeedRow]
    files: tuple[Path, ...] = ()

    @property
    def rows(self) -> pl.DataFrame:
        """A row per combination; :class:`bench.speed.row.SpeedRow` explains the columns."""
        return pl.DataFrame([asdict(row) for row in self.measured], infer_schema_length=None)

    def show(self) -> None:
        """Print a Markdown table."""
        print(format_table(self.measured))

    def _repr_html_(self) -> str:
        return self.rows._repr_html_()


def measure_speed(
    request: SpeedRequest | None = None, /, *, progress: bool = True, **options: Any
) -> SpeedResult:
    """Measure updates per second of agents on made-up data, in every combination asked for.

    Args:
        request: what to measure; or give its fields as keyword arguments.
        progress: tell on standard error what is going on.
        **options: fields of :class:`bench.SpeedRequest`, such as ``agents=["trqam", "fql"]``.

    Raises:
        TypeError: an option that there is not.
        ValueError: the request is impossible.
        BenchError: a peer's command or a process failed, or there is no compiler.
        OSError: a file cannot be written.
    """
    asked = build_request(SpeedRequest, request, options)

    def tell(text: str) -> None:
        if progress:
            print(text, file=sys.stderr, flush=True)

    with process_state_kept():
        rows = measured_rows(asked, tell)
    return SpeedResult(rows, tuple(filter(None, (asked.out, asked.roofline))))


def _short(number: float) -> str:
    """Three significant digits, with separators."""
    if number == 0.0:
        return "0"
    places = 2 - math.floor(math.log10(abs(number)))
    return f"{round(number, places):,.{max(0, places)}f}"

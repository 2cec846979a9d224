"""`bench plan`: what a whole suite costs on a device."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """Hours that a suite takes on one device and on several, per domain and in total.

    Operations of the updates are counted and divided by the device's rate in a table of
    `bench speed`; a device that is not in the table, or not within a factor of two of the width, is
    refused, or estimated from its peak and a utilisation of your own. Simulators are timed on this
    machine. Nothing is trained.

    Attributes:
        suite: quick, quick-manip, ogbench50, ogbench50-qam or ogbench50-fql.
        agent: by which method.
        seeds: per task.
        domains: only these domains.
        online: with the online phase.
        device: part of a device's name in the table, such as h200, or cpu (the fewest threads
            measured).
        devices: how many of them, besides one.
        cores: of the CPU for simulators.
        precision: of the matrix products; auto is tf32, on a cpu float32.
        mode: of execution that the rate was measured in; `bench offline` trains eagerly, with
            --compile compiled, with --compile --capture captured.
        rates: table that `bench speed --out FILE.csv` wrote; the kept one by default.
        utilisation: where nothing was measured, estimate by this part of the device's peak.
    """

    suite: str = "ogbench50"
    agent: str = "trqam"
    seeds: int = 8
    domains: tuple[str, ...] = ()
    online: bool = False
    device: str = "cpu"
    devices: int = 8
    cores: int = 16
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    mode: Literal["eager", "compiled", "captured"] = "eager"
    rates: Path | None = None
    utilisation: float | None = None

    def run(self) -> int:
        """Print the table."""
        for name in ("devices", "cores", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        from bench.agents import AGENTS
        from bench.scale import (
            DeviceRate,
            count_threads,
            device_rate,
            domain_sizes,
            read_rates,
            suite_cost,
        )
        from bench.suites import suite, unknown
        from bench.terminal import standard_output

        if self.agent not in AGENTS:
            raise ValueError(unknown("agent", self.agent, AGENTS))
        chosen = suite(self.suite).narrowed(self.domains)
        precision = self.precision
        if precision == "auto":
            precision = "float32" if self.device == "cpu" else "tf32"
        rows = read_rates(self.rates)
        found: dict[int, DeviceRate] = {}

        def rate(width: int) -> float:
            found[width] = device_rate(
                rows,
                self.device,
                self.agent,
                width,
                precision,
                self.mode,
                utilisation=self.utilisation,
            )
            return found[width].flops_per_s

        cost = suite_cost(chosen, self.agent, self.seeds, domain_sizes, rate, online=self.online)
        title = f"{chosen.name}, {self.agent}, {self.seeds} seeds, {precision}, {self.mode}"
        # Headings of two lines: the table fits into 80 columns.
        table = Table(
            title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0
        )
        table.add_column("domain", overflow="fold")
        for heading in (
            "width", "runs", "million\nupdates", "PFLOP", "device\nhours", "million\nsteps",
            "core\nhours",
        ):  # fmt: skip
            table.add_column(heading, justify="right", no_wrap=True)
        for domain in cost.domains:
            mark = "" if found[domain.width].measured else "~"
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
        guessed = "" if all(r.measured for r in found.values()) else "~"
        console = standard_output(highlight=False, markup=False)
        console.print(table)
        lines = [f"width {width}: {found[width].basis}" for width in sorted(found)]
        if guessed:
            lines.append("~ rests on a rate that was not measured at this width")
        threads = {r.threads for r in found.values() if r.threads is not None}
        unit = self.device
        if threads:
            # A table may hold rates of other numbers of threads at other widths.
            text = count_threads(*threads) if len(threads) == 1 else "threads as above"
            unit = f"{self.device} ({text})"
        for count in sorted({1, self.devices}):
            device = unit if count == 1 else f"{count} x {unit}"
            lines.append(f"{device}: {guessed}{_short(cost.hours(count))} hours of training")
        lines.append(
            f"simulators: {_short(cost.core_hours)} core hours at most, "
            f"{_short(cost.core_hours / self.cores)} hours on {self.cores} cores like this one"
        )
        for line in lines:
            # A pipe has no width, and what reads it wants whole lines.
            console.print(line, soft_wrap=not console.is_terminal)
        return 0


def _short(number: float) -> str:
    """Three significant digits, with separators."""
    if number == 0.0:
        return "0"
    places = 2 - math.floor(math.log10(abs(number)))
    return f"{round(number, places):,.{max(0, places)}f}"

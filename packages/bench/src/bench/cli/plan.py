"""`bench plan`: what a whole suite costs on a device."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """Hours that a suite takes on one device and on several, per domain and in total.

    Operations of the updates are counted and divided by the device's rate in a table of
    `bench speed`; a device that is not in the table is refused, or estimated from its peak and a
    utilisation of your own. Simulators are timed on this machine. Nothing is trained.

    Attributes:
        suite: quick, quick-manip, ogbench50, ogbench50-qam or ogbench50-fql.
        agent: by which method.
        seeds: per task.
        domains: only these domains.
        online: with the online phase.
        device: part of a device's name in the table, such as cpu (one thread of it) or h200.
        devices: how many of them, besides one.
        cores: of the CPU for simulators.
        precision: of the matrix products; auto is tf32, on a cpu float32.
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
    rates: Path | None = None
    utilisation: float | None = None

    def run(self) -> int:
        """Print the table."""
        from rich.console import Console
        from rich.table import Table

        from bench.agents import AGENTS
        from bench.scale import device_rate, domain_sizes, read_rates, suite_cost
        from bench.suites import suite, unknown

        if self.agent not in AGENTS:
            raise ValueError(unknown("agent", self.agent, AGENTS))
        if self.cores < 1:
            raise ValueError(f"cores must be at least 1, got {self.cores}")
        chosen = suite(self.suite).narrowed(self.domains)
        precision = self.precision
        if precision == "auto":
            precision = "float32" if self.device == "cpu" else "tf32"
        rows = read_rates(self.rates)
        bases: dict[int, str] = {}

        def rate(width: int) -> float:
            found = device_rate(
                rows, self.device, self.agent, width, precision, utilisation=self.utilisation
            )
            bases[width] = found.basis
            return found.flops_per_s

        cost = suite_cost(chosen, self.agent, self.seeds, domain_sizes, rate, online=self.online)
        table = Table(title=f"{chosen.name}, {self.agent}, {self.seeds} seeds, {precision}")
        for column in (
            "domain", "width", "runs", "M updates", "EFLOP", "device hours", "M simulator steps",
            "core hours",
        ):  # fmt: skip
            table.add_column(column, justify="left" if column == "domain" else "right")
        for domain in cost.domains:
            table.add_row(
                domain.name,
                str(domain.width),
                str(domain.runs),
                f"{domain.updates / 1e6:,.1f}",
                f"{domain.flops / 1e18:,.3f}",
                f"{domain.device_hours:,.1f}",
                f"{domain.simulator_steps / 1e6:,.1f}",
                f"{domain.core_hours:,.1f}",
            )
        console = Console(soft_wrap=True, highlight=False, markup=False)
        console.print(table)
        for width, basis in sorted(bases.items()):
            console.print(f"width {width}: {basis}")
        for count in sorted({1, self.devices}):
            device = self.device if count == 1 else f"{count} x {self.device}"
            console.print(f"{device}: {cost.hours(count):,.1f} hours of training")
        console.print(
            f"simulators: {cost.core_hours:,.1f} core hours at most, "
            f"{cost.core_hours / self.cores:,.1f} hours on {self.cores} cores like this one"
        )
        return 0

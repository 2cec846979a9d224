"""What a plan would do and cost, without doing it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from bench.agents.settings import widest_layer
from bench.terminal import standard_output
from bench.training.cells import Pack
from bench.training.cost import matmul_rate, pack_cost
from bench.training.domain_sizes import DomainSizes, domain_sizes
from bench.training.rates import DeviceRate, device_rate, read_rates
from bench.training.run_plan import Plan

__all__ = ["DryRun", "PackEstimate", "estimate"]

_AGENT = "trqam"
"""Whose stored rates stand for those of all agents: their updates are products of one kind."""


@dataclass(frozen=True, slots=True)
class PackEstimate:
    """What one pack is expected to take.

    Attributes:
        pack: its name.
        runs: trained together.
        updates: of each run.
        pflop: of all its updates, 1e15 floating-point operations.
        hours: of the device; None where no rate is known.
        simulator_steps: at most.
        core_hours: of the simulators.
    """

    pack: str
    runs: int
    updates: int
    pflop: float
    hours: float | None
    simulator_steps: int
    core_hours: float


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a command would do and cost.

    Attributes:
        title: suite and its summary.
        estimates: of the packs, each behind those that it starts from.
        settings: agent settings by pack, resolved.
        summary: runs, hours, and what they rest on.
    """

    title: str
    estimates: tuple[PackEstimate, ...]
    settings: Mapping[str, Mapping[str, Any]]
    summary: str

    @property
    def packs(self) -> pl.DataFrame:
        """A row per pack; :class:`PackEstimate` explains the columns."""
        return pl.DataFrame([asdict(row) for row in self.estimates], infer_schema_length=None)

    def show(self, console: Console | None = None) -> None:
        """Print the packs, their settings and the cost."""
        console = console or standard_output()
        table = Table(title=self.title, title_justify="left")
        table.add_column("pack")
        for column in ("runs", "updates", "PFLOP", "hours", "simulator steps", "core hours"):
            table.add_column(column, justify="right")
        for row in self.estimates:
            table.add_row(
                row.pack, str(row.runs), f"{row.updates:,}", f"{row.pflop:,.3g}",
                _hours(row.hours), f"{row.simulator_steps:,}", f"{row.core_hours:,.3g}",
            )  # fmt: skip
        console.print(table)
        alike: dict[str, list[str]] = {}
        for pack, settings in self.settings.items():
            text = ", ".join(f"{name}={value}" for name, value in settings.items())
            alike.setdefault(text, []).append(pack)
        for text, packs in alike.items():
            console.print(f"{', '.join(packs)}: {text}", markup=False)
        console.print(self.summary, markup=False)

    def _repr_html_(self) -> str:
        return self.packs._repr_html_()


def estimate(plan: Plan, *, measure: bool = False) -> DryRun:
    """What a plan would do and cost.

    Args:
        plan: of the job.
        measure: time this machine, instead of using rates that were measured before.
    """
    rate, basis = _measured_rate(plan) if measure else _stored_rate(plan)
    domains = {d.name: domain_sizes(d, measure=measure) for d in plan.suite.domains}
    rows = tuple(
        _estimate(pack, plan.configs[pack.name], domains[pack.domain.name], rate)
        for pack in plan.in_order
    )
    hours = [row.hours for row in rows if row.hours is not None]
    products = sum(hours) if len(hours) == len(rows) else None
    runs = sum(len(pack.cells) for pack in plan.packs)
    summary = (
        f"{runs} runs to fine-tune on {plan.device}, {plan.precision}: {_hours(products)} hours of "
        f"updates {basis}; {sum(row.core_hours for row in rows):,.3g} core hours of simulation "
        f"{_simulators(domains)}"
    )
    settings = {pack.name: asdict(plan.configs[pack.name]) for pack in plan.in_order}
    return DryRun(f"{plan.suite.name}: {plan.suite.summary}", rows, settings, summary)


def _estimate(
    pack: Pack, config: object, sizes: DomainSizes, rate: Callable[[int], float | None]
) -> PackEstimate:
    cost = pack_cost(pack, config, sizes.problem, sizes.episode_steps)
    flops_per_s = rate(widest_layer(config))
    return PackEstimate(
        pack=pack.name,
        runs=len(pack.cells),
        updates=pack.updates_at(pack.steps),
        pflop=cost.flops / 1e15,
        hours=None if flops_per_s is None else cost.flops / flops_per_s / 3600,
        simulator_steps=cost.simulator_steps,
        core_hours=cost.simulator_steps / sizes.steps_per_s / 3600,
    )


def _measured_rate(plan: Plan) -> tuple[Callable[[int], float | None], str]:
    rate = matmul_rate(plan.device)
    return lambda width: rate, f"at the {rate / 1e9:,.0f} GFLOP/s of its matrix products, at least"


def _stored_rate(plan: Plan) -> tuple[Callable[[int], float | None], str]:
    """Rates by width, and where they are from."""
    rows = read_rates()
    find = partial(_rate_at, rows, plan)
    widths = sorted({widest_layer(config) for config in plan.configs.values()})
    bases = [found.basis for width in widths if (found := find(width)) is not None]
    if not bases:
        return lambda width: None, "(no rate of it near these widths is stored; --measure times it)"

    def rate(width: int) -> float | None:
        found = find(width)
        return None if found is None else found.flops_per_s

    return rate, f"({'; '.join(dict.fromkeys(bases))}; --measure times this machine)"


def _rate_at(rows: list[dict[str, str]], plan: Plan, width: int) -> DeviceRate | None:
    """The stored rate of the plan's device; None if there is none near the width."""
    if plan.device.type != "cpu":
        import torch

        name = torch.cuda.get_device_name(plan.device)
        names = {row["device"] for row in rows if row["device"].lower() in name.lower()}
        device = next(iter(names), name)
    else:
        device = "cpu"
    try:
        return device_rate(rows, device, _AGENT, width, plan.precision, plan.mode)
    except ValueError:
        return None


def _simulators(domains: dict[str, DomainSizes]) -> str:
    if all(sizes.measured for sizes in domains.values()):
        return "at rates measured just now"
    return "at stored rates of one core of an AMD EPYC"


def _hours(hours: float | None) -> str:
    return "?" if hours is None else f"{hours:,.3g}"

"""What a plan would do and cost, without doing it."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from rich.console import Console
from rich.table import Table

from bench.agents.settings import widest_layer
from bench.training.console import standard_output
from bench.training.cost import matmul_rate, pack_cost
from bench.training.domain_sizes import DomainSizes, domain_sizes
from bench.training.rates import DeviceRate, device_rate, read_rates
from bench.training.run_plan import Plan

__all__ = ["describe"]

_AGENT = "trqam"
"""Whose stored rates stand for those of all agents: their updates are products of one kind."""


def describe(plan: Plan, console: Console | None = None, *, measure: bool = False) -> None:
    """Print the packs of a plan with their settings and what they are expected to cost.

    Args:
        plan: of the job.
        console: where to; standard output by default.
        measure: time this machine, instead of using rates that were measured before.
    """
    console = console or standard_output()
    if measure:
        console.print("timing matrix products and simulators of this machine ...", style="dim")
    rate, basis = _measured_rate(plan) if measure else _stored_rate(plan)
    domains = {d.name: domain_sizes(d, measure=measure) for d in plan.suite.domains}
    table = Table(title=f"{plan.suite.name}: {plan.suite.summary}", title_justify="left")
    table.add_column("pack")
    for column in ("runs", "updates", "PFLOP", "hours", "simulator steps", "core hours"):
        table.add_column(column, justify="right")
    products: float | None = 0.0
    simulation = 0.0
    for pack in plan.in_order:
        sizes = domains[pack.domain.name]
        config = plan.configs[pack.name]
        cost = pack_cost(pack, config, sizes.problem, sizes.episode_steps)
        flops_per_s = rate(widest_layer(config))
        hours = None if flops_per_s is None else cost.flops / flops_per_s / 3600
        simulator_hours = cost.simulator_steps / sizes.steps_per_s / 3600
        products = None if products is None or hours is None else products + hours
        simulation += simulator_hours
        table.add_row(
            pack.name,
            str(len(pack.cells)),
            f"{pack.updates_at(pack.steps):,}",
            f"{cost.flops / 1e15:,.3g}",
            _hours(hours),
            f"{cost.simulator_steps:,}",
            f"{simulator_hours:,.3g}",
        )
    console.print(table)
    alike: dict[str, list[str]] = {}
    for pack in plan.in_order:
        settings = ", ".join(f"{k}={v}" for k, v in asdict(plan.configs[pack.name]).items())
        alike.setdefault(settings, []).append(pack.name)
    for settings, names in alike.items():
        console.print(f"{', '.join(names)}: {settings}", markup=False)
    runs = sum(len(pack.cells) for pack in plan.packs)
    console.print(
        f"{runs} runs to fine-tune on {plan.device}, {plan.precision}: {_hours(products)} hours of "
        f"updates {basis}; {simulation:,.3g} core hours of simulation {_simulators(domains)}",
        markup=False,
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

"""What a plan would do and cost, without doing it."""

from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from bench.training.console import standard_output
from bench.training.cost import matmul_rate, pack_cost
from bench.training.domain_sizes import domain_sizes
from bench.training.options import Plan

__all__ = ["describe"]


def describe(plan: Plan, console: Console | None = None) -> None:
    """Print the packs of a plan with their settings and what they are expected to cost."""
    console = console or standard_output()
    rate = matmul_rate(plan.device)
    domains = {domain.name: domain_sizes(domain) for domain in plan.suite.domains}
    table = Table(title=f"{plan.suite.name}: {plan.suite.summary}", title_justify="left")
    table.add_column("pack")
    for column in ("runs", "updates", "PFLOP", "hours", "simulator steps", "core hours"):
        table.add_column(column, justify="right")
    products = simulation = 0.0
    for pack in plan.in_order:
        sizes = domains[pack.domain.name]
        config = plan.configs[pack.name]
        cost = pack_cost(pack, config, sizes.problem, sizes.episode_steps)
        hours = cost.flops / rate / 3600
        simulator_hours = cost.simulator_steps / sizes.steps_per_s / 3600
        products, simulation = products + hours, simulation + simulator_hours
        table.add_row(
            pack.name,
            str(len(pack.cells)),
            f"{pack.updates_at(pack.steps):,}",
            f"{cost.flops / 1e15:,.3g}",
            f"{hours:,.3g}",
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
        f"{runs} runs to fine-tune on {plan.device}, {plan.precision}: at least {products:,.3g} "
        f"hours of matrix products at {rate / 1e9:,.0f} GFLOP/s, and {simulation:,.3g} core hours "
        "of simulation, both rates measured just now"
    )

"""Operations of an update, counted on small networks and scaled."""

from dataclasses import replace
from typing import Any

import pytest

from bench.agents import AGENTS, Problem
from bench.suites import SUITES
from bench.training.cost import _counted, update_flops
from bench.training.settings import resolve

PROBLEM = Problem(7, 3, 2)
VARIANTS = [("trqam", {"dual": "solve", "dual_samples": 64, "kl_budget": 0.4})] + [
    ("trqam", {name: value})
    for name, value in (
        ("estimator", "scalar"), ("kernel", "follmer"), ("trust_region", "external"),
        ("prediction", "noise"), ("value_penalty", 0.3), ("path_kl_samples", 2),
        ("dual_rate", 0.0), ("num_action_samples", 3),
        ("rho", 0.0), ("actor_layer_norm", True),
    )
]  # fmt: skip


def small(agent: str, **settings: Any) -> Any:
    """An agent's settings in a suite, with layers of different widths."""
    config = resolve(AGENTS[agent].config, agent, SUITES["quick"].domains[0], {})
    smaller = {"actor_hidden": (24, 36), "critic_hidden": (12, 48), "flow_steps": 3}
    known = {name: value for name, value in smaller.items() if hasattr(config, name)}
    return replace(config, **known, **settings)


@pytest.mark.parametrize(
    ("agent", "settings"), [*((agent, {}) for agent in AGENTS), *VARIANTS], ids=str
)
def test_scaled_counts_are_those_of_the_network_itself(
    agent: str, settings: dict[str, Any]
) -> None:
    config = small(agent, **settings)
    own = _counted(agent, config, PROBLEM)
    assert own > 0.0
    assert update_flops(agent, config, PROBLEM, 8) == own
    assert update_flops(agent, config, PROBLEM, 80) == 10 * own


def test_the_domains_of_a_suite_are_counted_as_one() -> None:
    _counted.cache_clear()
    found = {
        update_flops(agent, resolve(AGENTS[agent].config, agent, domain, {}), problem, 256)
        for agent in ("trqam", "bc")
        for domain, problem in zip(
            SUITES["ogbench50"].domains, map(Problem, range(20, 30), range(2, 12)), strict=True
        )
    }
    assert len(found) == 20  # of other sizes
    assert _counted.cache_info().misses == 12  # with pessimism and without
